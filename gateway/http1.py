"""The client's side of the wire: HTTP/1.1 requests in, answers out, in order.

Holds every limit before anything is kept, and answers what is ambiguous with one refusal and a closed connection. Knows
framing and back-pressure; does not know models, releases or servers: a whole request goes to `Handler.handle`, one at a
time, and what a client sends meanwhile is left unread.
"""

import asyncio
from typing import cast

from gateway.answers import CLOSE, RefusedError, error_answer, whole_answer
from gateway.chunks import ChunkReader
from gateway.front import Exchanging, Front
from gateway.heads import CHUNKED, END, Request
from gateway.resetting import reset

JOIN_BYTES = 64 * 1024
"""Writes up to this size are joined into one; larger ones are handed on as the chunks they came in."""
CLOSING_S = 2.0
"""How long a client may take to close its side after we closed ours."""
RATE_AFTER_S = 5.0
"""How long a body may take before its rate is looked at."""
BLANK_BYTES = 16
"""Empty lines that are skipped (RFC 9112, 2.2), in bytes for each request that was answered, and the next one."""
UNSENT_BYTES = 32 * 1024
"""A client that leaves so much unread is not told to go on: what fills the buffer must be an exchange's to hear of."""
_SCRAPS, _SCRAP_BYTES = 64, 1024
"""So many small pieces of a body are joined into one: each takes some 50 bytes of memory besides its own."""
_PIECES = 8
"""More chunks than this in one read are joined too; a large one would keep all that was received with it."""
_CONTINUE = b"HTTP/1.1 100 Continue\r\n\r\n"

_HEAD, _SIZED, _CHUNKS, _BUSY, _OVER = range(5)
"""What comes next: a head, a body, chunks; nothing while a request is answered; nothing ever."""


class ClientConnection(asyncio.Protocol):
    """One client's connection: parses requests, hands on one at a time, writes answers."""

    __slots__ = (
        "_address", "_answered", "_began_s", "_blank", "_chunks", "_exchange", "_front", "_has_ended", "_held",
        "_is_closing", "_is_paused", "_is_slow", "_loop", "_request", "_scanned", "_state", "_unread", "deadline_s",
        "transport",
    )  # fmt: skip

    def __init__(self, front: Front) -> None:
        self._front = front
        self._loop = asyncio.get_running_loop()
        self._state = _HEAD
        self._held = b""
        """What was received and not read yet; its first `_scanned` bytes hold no end of a head."""
        self._scanned = self._answered = self._unread = self._blank = 0
        self._request: Request | None = None
        """The one whose body is arriving, or that is being answered."""
        self._chunks: ChunkReader | None = None
        self._exchange: Exchanging | None = None
        self.transport: asyncio.Transport | None = None
        self._is_closing = self._is_paused = self._is_slow = self._has_ended = False
        self._began_s = 0.0
        self.deadline_s = self._loop.time() + front.limits.idle_timeout_s

    @property
    def is_busy(self) -> bool:
        """Is a request being answered?"""
        return self._state == _BUSY

    @property
    def _is_open(self) -> bool:
        return self.transport is not None and not self._is_closing and not self.transport.is_closing()

    # asyncio.Protocol

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.Transport, transport)  # uvloop's are not subclasses.
        peer = transport.get_extra_info("peername")
        self._address = peer[0] if peer else ""
        if not self._front.enter(self, self._address):
            self._refuse(RefusedError(503, "too many connections; try again in a second"))
        elif self._front.is_draining:
            self.drain()

    def data_received(self, data: bytes) -> None:
        state = self._state
        try:
            if state == _HEAD:
                self._read_head(self._held + data if self._held else data)
            elif state == _SIZED:
                self._read_sized(data)
            elif state == _CHUNKS:
                self._read_chunks(data)
            elif state == _BUSY:
                self._held += data
                self._pause_reading(True)
        except RefusedError as exc:
            self._refuse(exc)

    def eof_received(self) -> bool:
        self._has_ended = True
        if self._state == _BUSY or (self._state == _HEAD and self._held and END in self._held):
            return True  # A half-closed client still gets its answers.
        if self._is_closing:
            self._drop()
        return False

    def connection_lost(self, exc: Exception | None) -> None:
        self._front.leave(self, self._address)
        self._is_closing = True
        self._note_unread(0)
        request, self._request = self._request, None
        exchange, self._exchange = self._exchange, None
        if exchange is not None:
            exchange.client_gone()
        elif request is not None:
            self._front.memory.release(request)
        self._state, self._held = _OVER, b""

    def pause_writing(self) -> None:
        self._is_slow = True
        self.deadline_s = self._loop.time() + self._front.limits.write_timeout_s
        assert self.transport is not None
        self._note_unread(self.transport.get_write_buffer_size())
        if self._exchange is not None:
            self._exchange.client_is_slow()
        if self._front.memory.is_full:
            self.abort()

    def resume_writing(self) -> None:
        self._is_slow = False
        self._note_unread(0)
        if self._exchange is not None:
            self._exchange.client_is_ready()
        if self._state == _HEAD:
            self._await_next()
            self._go_on()

    def _note_unread(self, size: int) -> None:
        self._front.memory.held_bytes += size - self._unread
        self._unread = size

    # Reading

    def _read_head(self, data: bytes) -> None:
        end = data.find(END, self._scanned)
        if end < 0 or data[0] == 13:
            data = self._await_head(data)
            end = data.find(END, self._scanned) if data else -1
            if end < 0:
                return
        request = Request(self._front.reader[data[:end]])
        self._held, self._scanned = b"", 0
        at = end + 4
        length = request.head.length
        more = len(data) - at - length
        if not more:  # The usual request: all of it came at once.
            if length:
                request.body.append(data[at:] if length < JOIN_BYTES else memoryview(data)[at:])
            self._hand_on(request, length, b"")
        elif length == CHUNKED:
            self._begin_body(request, _CHUNKS)
            self._chunks = ChunkReader(self._front.chunks)
            self._read_chunks(data[at:])
        elif more < 0:
            self._begin_body(request, _SIZED)
            if len(data) > at:
                self._read_sized(memoryview(data)[at:] if len(data) - at > JOIN_BYTES else data[at:])
        else:
            if length:
                request.body.append(data[at : at + length])
            self._hand_on(request, length, data[at + length :])

    def _await_head(self, data: bytes) -> bytes:
        """Skip empty lines, keep what has come of a head. What to read now: nothing when it is too early."""
        blank = (len(data) - len(data.lstrip(b"\r\n"))) & ~1
        if blank:
            self._blank += blank
            if self._blank > BLANK_BYTES * (self._answered + 1) or data[:blank] != b"\r\n" * (blank // 2):
                raise RefusedError(400, "too many empty lines before a request")
            data = data[blank:]
        if data.find(END, self._scanned) >= 0:
            return data
        return self._keep_part(data)

    def _keep_part(self, data: bytes) -> bytes:
        if not self._held and data:
            self.deadline_s = self._loop.time() + self._front.limits.head_timeout_s
        self._front.reader.check_part(data, self._scanned)
        self._held, self._scanned = data, max(0, len(data) - 3)
        self._read_on(is_drip=True)
        return b""

    def _read_on(self, is_drip: bool = False) -> None:
        """More must come for the request to be whole. `is_drip`: little came of it now."""
        if self._has_ended:
            self._drop()
            self._close()
        else:
            self._pause_reading(is_drip and not self._front.may_read_on(self))

    def tick(self) -> None:
        """What dripped may be read on (Front.may_read_on)."""
        if self._state in (_SIZED, _CHUNKS) or (self._state == _HEAD and self._held and not self._is_slow):
            self._pause_reading(False)

    def _begin_body(self, request: Request, state: int) -> None:
        self._state, self._request = state, request
        self._began_s = self._loop.time()
        self.deadline_s = self._began_s + self._front.limits.body_read_timeout_s
        head = request.head
        if head.length > 0 or head.length == CHUNKED:
            if not self._front.memory.has_room(max(head.length, 0)):
                raise RefusedError(503, "too many bodies are held at the moment; try again in a second")
            assert self.transport is not None
            if head.expects and self.transport.get_write_buffer_size() < UNSENT_BYTES:
                self.write(_CONTINUE)
        self._read_on()

    def _read_sized(self, data: bytes | memoryview) -> None:
        request = self._request
        assert request is not None
        missing = request.head.length - request.size
        behind = b""
        if len(data) > missing:
            data, behind = data[:missing], bytes(data[missing:])
        request.body.append(data)
        self._came(request, len(data))
        if request.size == request.head.length:
            self._hand_on(request, 0, behind)
        elif len(data) < _SCRAP_BYTES:
            self._read_on(is_drip=True)

    def _read_chunks(self, data: bytes) -> None:
        request, chunks = self._request, self._chunks
        assert request is not None and chunks is not None
        known = len(request.body)
        behind = chunks.feed(data, request.body)
        if len(request.body) - known > _PIECES:
            request.body[known:] = [b"".join(request.body[known:])]
        self._came(request, sum(map(len, request.body[known:])))
        if behind is not None:
            self._chunks = None
            self._hand_on(request, 0, behind)
        elif len(data) < _SCRAP_BYTES:
            self._read_on(is_drip=True)

    def _came(self, request: Request, size: int) -> None:
        """Account for bytes of a body that takes more than one read."""
        request.size += size
        body = request.body
        if size < _SCRAP_BYTES and len(body) >= _SCRAPS and len(body[-_SCRAPS]) < _SCRAP_BYTES:
            body[-_SCRAPS:] = [b"".join(body[-_SCRAPS:])]
        memory, limits, now = self._front.memory, self._front.limits, self._loop.time()
        if not memory.hold(request, size):
            raise RefusedError(503, "too many bodies are held at the moment; try again in a second")
        self.deadline_s = min(
            now + limits.body_read_timeout_s,
            self._began_s + limits.body_timeout_s,
            self._began_s + RATE_AFTER_S + request.size / limits.body_bytes_per_s,
        )

    def _hand_on(self, request: Request, size: int, behind: bytes) -> None:
        """The request is whole; `size` bytes of it are not accounted for yet, `behind` is what came after it."""
        self._held = behind
        self._state, self._request = _BUSY, request
        if size:
            request.size = size
            if not self._front.memory.hold(request, size):
                raise RefusedError(503, "too many bodies are held at the moment; try again in a second")
        if behind:
            self._pause_reading(True)
        exchange = self._front.handler.handle(request, self)
        if self._request is request:
            self._exchange = exchange

    def _go_on(self) -> None:
        """Read what was held back, when the last answer is out and the client reads; else wait for more."""
        if self._state != _HEAD or self._is_slow or not self._is_open:
            return
        held, self._held = self._held, b""
        if not held:
            self._read_on()
            return
        try:
            self._read_head(held)
        except RefusedError as exc:
            self._refuse(exc)
        if not self._held:
            self._pause_reading(False)

    def _pause_reading(self, paused: bool) -> None:
        if paused is not self._is_paused and self.transport is not None and not self.transport.is_closing():
            self._is_paused = paused
            if paused:
                self.transport.pause_reading()
            else:
                self.transport.resume_reading()

    # Answering

    def answered(self, keep_alive: bool) -> None:
        """The current answer is whole; go on with the next request, or close."""
        request, self._request = self._request, None
        self._exchange = None
        if request is not None and request.held_bytes:
            self._front.memory.release(request)
        transport = self.transport
        if self._state != _BUSY or transport is None or self._is_closing or transport.is_closing():
            return
        self._answered += 1
        if not keep_alive:
            self._close()
            return
        self._state = _HEAD
        if self._is_slow:  # Its time to read is running; then its next request comes.
            self._pause_reading(True)
            return
        self._await_next()
        if self._held or self._has_ended:
            self._loop.call_soon(self._go_on)

    def _await_next(self) -> None:
        """The time of the next request begins."""
        limits = self._front.limits
        idle_s = limits.linger_s if self._front.is_draining else limits.idle_timeout_s
        self.deadline_s = self._loop.time() + (limits.head_timeout_s if self._held else idle_s)

    def write(self, data: bytes) -> None:
        transport = self.transport
        if transport is not None and not self._is_closing and not transport.is_closing():
            transport.write(data)

    def write_parts(self, parts: list[bytes | memoryview]) -> None:
        transport = self.transport
        if transport is not None and not self._is_closing and not transport.is_closing():
            transport.writelines(parts)

    def will_close(self, request: Request) -> bool:
        """Is the connection closed after the answer to this request? Then its head must say so."""
        if not request.head.keep_alive or (self._has_ended and not self._held):
            return True
        front = self._front
        return front.is_draining or front.is_tight or self._answered + 1 >= front.requests_most

    def answer(self, request: Request, status: int, body: bytes, headers: bytes = b"") -> None:
        """Write a whole answer; `headers` are whole lines."""
        close = self.will_close(request)
        if status >= 400:
            self._front.refused[status] += 1
        self.write(whole_answer(status, body, headers + (CLOSE if close else b""), request.head.method == b"HEAD"))
        self.answered(not close)

    def abort(self) -> None:
        """Break the connection: the answer that began cannot be finished.

        What the kernel still has of it goes too: it would be kept for a client that does not read, and to one that
        does, an answer that ends with the connection would look whole.
        """
        if self.transport is not None:
            reset(self.transport)

    def drain(self) -> None:
        """Answer what comes within the linger time, and say that it is the last; then close."""
        if self._state == _HEAD and not self._held and not self._is_closing and not self._is_slow:
            self.deadline_s = min(self.deadline_s, self._loop.time() + self._front.limits.linger_s)

    def expire(self) -> None:
        """The client's time is up: for its request, for its next one, or for reading what it was answered."""
        if self._is_slow or not self._is_open:
            self.abort()
        elif self._held or self._state in (_SIZED, _CHUNKS):
            self._refuse(RefusedError(408, "the request took too long to arrive"))
        else:
            self._close()

    def _refuse(self, refused: RefusedError) -> None:
        self._drop()
        self._front.refused[refused.status] += 1
        headers = b"retry-after: 1\r\n" if refused.status == 503 else b""
        self.write(error_answer(refused.status, refused.text, headers, close=True))
        self._close()

    def _drop(self) -> None:
        """Forget the request that is arriving."""
        request, self._request = self._request, None
        if request is not None:
            self._front.memory.release(request)
        self._state, self._held, self._chunks = _OVER, b"", None

    def _close(self) -> None:
        """Close our side and let the client close its own: unread bytes would reset what it has not read yet."""
        if self.transport is None or not self._is_open:
            return
        self._is_closing = True
        self._state, self._held = _OVER, b""
        if self._has_ended:
            self.transport.close()
        else:
            self._pause_reading(False)
            self.transport.write_eof()
        is_unread = self.transport.get_write_buffer_size() > 0
        self.deadline_s = self._loop.time() + (self._front.limits.write_timeout_s if is_unread else CLOSING_S)
