"""A transport without a kernel, as strict as uvloop's: the gateway's end of one connection.

What is written goes to the peer as far as it takes it; what the peer sends is delivered unless reading is paused.
Errors of a protocol's methods are kept in `VirtualLoop.errors`. The order of calls is uvloop's (handles/stream.pyx).
"""

import asyncio
import traceback
from collections.abc import Iterable
from typing import Any, Protocol

from loadtests.fuzz.loop import VirtualLoop

HIGH_BYTES, LOW_BYTES = 64 * 1024, 16 * 1024
"""uvloop's marks for pause_writing and resume_writing."""

READ_BYTES = 256 * 1024
"""The most that uvloop reads at once."""


class Peer(Protocol):
    """Who is at the other end."""

    def took(self, data: bytes) -> None: ...

    def saw_eof(self) -> None:
        """The gateway closed its side."""

    def saw_close(self) -> None:
        """The connection is gone at the gateway's end."""


class Wire(asyncio.Transport):
    """`room` is how many bytes the peer takes before it stops reading; None: it reads all."""

    def __init__(self, loop: VirtualLoop, protocol: asyncio.Protocol, peer: Peer, address: str = "127.0.0.1") -> None:
        self._loop, self._protocol, self._peer = loop, protocol, peer
        self._address = address
        self.room: int | None = None
        self.late_writes = 0
        """How often something was written after the gateway had closed."""
        self.most_unsent = 0
        self._unsent = bytearray()
        self._incoming: list[bytes] = []
        self._has_eof = self._is_reading = False
        self._is_closing = self._is_losing = self.is_lost = self._is_eof_written = self._is_protocol_paused = False

    def made(self) -> None:
        """Tell the protocol that it is connected."""
        self._call(self._protocol.connection_made, self)
        self._is_reading = not self._is_closing

    # The peer's side

    def feed(self, *data: bytes) -> None:
        """The peer sent this."""
        self._incoming += data
        self._deliver()

    def feed_eof(self) -> None:
        """The peer closed its side."""
        self._has_eof = True
        self._deliver()

    def reset(self) -> None:
        """The peer broke the connection."""
        self._force_close(ConnectionResetError(104, "reset"))

    def take(self, room: int | None) -> None:
        """The peer reads on, this much."""
        self.room = room
        self._flush()

    @property
    def unread(self) -> int:
        """Bytes that the peer sent and the gateway did not read."""
        return sum(map(len, self._incoming))

    # asyncio.Transport

    def get_extra_info(self, name: str, default: Any = None) -> Any:
        return (self._address, 1) if name == "peername" else default

    def is_closing(self) -> bool:
        return self._is_closing

    def is_reading(self) -> bool:
        return self._is_reading

    def pause_reading(self) -> None:
        if not self._is_closing:
            self._is_reading = False

    def resume_reading(self) -> None:
        if not self._is_closing and not self._is_reading:
            self._is_reading = True
            if self._incoming or self._has_eof:
                self._loop.call_soon(self._deliver)

    def get_write_buffer_size(self) -> int:
        return len(self._unsent)

    def write(self, data: bytes | bytearray | memoryview) -> None:
        self.writelines((data,))

    def writelines(self, list_of_data: Iterable[bytes | bytearray | memoryview]) -> None:
        if self.is_lost:
            raise RuntimeError("write() on a closed transport")
        if self._is_eof_written:
            raise RuntimeError("Cannot call write() after write_eof()")
        data = b"".join(list_of_data)
        if data and self._is_closing:
            self.late_writes += 1
        if self._is_losing:
            return
        self._unsent += data
        self._flush()
        self.most_unsent = max(self.most_unsent, len(self._unsent))
        if len(self._unsent) > HIGH_BYTES and not self._is_protocol_paused:
            self._is_protocol_paused = True
            self._call(self._protocol.pause_writing)

    def write_eof(self) -> None:
        if self.is_lost:
            raise RuntimeError("write_eof() on a closed transport")
        if not self._is_eof_written:
            self._is_eof_written = True
            if not self._unsent:
                self._peer.saw_eof()

    def close(self) -> None:
        if not self._is_closing:
            self._is_closing, self._is_reading = True, False
            if not self._unsent:
                self._lose(None)

    def abort(self) -> None:
        self._force_close(None)

    # What the kernel and the loop do

    def _flush(self) -> None:
        if self._is_losing or not self._unsent:
            return
        size = len(self._unsent) if self.room is None else min(self.room, len(self._unsent))
        if not size:
            return
        data = bytes(self._unsent[:size])
        del self._unsent[:size]
        if self.room is not None:
            self.room -= size
        self._peer.took(data)
        if self._is_protocol_paused and len(self._unsent) <= LOW_BYTES:
            self._is_protocol_paused = False
            self._call(self._protocol.resume_writing)
        if not self._unsent:
            if self._is_closing:
                self._lose(None)
            elif self._is_eof_written:
                self._peer.saw_eof()

    def _deliver(self) -> None:
        while self._is_reading and self._incoming:
            data = self._incoming[0] if len(self._incoming) == 1 else b"".join(self._incoming)
            self._incoming = [data[READ_BYTES:]] if len(data) > READ_BYTES else []
            data = data[:READ_BYTES]
            if data:
                self._call(self._protocol.data_received, data)
        if self._is_reading and self._has_eof:
            if self._call(self._protocol.eof_received):
                self._is_reading = False
            else:
                self.close()

    def _force_close(self, exc: Exception | None) -> None:
        if not self._is_losing:
            self._is_closing, self._is_reading = True, False
            self._unsent.clear()
            self._lose(exc)

    def _lose(self, exc: Exception | None) -> None:
        if not self._is_losing:
            self._is_losing = True
            self._loop.call_soon(self._lost, exc)

    def _lost(self, exc: Exception | None) -> None:
        self._call(self._protocol.connection_lost, exc)
        self.is_lost = True
        self._peer.saw_close()

    def _call(self, method: Any, *args: Any) -> Any:
        try:
            return method(*args)
        except Exception as exc:
            self._loop.errors.append(f"{method.__qualname__} raised {exc!r}\n{traceback.format_exc(-4)}")
            self._force_close(exc)
            return False
