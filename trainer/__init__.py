"""The trainer: a configuration and a data set in, a run folder out.

In the order in which a training meets them: `config` -> `data` -> `models` -> `loop`, with `checkpoint` -> `evaluate`
-> `result`, which writes the `manifest` last. `cli` is the terminal's side.
"""
