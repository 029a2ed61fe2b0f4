"""The server's side of the wire: HTTP/1.1 connections to one server, kept and used again.

Knows connections and answers; does not know releases, routes, clients or what a failure means. A connection is used
again only after an answer that was whole and unambiguous, with nothing behind it.
"""

import asyncio
from typing import Protocol, cast

import httptools

from gateway.balance import Health
from gateway.windows import Outcome

Headers = list[tuple[bytes, bytes]]


class Listener(Protocol):
    """Who waits for an answer. `failed` may come at any time before `ended`; nothing comes after either."""

    def head_arrived(self, status: int, headers: Headers) -> None: ...

    def body_arrived(self, chunks: list[bytes]) -> None: ...

    def ended(self) -> None: ...

    def failed(self, outcome: Outcome, was_stale: bool) -> None: ...


class Connection(asyncio.Protocol):
    """One connection, carrying one request at a time for its listener."""

    __slots__ = (
        "_body", "_complete", "_has_length", "_head_sent_on", "_headers", "_is_paused", "_keep", "_parser", "_received",
        "_server", "_status", "listener", "transport", "used",
    )  # fmt: skip

    def __init__(self, server: "Server") -> None:
        self._server = server
        self.listener: Listener | None = None
        self.transport: asyncio.Transport | None = None
        self.used = self._is_paused = False
        self._parser = httptools.HttpResponseParser(self)
        self._reset_answer()

    def _reset_answer(self) -> None:
        self._headers: Headers = []
        self._body: list[bytes] = []
        self._status = 0
        self._complete = self._has_length = self._head_sent_on = self._received = False
        self._keep = True

    # asyncio.Protocol

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.Transport, transport)  # uvloop's are not subclasses.

    def data_received(self, data: bytes) -> None:
        if self.listener is None:  # Bytes that nobody asked for: never trust this connection again.
            self.close()
            return
        self._received = True
        try:
            self._parser.feed_data(data)
        except (httptools.HttpParserError, httptools.HttpParserUpgrade):
            self._fail(Outcome.RESET)
            return
        self._deliver()

    def eof_received(self) -> bool:
        return False

    def connection_lost(self, exc: Exception | None) -> None:
        self._server.forget(self)
        if self.listener is None:
            return
        if self._head_sent_on and exc is None and not self._has_length:
            self._complete, self._keep = True, False  # An answer without a length ends with its connection.
            self._deliver()
        else:
            self._fail(Outcome.RESET)

    def pause_reading(self) -> None:
        if not self._is_paused and self.transport is not None and not self.transport.is_closing():
            self._is_paused = True
            self.transport.pause_reading()

    def resume_reading(self) -> None:
        if self._is_paused and self.transport is not None and not self.transport.is_closing():
            self._is_paused = False
            self.transport.resume_reading()

    # httptools' callbacks

    def on_header(self, name: bytes, value: bytes) -> None:
        if self._status:  # A trailer, or a second answer.
            return
        lowered = name.lower()
        if lowered == b"transfer-encoding" or lowered == b"content-length":
            self._has_length = True
        self._headers.append((lowered, value))

    def on_headers_complete(self) -> None:
        status = self._parser.get_status_code()
        if self._complete:
            return
        if status >= 200:
            self._status = status
            self._keep = self._parser.should_keep_alive()
        else:
            self._headers = []
            self._has_length = False

    def on_body(self, body: bytes) -> None:
        if not self._complete:
            self._body.append(body)

    def on_message_complete(self) -> None:
        if self._status:
            self._complete = True

    def on_message_begin(self) -> None:
        if self._complete:
            self._keep = False  # Answered twice: the second one is dropped, and the connection with it.

    # The request's side

    def send(self, listener: Listener, data: list[bytes]) -> None:
        assert self.transport is not None
        assert self.listener is None
        self.listener = listener
        if len(data) == 1:
            self.transport.write(data[0])
        else:
            self.transport.writelines(data)

    def abandon(self) -> None:
        """The listener no longer waits (its time is up): the answer would be late, so the connection is of no use."""
        if self.listener is not None:
            self.listener = None
            self._server.in_flight -= 1
        self.close()

    def close(self) -> None:
        if self.transport is not None:
            self.transport.abort()

    def _deliver(self) -> None:
        listener = self.listener
        assert listener is not None
        if self._status and not self._head_sent_on:
            self._head_sent_on = True
            listener.head_arrived(self._status, self._headers)
        if self._body and self.listener is listener:
            chunks, self._body = self._body, []
            listener.body_arrived(chunks)
        if self._complete and self.listener is listener:
            self._finish()
            listener.ended()

    def _finish(self) -> None:
        assert self.transport is not None
        self.listener = None
        # Answered before it had read the whole request: what it would make of the rest is uncertain.
        keep = self._keep and not self.transport.get_write_buffer_size()
        self.resume_reading()
        self._reset_answer()
        self.used = True
        self._server.ended(self, keep)

    def _fail(self, outcome: Outcome) -> None:
        listener, self.listener = self.listener, None
        self._server.in_flight -= 1
        was_stale = self.used and not self._received
        self.close()
        if listener is not None:
            listener.failed(outcome, was_stale)


class Server:
    """One server's address with its idle connections. `retired` servers keep no connection."""

    def __init__(self, address: str, connect_timeout_s: float) -> None:
        self.address = address
        host, _, port = address.rpartition(":")
        self._host, self._port = host.strip("[]"), int(port)
        self._connect_timeout_s = connect_timeout_s
        self._idle: list[Connection] = []
        self._connecting: set[asyncio.Task[None]] = set()
        self._is_retired = False
        self.in_flight = 0
        self.health = Health()

    def __repr__(self) -> str:
        return f"<Server {self.address} in_flight={self.in_flight} idle={len(self._idle)}>"

    def send(self, waiting: "Waiting", data: list[bytes], fresh: bool = False) -> None:
        """Send a request. `fresh` asks for a new connection, after a kept one turned out to be closed."""
        self.in_flight += 1
        if self._idle and not fresh:
            connection = self._idle.pop()
            waiting.connection = connection
            connection.send(waiting, data)
            return
        task = asyncio.get_running_loop().create_task(self._connect_and_send(waiting, data))
        self._connecting.add(task)
        task.add_done_callback(self._connecting.discard)

    async def _connect_and_send(self, waiting: "Waiting", data: list[bytes]) -> None:
        loop, attempt = asyncio.get_running_loop(), waiting.attempt
        try:
            async with asyncio.timeout(self._connect_timeout_s):
                _, connection = await loop.create_connection(lambda: Connection(self), self._host, self._port)
        except (OSError, TimeoutError, UnicodeError):  # The last for a host name that no resolver takes.
            self.in_flight -= 1
            if waiting.attempt == attempt:
                waiting.failed(Outcome.UNAVAILABLE, False)
            return
        if waiting.attempt == attempt:
            waiting.connection = connection
            connection.send(waiting, data)
        else:  # Its listener gave up meanwhile: the connection serves the next one.
            self.ended(connection, keep=True)

    def ended(self, connection: Connection, keep: bool) -> None:
        self.in_flight -= 1
        if keep and not self._is_retired and connection.transport is not None and not connection.transport.is_closing():
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


class Waiting(Listener, Protocol):
    """A listener that may have given up, or gone on to another attempt, before its connection was made.

    `attempt` is the number of the attempt it awaits, 0 when it awaits none.
    """

    connection: Connection | None
    attempt: int
