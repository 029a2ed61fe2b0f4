"""The demo: the whole way of four releases under constant traffic, with promises that are checked at the end.

`story` tells it, `stage_hands` trains, exports and runs processes, `screen` shows it, `promises` judges it.
"""
