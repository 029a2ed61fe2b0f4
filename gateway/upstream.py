"""The server's side of the wire: HTTP/1.1 connections to one server, kept and used again.

Knows connections and answers; does not know releases, routes, clients or what a failure means. A connection is used
again only after an answer that was whole and unambiguous, with nothing behind it.
"""

import asyncio
from typing import Protocol, cast

from gateway.answers import RefusedError
from gateway.balance import Health
from gateway.chunks import UNLIMITED, ChunkReader
from gateway.heads import CHUNKED, END, UNTIL_CLOSE, AnswerError, AnswerHead, AnswerReader
from gateway.resetting import reset
from gateway.windows import Outcome

Chunks = list[bytes | memoryview]

_VIEWED_BYTES = 16 * 1024
"""Bodies from this size on are handed on as views of what was received."""
_INTERIM_MOST = 32
"""1xx answers before the real one."""


class Listener(Protocol):
    """Who waits for an answer. `failed` may come at any time before the last `arrived`; nothing comes after either.

    `arrived` brings the head the first time (then None), and what came of the body with its size.
    """

    connection: "Connection | None"
    attempt: int
    """The number of the attempt it awaits, 0 when it awaits none: it may give up before a connection was made."""

    def arrived(self, head: AnswerHead | None, chunks: Chunks, size: int, is_last: bool) -> None: ...

    def failed(self, outcome: Outcome, was_stale: bool) -> None: ...


class Connection(asyncio.Protocol):
    """One connection, carrying one request at a time for its listener."""

    __slots__ = (
        "_chunks", "_head", "_held", "_interim", "_is_paused", "_is_told", "_is_trusted", "_missing", "_server",
        "listener", "transport", "used",
    )  # fmt: skip

    def __init__(self, server: "Server") -> None:
        self._server = server
        self.listener: Listener | None = None
        self.transport: asyncio.Transport | None = None
        self.used = self._is_paused = False
        self._is_trusted = True
        """May it be used again after this answer?"""
        self._chunks: ChunkReader | None = None
        self._head: AnswerHead | None = None
        self._is_told = False
        """Does the listener have the head?"""
        self._held = b""
        self._missing = self._interim = 0

    # asyncio.Protocol

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.Transport, transport)  # uvloop's are not subclasses.

    def data_received(self, data: bytes) -> None:
        if self.listener is None:  # Bytes that nobody asked for: never trust this connection again.
            self.close()
            return
        try:
            if self._head is None:
                self._read_head(self._held + data if self._held else data)
            else:
                self._read_body(data)
        except (AnswerError, RefusedError):
            self._fail(False)

    def eof_received(self) -> bool:
        return False

    def connection_lost(self, exc: Exception | None) -> None:
        self._server.forget(self)
        if self.listener is None:
            return
        if self._head is not None and exc is None and self._missing == UNTIL_CLOSE:
            self._is_trusted = False
            self._deliver([], 0, True)
        else:
            self._fail(self.used and self._head is None and not self._held and not self._interim)

    def pause_reading(self) -> None:
        if not self._is_paused and self.transport is not None and not self.transport.is_closing():
            self._is_paused = True
            self.transport.pause_reading()

    def resume_reading(self) -> None:
        if self._is_paused and self.transport is not None and not self.transport.is_closing():
            self._is_paused = False
            self.transport.resume_reading()

    # The answer

    def _read_head(self, data: bytes) -> None:
        reader = self._server.reader
        at = 0
        while True:
            end = data.find(END, at)
            if end < 0:
                self._held = data[at:]
                reader.check_part(self._held)
                return
            head = reader[data[at:end]]
            at = end + 4
            if head.status >= 200:
                break
            self._interim += 1
            if head.status == 101 or not head.keep_alive or self._interim > _INTERIM_MOST:
                raise AnswerError("not an answer")
        self._held = b""
        length = head.length
        if length == len(data) - at:  # The usual answer: all of it came at once.
            listener = self.listener
            assert listener is not None
            self._finish(head)
            body: bytes | memoryview = data[at:] if length < _VIEWED_BYTES else memoryview(data)[at:]
            listener.arrived(head, [body] if length else [], length, True)
            return
        self._head = head
        self._missing = length
        if length == CHUNKED:
            self._chunks = ChunkReader(UNLIMITED)
        if len(data) > at:
            self._read_body(data[at:] if len(data) - at < _VIEWED_BYTES else memoryview(data)[at:])
        else:
            self._deliver([], 0, length == 0)

    def _read_body(self, data: bytes | memoryview) -> None:
        missing, size = self._missing, len(data)
        if missing >= 0:
            if size > missing:
                self._is_trusted = False  # Something came behind the answer: it is dropped, and the connection too.
                data, size = data[:missing], missing
            self._missing = missing - size
            self._deliver([data] if size else [], size, self._missing == 0)
        elif missing == UNTIL_CLOSE:
            self._deliver([data], size, False)
        else:
            chunks: Chunks = []
            assert self._chunks is not None
            behind = self._chunks.feed(bytes(data), chunks)
            if behind:
                self._is_trusted = False
            self._deliver(chunks, sum(map(len, chunks)), behind is not None)

    def _deliver(self, chunks: Chunks, size: int, is_last: bool) -> None:
        listener, head = self.listener, self._head
        assert listener is not None
        told, self._is_told = self._is_told, True
        if is_last:
            assert head is not None
            self._finish(head)
            self._head = self._chunks = None
            self._is_told = False
        listener.arrived(None if told else head, chunks, size, is_last)

    def _finish(self, head: AnswerHead) -> None:
        """The answer is whole: let the next request use the connection."""
        assert self.transport is not None
        self.listener = None
        # Answered before it had read the whole request: what it would make of the rest is uncertain.
        keep = head.keep_alive and self._is_trusted and not self.transport.get_write_buffer_size()
        if self._is_paused:
            self.resume_reading()
        self._interim = 0
        self.used = True
        self._server.ended(self, keep)

    def _fail(self, was_stale: bool) -> None:
        """It broke, or what came is no answer. `was_stale`: it was kept, and closed before anything came."""
        listener, self.listener = self.listener, None
        self._server.in_flight -= 1
        self.close()
        if listener is not None:
            listener.failed(Outcome.RESET, was_stale)

    # The request

    def send(self, listener: Listener, data: Chunks) -> None:
        assert self.transport is not None
        assert self.listener is None
        self.listener = listener
        listener.connection = self
        if len(data) == 1:
            self.transport.write(data[0])
        else:
            self.transport.writelines(data)

    def abandon(self) -> None:
        """The listener no longer waits (its time is up): the answer would be late, so the connection is of no use."""
        if self.listener is not None:
            self.listener = None
            self._server.in_flight -= 1
        if self.transport is not None:
            reset(self.transport)  # The server may not have read the request yet.

    def close(self) -> None:
        if self.transport is not None:
            self.transport.abort()


class Server:
    """One server's address with its idle connections. `retired` servers keep no connection."""

    def __init__(self, address: str, connect_timeout_s: float, reader: AnswerReader) -> None:
        self.address = address
        self.line_end = b" HTTP/1.1\r\nhost: %s\r\n" % address.encode()
        """What follows the path in a request to it."""
        host, _, port = address.rpartition(":")
        self._host, self._port = host.strip("[]"), int(port)
        self._connect_timeout_s = connect_timeout_s
        self._idle: list[Connection] = []
        self._connecting: set[asyncio.Task[None]] = set()
        self._is_retired = False
        self.reader = reader
        self.in_flight = 0
        self.health = Health()

    def __repr__(self) -> str:
        return f"<Server {self.address} in_flight={self.in_flight} idle={len(self._idle)}>"

    @property
    def idle(self) -> int:
        return len(self._idle)

    def send(self, listener: Listener, data: Chunks, fresh: bool = False) -> None:
        """Send a request. `fresh` asks for a new connection, after a kept one turned out to be closed."""
        self.in_flight += 1
        if self._idle and not fresh:
            self._idle.pop().send(listener, data)
            return
        task = asyncio.get_running_loop().create_task(self._connect_and_send(listener, listener.attempt, data))
        self._connecting.add(task)
        task.add_done_callback(self._connecting.discard)

    async def _connect_and_send(self, listener: Listener, attempt: int, data: Chunks) -> None:
        loop = asyncio.get_running_loop()
        try:
            async with asyncio.timeout(self._connect_timeout_s):
                _, connection = await loop.create_connection(lambda: Connection(self), self._host, self._port)
        except (OSError, TimeoutError, UnicodeError):  # The last for a host name that no resolver takes.
            self.in_flight -= 1
            if listener.attempt == attempt:
                listener.failed(Outcome.UNAVAILABLE, False)
            return
        except asyncio.CancelledError:
            self.in_flight -= 1
            raise
        if listener.attempt != attempt:  # It gave up meanwhile: the connection serves the next one.
            self.ended(connection, keep=True)
        elif connection.transport is None or connection.transport.is_closing():
            self.in_flight -= 1
            listener.failed(Outcome.RESET, False)
        else:
            connection.send(listener, data)

    def ended(self, connection: Connection, keep: bool) -> None:
        self.in_flight -= 1
        transport = connection.transport
        if keep and not self._is_retired and transport is not None and not transport.is_closing():
            self._idle.append(connection)
        else:
            connection.close()

    def forget(self, connection: Connection) -> None:
        if connection in self._idle:
            self._idle.remove(connection)

    def retire(self) -> None:
        """The server is routed away: close idle connections now and busy ones after their answer."""
        self._is_retired = True
        while self._idle:
            self._idle.pop().close()
