"""The life of one request: sent to its release, tried again or answered by stable when that fails, counted once.

Knows releases, deadlines and who is charged. Framing is the business of `http1` and `upstream`.
"""

import re
from collections.abc import Callable
from time import monotonic  # The loop's own clock is cached and counts milliseconds.

from gateway.answers import CLOSE, error_body, status_line
from gateway.balance import RetryBudget
from gateway.config import GatewayConfig
from gateway.counters import FALLBACKS, RETRIES, STARTED, Slot
from gateway.http1 import ClientConnection, Request
from gateway.live import Lane, LiveRoute
from gateway.paths import Asked, Kind
from gateway.samples import Answer
from gateway.upstream import Connection, Headers, Server
from gateway.windows import Outcome, Role

HELD_BYTES = 64 * 1024
HOP_BY_HOP = frozenset(
    b"connection keep-alive proxy-authenticate proxy-authorization proxy-connection te trailer transfer-encoding "
    b"upgrade".split()
)
_REWRITTEN = HOP_BY_HOP | {b"host", b"content-length", b"expect", b"x-request-id"}
_PLAIN_CONNECTION = (b"keep-alive", b"close")
_NO_VERSION = b"has no available versions"
_CLIENT_TEXT = re.compile(rb'\s*\{\s*"error"\s*:\s*"(failed to parse|Unable to parse)')
"""How Triton starts the texts of 500 answers that are the client's fault (a body that is not valid)."""
_TELLING = (b"Traceback", b'File \\"')
"""What shows that an error's text tells of the server's inside."""

AnsweredCallback = Callable[["Exchange", Answer | None], None]
"""Called after a good answer left; with the answer, if it was small enough to be recorded."""


class Plane:
    """What all exchanges of a worker share."""

    __slots__ = ("budget", "in_flight", "on_answered", "sample_body_bytes", "write_timeout_s")

    def __init__(self, config: GatewayConfig, on_answered: AnsweredCallback) -> None:
        self.budget = RetryBudget(config.retry_share)
        self.on_answered = on_answered
        self.sample_body_bytes = config.sample_body_bytes
        self.write_timeout_s = config.write_timeout_s
        self.in_flight: set[Exchange] = set()

    def expire(self) -> None:
        """Fail what has waited too long; called a few times a second."""
        now = monotonic()
        for exchange in [waiting for waiting in self.in_flight if waiting.attempt_ends_s <= now]:
            exchange.expired()


class Exchange:
    """One request on its way. It is the listener of each attempt's connection."""

    __slots__ = (
        "_answer_body", "_answer_headers", "_answer_status", "_client", "_copy", "_ends_s", "_has_begun", "_is_chunked",
        "_is_cut", "_is_held", "_lane", "_plane", "_resent", "_retried", "_server", "_slot", "_slow_since_s",
        "_started_s", "_tries", "_will_close", "asked", "assigned", "attempt", "attempt_ends_s", "connection",
        "fell_back", "key", "live", "request", "request_id", "role",
    )  # fmt: skip

    def __init__(
        self, plane: Plane, client: ClientConnection, request: Request, asked: Asked, live: LiveRoute, lane: Lane,
        key: bytes, request_id: bytes,
    ) -> None:  # fmt: skip
        self._plane = plane
        self._client: ClientConnection | None = client
        self.request = request
        self.request_id = request_id
        self.key = key
        self.asked = asked
        self.live = live
        self.assigned = self._lane = lane
        self.role = Role.ANSWERED if asked.version is None else Role.PINNED
        self._slot: Slot | None = lane.slots.get(self.role) if asked.kind is not Kind.READ else None
        self._started_s = monotonic()
        self._ends_s = self._started_s + live.route.deadline_s
        self.attempt_ends_s = self._ends_s
        self.connection: Connection | None = None
        self._server: Server | None = None
        self.attempt = self._tries = 0
        self.fell_back = self._retried = self._resent = self._has_begun = self._will_close = False
        self._slow_since_s: float | None = None
        self._reset_answer()

    def _reset_answer(self) -> None:
        self._answer_status = 0
        self._answer_headers: Headers = []
        self._answer_body: list[bytes] = []
        self._copy: list[bytes] | None = None
        self._is_held = self._is_cut = self._is_chunked = False

    # Attempts

    def start(self) -> None:
        self._plane.in_flight.add(self)
        self._plane.budget.earn()
        if self._slot is not None:
            self._slot.add(STARTED)
        if self._may_fall_back:
            self.attempt_ends_s = self._started_s + self.live.route.deadline_s / 2
        self._attempt(self._lane.pool.pick(self._started_s))

    @property
    def _may_fall_back(self) -> bool:
        return not self.fell_back and self.role is Role.ANSWERED and self._lane.release != self.live.route.stable

    def _attempt(self, server: Server | None, fresh: bool = False) -> None:
        self._reset_answer()
        self._server = server
        if server is None:
            self.failed(Outcome.UNAVAILABLE, False)
            return
        self._tries += 1
        self.attempt = self._tries
        server.send(self, request_bytes(self.request, self.asked, self._lane.release, server, self.request_id), fresh)

    def expired(self) -> None:
        """This attempt's time is up: the server's to answer, or the client's to read."""
        self._give_up_attempt()
        if self._slow_since_s is None or self._client is None:
            self.failed(Outcome.TIMEOUT, False)
            return
        client = self._client
        self.client_gone()
        client.abort()

    def _give_up_attempt(self) -> None:
        self.attempt = 0
        connection, self.connection = self.connection, None
        if connection is not None:
            connection.abandon()

    def failed(self, outcome: Outcome, was_stale: bool) -> None:
        """The attempt failed: send again, fall back, try elsewhere, or tell the client."""
        self.attempt = 0
        self.connection = None
        server, now = self._server, monotonic()
        if was_stale and server is not None and not self._resent and self._client is not None:
            self._resent = True  # A kept connection that the server had closed: nobody's failure.
            self._attempt(server, fresh=True)
            return
        if server is not None:
            server.health.failed(now)
        if self._has_begun:
            self._count(outcome)
            self._leave()
            if self._client is not None:
                self._client.abort()
            return
        if not self._try_elsewhere(outcome, now):
            self._give_up(outcome)

    def _try_elsewhere(self, outcome: Outcome, now: float) -> bool:
        if self._client is None or now >= self._ends_s:
            return False
        if self._may_fall_back:
            self.fell_back = True
            self._count(outcome)
            if self.assigned.slots.get(self.role) is not None:
                self.assigned.slots[self.role].add(FALLBACKS)
            self._lane = self.live.lanes[self.live.route.stable]
            self.attempt_ends_s = self._ends_s
            self._resent = False
            self._attempt(self._lane.pool.pick(now))
            return True
        other = None if self._retried else self._lane.pool.pick(now, without=self._server)
        if other is None or not self._plane.budget.spend():
            return False
        self._retried = True
        if self._slot is not None:
            self._slot.add(RETRIES)
        self._attempt(other)
        return True

    def _give_up(self, outcome: Outcome) -> None:
        self._count(outcome)
        self._leave()
        if self._client is None:
            return
        status = 504 if outcome is Outcome.TIMEOUT else 503 if outcome is Outcome.UNAVAILABLE else 502
        text = {
            Outcome.TIMEOUT: f"no answer within {self.live.route.deadline_s:g} s",
            Outcome.UNAVAILABLE: "no server of this release can be reached",
        }.get(outcome, "the server broke the connection before it answered")
        retry = b"retry-after: 1\r\n" if status == 503 else b""
        self._client.answer(self.request, status, error_body(text), self._own_headers() + retry)

    # The answer (upstream.Listener)

    def head_arrived(self, status: int, headers: Headers) -> None:
        self._answer_status = status
        self._answer_headers = headers
        self._is_held = status >= 400
        if not self._is_held and status == 200 and self.asked.kind is Kind.INFER:
            self._copy = []

    def body_arrived(self, chunks: list[bytes]) -> None:
        if self._is_held:
            self._hold(chunks)
            return
        self._answer_body += chunks
        if self._copy is not None:
            self._copy += chunks
            if sum(map(len, self._copy)) > self._plane.sample_body_bytes:
                self._copy = None
        if self._has_begun or self.asked.kind is Kind.GENERATE or sum(map(len, self._answer_body)) > HELD_BYTES:
            self._write_part(False)

    def _hold(self, chunks: list[bytes]) -> None:
        """Keep an error until it is whole, for it may be answered by another server; no error needs more than this."""
        if not self._is_cut:
            self._answer_body += chunks
            self._is_cut = sum(map(len, self._answer_body)) > HELD_BYTES

    def ended(self) -> None:
        """The answer is whole."""
        self.attempt = 0
        self.connection = None
        status = self._answer_status
        if status >= 500 and not self._is_clients_fault():
            self._server_error(Outcome.SERVER_ERROR)
        elif status == 404 and _NO_VERSION in b"".join(self._answer_body):
            self._server_error(Outcome.UNAVAILABLE)
        else:
            self._finish()

    def _server_error(self, outcome: Outcome) -> None:
        assert self._server is not None
        self._server.health.failed(monotonic())
        if self._try_elsewhere(outcome, monotonic()):
            return
        self._count(outcome)
        self._leave()
        if self._client is not None:
            self._write_whole()

    def _is_clients_fault(self) -> bool:
        return self._answer_status == 500 and _CLIENT_TEXT.match(b"".join(self._answer_body)) is not None

    def _finish(self) -> None:
        if self._server is not None:
            self._server.health.succeeded()
        latency_us = (monotonic() - self._started_s) * 1e6
        if self._answer_status >= 400:
            self._count(Outcome.CLIENT_ERROR)
        elif self._slot is not None and not self.fell_back:
            self._slot.ended_ok(latency_us)
            self._slot = None
        self._leave()
        if self._client is None:
            return
        self._write_whole()
        if self._answer_status == 200 and self.asked.kind is Kind.INFER:
            copy = self._copy
            answer = None if copy is None else recorded_answer(self._lane.release, self._answer_headers, copy)
            self._plane.on_answered(self, answer)

    def _write_whole(self) -> None:
        """Write what is left of the answer, and let go of the client."""
        client = self._client
        assert client is not None
        if self._is_held:
            self._hide_inside()
        self._write_part(True)
        self._client = None
        client.answered(not self._will_close)

    def _hide_inside(self) -> None:
        """Replace an error's text that is cut, cannot be read here, or tells of the server's inside."""
        headers, body = dict(self._answer_headers), b"".join(self._answer_body)
        is_readable = not self._is_cut and headers.get(b"content-encoding", b"identity") == b"identity"
        if is_readable and not any(word in body for word in _TELLING):
            return
        name, request_id = self._lane.release_name.decode(), self.request_id.decode()
        self._answer_body = [error_body(f"release {name} failed to answer this request (request id {request_id})")]
        self._answer_headers = [(b"content-type", b"application/json")]

    def _count(self, outcome: Outcome) -> None:
        """Charge or excuse the release that was assigned first, once."""
        slot, self._slot = self._slot, None
        if slot is not None:
            slot.add(outcome)

    def _leave(self) -> None:
        self._plane.in_flight.discard(self)

    # The client's side (http1.Exchanging)

    def client_gone(self) -> None:
        """The client went away. The answer is still awaited, so that its connection can serve again."""
        self._client = None
        self._count(Outcome.CLIENT_GONE)
        if self.connection is not None:
            self.connection.resume_reading()
        if not self.attempt:
            self._leave()

    def client_is_slow(self) -> None:
        """The client does not read: neither does the gateway, and the release's time stands still."""
        if self._slow_since_s is None:
            self._slow_since_s = monotonic()
            self.attempt_ends_s = self._slow_since_s + self._plane.write_timeout_s
        if self.connection is not None:
            self.connection.pause_reading()

    def client_is_ready(self) -> None:
        if self._slow_since_s is not None:
            waited_s, self._slow_since_s = monotonic() - self._slow_since_s, None
            self._started_s += waited_s
            self._ends_s += waited_s
            self.attempt_ends_s = self._ends_s
        if self.connection is not None:
            self.connection.resume_reading()

    def _write_part(self, is_last: bool) -> None:
        """Write what has arrived; the head goes out with the first part."""
        body, self._answer_body = self._answer_body, []
        if self._client is None:
            return
        data: list[bytes] = []
        if not self._has_begun:
            self._has_begun = True
            data.append(self._answer_head(whole_size=sum(map(len, body)) if is_last else None))
        if self.request.method == b"HEAD":
            pass
        elif self._is_chunked:
            if body:
                data += [b"%x\r\n" % sum(map(len, body)), *body, b"\r\n"]
            if is_last:
                data.append(b"0\r\n\r\n")
        else:
            data += body
        self._client.write(data)

    def _answer_head(self, whole_size: int | None) -> bytes:
        assert self._client is not None
        lines = [status_line(self._answer_status)]
        length: bytes | None = None
        for name, value in self._answer_headers:
            if name == b"content-length":
                length = value
            elif name not in HOP_BY_HOP and name[:9] != b"x-sluice-" and name != b"x-request-id":
                lines += (name, b": ", value, b"\r\n")
        if whole_size is not None:
            length = b"%d" % whole_size
        self._will_close = self._client.will_close(self.request)
        if length is not None:
            lines += (b"content-length: ", length, b"\r\n")
        elif self.request.takes_chunks:
            self._is_chunked = True
            lines.append(b"transfer-encoding: chunked\r\n")
        lines += (self._own_headers(), CLOSE if self._will_close else b"", b"\r\n")
        return b"".join(lines)

    def _own_headers(self) -> bytes:
        fallback = b"x-sluice-fallback: %s\r\n" % self.assigned.release_name if self.fell_back else b""
        return b"x-sluice-release: %s\r\nx-request-id: %s\r\n%s" % (self._lane.release_name, self.request_id, fallback)


def recorded_answer(release: int, headers: Headers, body: list[bytes]) -> Answer:
    known = dict(headers)
    length = known.get(b"inference-header-content-length", b"")
    encoding = known.get(b"content-encoding", b"").decode("latin-1")
    return Answer(release, b"".join(body), int(length) if length.isdigit() else None, encoding)


def request_bytes(request: Request, asked: Asked, release: int, server: Server, request_id: bytes) -> list[bytes]:
    """The request as it goes to a server: its head written anew, its body as it came (which only POST has)."""
    is_post = request.method == b"POST"
    dropped = _REWRITTEN
    path = f"/v2/models/{asked.model}/versions/{release}".encode() + asked.action
    lines = [b"POST " if is_post else b"GET ", path, b" HTTP/1.1\r\nhost: ", server.address.encode(), b"\r\n"]
    accepts = False
    for name, value in request.headers:
        if name == b"connection" and value.lower() not in _PLAIN_CONNECTION:
            dropped = dropped.union(named.strip(b" \t").lower() for named in value.split(b","))
    for name, value in request.headers:
        if name not in dropped and name[:9] != b"x-sluice-":
            lines += (name, b": ", value, b"\r\n")
            accepts = accepts or name == b"accept-encoding"
    if not accepts:
        lines.append(b"accept-encoding: identity\r\n")
    lines += (b"x-request-id: ", request_id, b"\r\n")
    if not is_post:
        return [b"".join((*lines, b"\r\n"))]
    lines += (b"content-length: ", b"%d" % request.size, b"\r\n\r\n")
    if request.size < HELD_BYTES:
        return [b"".join(lines + request.body)]
    return [b"".join(lines), *request.body]
