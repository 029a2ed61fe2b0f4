"""Side-by-side benchmarks: ours and its peers in one run, interleaved.

`gateway` runs the gateway's, `client` is its load, `processes` starts and measures, `rows` judges: pure, and tested.
"""
