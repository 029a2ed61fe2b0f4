"""The gateway's core against hostile peers, without a kernel: cases, and mutations of them by the million.

Read `loop` and `wire` (time and connections that a test owns), `oracle` (what must be on the wire), `ends` and `stage`
(the real core between virtual peers, and what must hold at rest); then `case` and `judging`, `answer_case` and
`answer_judging` (single messages); then `driver` (one step after the other), `grammar` and `targets` (the fuzzer).
"""
