"""The exporter: a finished run in, an immutable release in a model repository out.

`pipeline` reads top to bottom: `convert` writes the graph, `verify` compares it, `triton_config` describes it to
Triton, `repository` publishes it. `release` is the manifest, and all that the control plane may import. `cli` is the
terminal's side.
"""
