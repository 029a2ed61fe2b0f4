"""The client's side of the wire: HTTP/1.1 requests in, answers out, in order.

Holds every limit before anything is kept, and answers what is ambiguous with one 400 and a closed connection. Knows
framing and back-pressure; does not know models, releases or servers: a whole request goes to `Handler.handle`.
"""

import asyncio
import re
from collections import deque
from typing import Protocol, cast

import httptools

from gateway.answers import CLOSE, error_answer, whole_answer
from gateway.config import GatewayConfig

Headers = list[tuple[bytes, bytes]]

JOIN_BYTES = 64 * 1024
"""Writes up to this size are joined into one; larger ones are handed on as the chunks they came in."""
CLOSING_S = 2.0
"""How long a client may take to close its side after we closed ours."""
_TARGET_BYTES = frozenset(range(0x21, 0x7F)) - {ord("#")}
_HOST = re.compile(rb"[A-Za-z0-9._~%!$&'()*+;=:\[\]-]+")


class Request:
    """A whole request: `headers` have lower-case names, `body` is the chunks as they came, of `size` bytes in all.

    `takes_chunks` is false for HTTP/1.0, whose clients know an answer's end by its length or by the close only.
    """

    __slots__ = ("body", "headers", "keep_alive", "method", "size", "takes_chunks", "target")

    def __init__(self) -> None:
        self.method = b""
        self.target = b""
        self.headers: Headers = []
        self.body: list[bytes] = []
        self.size = 0
        self.keep_alive = self.takes_chunks = True

    def header(self, name: bytes) -> bytes | None:
        for known, value in self.headers:
            if known == name:
                return value
        return None


class Exchanging(Protocol):
    """What a connection needs of the exchange that answers its request."""

    def client_gone(self) -> None: ...

    def client_is_slow(self) -> None: ...

    def client_is_ready(self) -> None: ...


class Handler(Protocol):
    """Takes a whole request; answers through the connection, now or later."""

    def handle(self, request: Request, client: "ClientConnection") -> Exchanging | None: ...


class RefusedError(Exception):
    """A request that is not taken: its status and why. The connection is closed after it."""

    def __init__(self, status: int, text: str) -> None:
        super().__init__(text)
        self.status = status
        self.text = text


class ClientConnection(asyncio.Protocol):
    """One client's connection: parses requests, hands on one at a time, writes answers."""

    __slots__ = (
        "_connections", "_exchange", "_fields", "_handler", "_has_begun", "_has_ended", "_has_host", "_has_length",
        "_has_upgrade", "_head_size", "_in_body", "_is_chunked", "_is_closing", "_is_paused", "_is_slow", "_limits",
        "_loop", "_parser", "_queue", "_refused", "_request", "_wants_continue", "_wire_bytes", "deadline_s", "is_busy",
        "is_draining", "transport",
    )  # fmt: skip

    def __init__(self, handler: Handler, limits: GatewayConfig, connections: "set[ClientConnection]") -> None:
        self._handler = handler
        self._limits = limits
        self._connections = connections
        self._loop = asyncio.get_running_loop()
        self._parser = httptools.HttpRequestParser(self)
        self._queue: deque[Request] = deque()
        self._exchange: Exchanging | None = None
        self._refused: RefusedError | None = None
        self.transport: asyncio.Transport | None = None
        self.is_busy = self.is_draining = False
        self._is_closing = self._is_paused = self._is_slow = self._has_ended = False
        self.deadline_s = self._loop.time() + limits.head_timeout_s
        self._begin()

    def _begin(self) -> None:
        self._request = Request()
        self._head_size = self._fields = self._wire_bytes = 0
        self._has_begun = self._in_body = self._is_chunked = False
        self._has_host = self._has_length = self._has_upgrade = self._wants_continue = False

    @property
    def _is_open(self) -> bool:
        return self.transport is not None and not self._is_closing and not self.transport.is_closing()

    # asyncio.Protocol

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.Transport, transport)  # uvloop's are not subclasses.
        self._connections.add(self)

    def data_received(self, data: bytes) -> None:
        if self._refused is not None or self._is_closing:
            return
        self._wire_bytes += len(data)
        try:
            self._feed(data)
            self._check_wire()
        except httptools.HttpParserError:
            if self._refused is None:
                self._refused = RefusedError(400, "the request is not valid HTTP/1.1, or its framing is ambiguous")
        except RefusedError as exc:
            self._refused = exc
        self._next()

    def _feed(self, data: bytes) -> None:
        while True:
            try:
                self._parser.feed_data(data)
                return
            except httptools.HttpParserUpgrade as exc:
                # An upgrade is not taken up (RFC 9110, 7.8), but the parser skipped the body: read the head again.
                data = _head_without_upgrade(self._request) + data[exc.args[0] :]
                self._parser = httptools.HttpRequestParser(self)
                self._begin()

    def _check_wire(self) -> None:
        """Hold what the parser does not show: a head without end, and chunks that are more framing than content."""
        most = self._limits.head_bytes + self._limits.request_line_bytes
        if not self._in_body and self._wire_bytes > most:
            raise RefusedError(431, f"the request's head is longer than {self._limits.head_bytes} bytes")
        if self._is_chunked and self._wire_bytes - self._request.size > most + self._request.size:
            raise RefusedError(400, "the chunks' framing is larger than their content")

    def eof_received(self) -> bool:
        self._has_ended = True
        return self.is_busy or bool(self._queue)  # A half-closed client still gets its answers.

    def connection_lost(self, exc: Exception | None) -> None:
        self._connections.discard(self)
        self._is_closing = True
        self._queue.clear()
        exchange, self._exchange = self._exchange, None
        if exchange is not None:
            exchange.client_gone()

    def pause_writing(self) -> None:
        self._is_slow = True
        if self._exchange is not None:
            self._exchange.client_is_slow()

    def resume_writing(self) -> None:
        self._is_slow = False
        if self._exchange is not None:
            self._exchange.client_is_ready()
        self._next()

    # httptools' callbacks

    def on_message_begin(self) -> None:
        self._has_begun = True
        self.deadline_s = self._loop.time() + self._limits.head_timeout_s

    def on_url(self, url: bytes) -> None:
        self._request.target += url
        if len(self._request.target) > self._limits.request_line_bytes:
            self._stop(414, f"the request line is longer than {self._limits.request_line_bytes} bytes")

    def on_header(self, name: bytes, value: bytes) -> None:
        self._fields += 1
        self._head_size += len(name) + len(value) + 4
        if self._fields > self._limits.head_fields:
            self._stop(431, f"the request has more than {self._limits.head_fields} header fields")
        if self._head_size > self._limits.head_bytes:
            self._stop(431, f"the request's head is longer than {self._limits.head_bytes} bytes")
        if self._in_body:  # A trailer: bounded above, and dropped.
            return
        name = name.lower()
        if name in _FRAMING:
            self._note_framing(name, value)
        elif b"_" in name and name.replace(b"_", b"-") in _FRAMING:
            self._stop(400, "a header's name must not look like another's")
        self._request.headers.append((name, value))

    def _note_framing(self, name: bytes, value: bytes) -> None:
        if name == b"host":
            if self._has_host or not _HOST.fullmatch(value):
                self._stop(400, "a request needs exactly one valid Host")
            self._has_host = True
        elif name == b"content-length":
            if self._has_length or not value.isdigit() or (len(value) > 1 and value[:1] == b"0"):
                self._stop(400, "Content-Length must be one plain number")
            self._has_length = True
            if int(value) > self._limits.body_bytes:
                self._stop(413, f"the body is larger than {self._limits.body_bytes} bytes")
        elif name == b"transfer-encoding":
            if self._is_chunked or value.lower() != b"chunked":
                self._stop(400, "Transfer-Encoding must be one 'chunked'")
            self._is_chunked = True
        elif name == b"upgrade":
            self._has_upgrade = True
        elif value.lower() != b"100-continue" or self._wants_continue:
            self._stop(417, "only 'Expect: 100-continue' is understood")
        else:
            self._wants_continue = True

    def on_headers_complete(self) -> None:
        request, version = self._request, self._parser.get_http_version()
        request.method = self._parser.get_method()
        request.takes_chunks = version == "1.1"
        request.keep_alive = request.takes_chunks and self._parser.should_keep_alive()
        if version not in ("1.1", "1.0"):
            self._stop(505, "only HTTP/1.1 and HTTP/1.0 are understood")
        if not self._has_host and version == "1.1":
            self._stop(400, "a request needs exactly one valid Host")
        if self._is_chunked and (self._has_length or version == "1.0"):
            self._stop(400, "the request's framing is ambiguous")
        if not _TARGET_BYTES.issuperset(request.target) or request.target[:1] != b"/":
            self._stop(400, "the request's target must be a path of visible ASCII characters")
        self._in_body = True
        self.deadline_s = self._loop.time() + self._limits.body_timeout_s
        if self._wants_continue and not self.is_busy and not self._queue:
            self._say_continue()

    def _say_continue(self) -> None:
        self._wants_continue = False
        if self._is_open and self._request.takes_chunks and not self._request.size:
            self.write([b"HTTP/1.1 100 Continue\r\n\r\n"])

    def on_body(self, body: bytes) -> None:
        request = self._request
        request.size += len(body)
        if request.size > self._limits.body_bytes:
            self._stop(413, f"the body is larger than {self._limits.body_bytes} bytes")
        request.body.append(body)

    def on_message_complete(self) -> None:
        if self._has_upgrade and self._parser.should_upgrade():
            return  # Not complete at all: see `_feed`.
        self._queue.append(self._request)
        self._begin()
        if len(self._queue) > self._limits.pipelined_requests:
            self._stop(400, f"more than {self._limits.pipelined_requests} requests at once on one connection")

    def _stop(self, status: int, text: str) -> None:
        """Refuse from inside a parser's callback: it comes out of feed_data as the error's context."""
        self._refused = RefusedError(status, text)
        raise self._refused

    # One request after the other

    def _next(self) -> None:
        """Hand on the next request, unless one is being answered or its answers are not read; then see to reading."""
        while self._queue and not self.is_busy and not self._is_slow:
            request = self._queue.popleft()
            self.is_busy = True
            exchange = self._handler.handle(request, self)
            if self.is_busy:
                self._exchange = exchange
        if not self._is_open:
            return
        self._pause_reading(bool(self._queue) or (self._is_slow and not self.is_busy))
        if self._queue or self.is_busy:
            return
        if self._refused is not None:
            self._say_refused(self._refused)
        elif self._has_ended:
            self._close()
        elif self._wants_continue and self._in_body:
            self._say_continue()

    def _pause_reading(self, paused: bool) -> None:
        if paused is not self._is_paused and self.transport is not None:
            self._is_paused = paused
            if paused:
                self.transport.pause_reading()
            else:
                self.transport.resume_reading()

    def answered(self, keep_alive: bool) -> None:
        """The current answer is whole; go on with the next request, or close."""
        self.is_busy = False
        self._exchange = None
        if not self._is_open:
            return
        if not keep_alive:
            self._close()
            return
        if not self._in_body:
            self.deadline_s = self._loop.time() + self._patience_s
        if self._queue:
            self._loop.call_soon(self._next)
        else:
            self._next()

    @property
    def _patience_s(self) -> float:
        if self._has_begun:
            return self._limits.head_timeout_s
        return self._limits.linger_s if self.is_draining else self._limits.idle_timeout_s

    def write(self, data: list[bytes]) -> None:
        transport = self.transport
        if transport is None or not self._is_open:
            return
        if sum(map(len, data)) <= JOIN_BYTES:
            transport.write(b"".join(data))
        else:
            transport.writelines(data)

    def will_close(self, request: Request) -> bool:
        """Is the connection closed after the answer to this request? Then its head must say so."""
        return self.is_draining or not request.keep_alive or (self._has_ended and not self._queue)

    def answer(self, request: Request, status: int, body: bytes, headers: bytes = b"") -> None:
        """Write a whole answer; `headers` are whole lines."""
        close = self.will_close(request)
        self.write([whole_answer(status, body, headers + (CLOSE if close else b""), request.method == b"HEAD")])
        self.answered(not close)

    def abort(self) -> None:
        """Break the connection: the answer that began cannot be finished."""
        if self.transport is not None:
            self.transport.abort()

    def drain(self) -> None:
        """Answer what comes within the linger time, and say that it is the last; then close."""
        self.is_draining = True
        if not self.is_busy and not self._has_begun and not self._is_closing:
            self.deadline_s = min(self.deadline_s, self._loop.time() + self._limits.linger_s)

    def expire(self) -> None:
        """The client's time is up: for its request, for its next one, or for reading what it was answered."""
        if self._is_closing or self._refused is not None:
            self.abort()
        elif self._has_begun:
            self._refused = RefusedError(408, "the request took too long to arrive")
            self._next()
        else:
            self._close()

    def _say_refused(self, refused: RefusedError) -> None:
        self.write([error_answer(refused.status, refused.text, close=True)])
        self._close()

    def _close(self) -> None:
        """Close our side and let the client close its own: unread bytes would reset what it has not read yet."""
        if self.transport is None or not self._is_open:
            return
        self._is_closing = True
        self._queue.clear()
        if self._has_ended:
            self.transport.close()
        else:
            self._pause_reading(False)
            self.transport.write_eof()
        is_unread = self.transport.get_write_buffer_size() > 0
        self.deadline_s = self._loop.time() + (self._limits.write_timeout_s if is_unread else CLOSING_S)


def _head_without_upgrade(request: Request) -> bytes:
    lines = [b"%s: %s\r\n" % (name, value) for name, value in request.headers if name != b"upgrade"]
    return b"%s %s HTTP/1.1\r\n%s\r\n" % (request.method, request.target, b"".join(lines))


_FRAMING = frozenset((b"host", b"content-length", b"transfer-encoding", b"expect", b"upgrade"))
