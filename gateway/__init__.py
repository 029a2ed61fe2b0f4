"""The data plane: one request in, one answer out, counted.

How a request flows: `http1` (the client's side of the wire, heads read by `heads` and `remembered`) -> `dispatch` and
`way` (which model and release) -> `exchange` (the life of one request) -> `balance` (which server) -> `upstream` (the
server's side of the wire) -> `counters`; then `mirror`.
`worker` puts these together in one process, `supervisor` keeps N workers on shared sockets, `control` fetches routes
and sends windows.
"""
