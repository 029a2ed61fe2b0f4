"""Who the gateway is measured beside: each peer forwards the same requests with the same weighted, sticky split.

`peer` says what a peer is; `ours`, `nginx`, `haproxy`, `envoy` and the home-made `fastapi_proxy` are started as their
files say; `line_up` lists them. `upstream` answers them all, `message` counts bytes for it and for the load.
"""
