"""Pools: the servers that serve exactly one release.

`seam` says what the controller may ask. `process` runs real Tritons on this machine: `installation` finds them,
`server` starts and ends one, `v2` asks it, `records` remembers it, `kernel` tells what became of it. `fake` is for
tests.
"""
