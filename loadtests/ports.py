"""Addresses on this machine that are free: the usual ports where they are, others where not."""

import contextlib
import socket


def free_addresses(*usual: int) -> list[str]:
    """One 127.0.0.1:PORT for each usual port; 0 asks for any. Another process may take one before it is used."""
    with contextlib.ExitStack() as held:  # Each is held until all are chosen, so no two are the same.
        return [f"127.0.0.1:{held.enter_context(_hold(port)).getsockname()[1]}" for port in usual]


def _hold(port: int) -> socket.socket:
    """A socket bound to this port, or to any other when it is taken."""
    probe = socket.socket()
    probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        probe.bind(("127.0.0.1", port))
    except OSError:
        probe.bind(("127.0.0.1", 0))
    return probe
