"""Who the gateway is measured beside: each peer forwards the same requests with the same weighted, sticky split.

`upstream` answers them all, `line_up` says how each peer is started, `fastapi_proxy` is the home-made one.
"""
