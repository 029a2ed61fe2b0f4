"""The gateway's core against hostile peers, without a kernel: cases, and mutations of them by the million.

Read `loop` and `wire` (time and connections that a test owns), `oracle` (what must be on the wire), `ends` and `stage`
(the real core between virtual peers), then `case` and `judging`.
"""
