"""Pools: the servers that serve exactly one release.

`seam` says what the controller may ask. `process` runs a Triton of its own for each release on this machine:
`installation` finds them, `server` starts and ends one, `records` remembers it, `kernel` tells what became of it.
`running` loads releases into Tritons that are already running: `published` puts the files where they read them,
`triton` asks one of them, `loaded` remembers. `v2` asks either kind for its answers. `fake` is for tests.
"""
