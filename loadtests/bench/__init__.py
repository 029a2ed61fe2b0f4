"""Side-by-side benchmarks: ours and its peers in one run, interleaved.

`gateway` is the command: it runs works and says what came of them. A work (`work`) starts what it measures on a `stage`
and gives turns: `forwarding`, `triton`, `models`, `table_change`, `mirroring`, `idle`. The load runs in processes of
its own: `client` and `change` by the two ways in `loads`, with what `asking` makes; `held` holds idle connections.
`processes` reads CPU time and memory. `rows` judges by `bars`, pure and tested; `tables` shows.
"""
