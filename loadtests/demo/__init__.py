"""The demo: the whole way of four releases under constant traffic, with promises that are checked at the end.

`cli` starts it in a `place`, `story` tells it, `stage_hands` run the commands, `screen` shows it while it runs,
`promises` judge it, `tables` show the results. `interruption` ends it early; `traces` finds what it left behind.
"""
