"""Addresses on this machine that are free: the usual ports where they are, others where not."""

import contextlib
import itertools
import random
import socket
from collections.abc import Iterator

FIRST_PORT, LAST_PORT = 10_000, 32_000
"""Below the range that Linux takes the ports of outgoing connections from: none of them is in the way later."""
TRIES = 1000


def held_addresses(held: contextlib.ExitStack, *usual: int) -> list[str]:
    """One 127.0.0.1:PORT for each usual port; 0 asks for any. Nobody else gets them until `held` is closed."""
    return [f"127.0.0.1:{held.enter_context(_hold(port)).getsockname()[1]}" for port in usual]


def free_addresses(*usual: int) -> list[str]:
    """The same, not held: another process may take one before it is used."""
    with contextlib.ExitStack() as held:
        return held_addresses(held, *usual)


def _hold(port: int) -> socket.socket:
    """A socket on this port, or on any other when it is taken. It listens: two that are only bound may share a port."""
    for wanted in _wanted(port):
        holder = socket.socket()
        holder.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            holder.bind(("127.0.0.1", wanted))
            holder.listen(1)
        except OSError:
            holder.close()
        else:
            return holder
    raise OSError("127.0.0.1 has no free port left")


def _wanted(port: int) -> Iterator[int]:
    """The ports to try, in this order."""
    if port:
        yield port
    for _ in itertools.repeat(None, TRIES):
        yield random.randint(FIRST_PORT, LAST_PORT)
