"""The control plane's HTTP interface: one router a noun, put together in `app`."""
