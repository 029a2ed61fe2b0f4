"""Ends a connection so that nothing of it is left, neither here nor in the kernel. Knows no protocol."""

import asyncio
import contextlib
import socket
import struct

_NO_LINGER = struct.pack("ii", 1, 0)
"""Closed with this, a connection is reset (socket(7), SO_LINGER)."""


def reset(transport: asyncio.Transport) -> None:
    """Abort with a reset. `abort` alone closes: the kernel would send on what it has, for minutes if it is not read."""
    own = transport.get_extra_info("socket")
    if own is not None:
        with contextlib.suppress(OSError, ValueError):  # It is gone already.
            own.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _NO_LINGER)
    transport.abort()
