"""The life of one request: sent to its release, tried again or answered by stable when that fails, counted once.

Knows releases, deadlines and who is charged. Framing is the business of `http1` and `upstream`, what an answer's head
says of `wording`.
"""

from time import monotonic  # The loop's own clock is cached and counts milliseconds.

from gateway import wording
from gateway.answers import error_body
from gateway.counters import FALLBACKS, RETRIES, STARTED, Slot
from gateway.heads import AnswerHead, Request
from gateway.http1 import JOIN_BYTES, ClientConnection
from gateway.lanes import Lane
from gateway.paths import Kind
from gateway.plane import Plane
from gateway.tracing import Span
from gateway.upstream import Chunks, Connection, Server
from gateway.way import Way
from gateway.windows import Outcome
from gateway.wording import answer_lines, request_parts

HELD_BYTES = 64 * 1024
"""A good answer is held back up to this size, so that a server that breaks inside it can still be replaced."""
_NOT_LOADED = (b"has no available versions", b"Request for unknown model")
"""What a Triton that stops, or was restarted and holds nothing yet, says of a release that is routed to it."""


class Exchange:
    """One request on its way. It is the listener of each attempt's connection."""

    # What most requests never change stands here, so that it need not be set for each.
    connection: Connection | None = None
    attempt = 0
    fell_back = False
    span: Span | None = None
    """Set where requests are traced."""
    head: AnswerHead | None = None
    """The answer's, as far as there is one."""
    size = 0  # Bytes of the answer's body so far.
    _tries = 0
    _server: Server | None = None
    _seat: Lane | None = None
    """The lane in which it counts as on its way."""
    _queue: Lane | None = None
    """The lane in which it waits for room."""
    _slot: Slot | None = None
    """Where it is still to be counted."""
    _answer: Chunks = []  # noqa: RUF012 - what came and was not written yet; only one's own list is changed.
    _kept: Chunks | None = None
    """What was written of an answer already, while it is small enough to be recorded."""
    _has_begun = _is_chunked = _retried = _resent = _will_close = False
    _slow_since_s: float | None = None

    def __init__(
        self, plane: Plane, client: ClientConnection, request: Request, way: Way, lane: Lane, key: bytes,
        request_id: bytes,
    ) -> None:  # fmt: skip
        self._plane = plane
        self._client: ClientConnection | None = client
        self.request, self.request_id, self.key, self.way = request, request_id, key, way
        self.assigned = self.lane = lane
        asked = way.asked
        if asked.kind is not Kind.READ:
            self._slot = lane.answered_slot if asked.version is None else lane.pinned_slot
        self.started_s = now = monotonic()
        self._ends_s = self.attempt_ends_s = now + way.deadline_s

    @property
    def is_waiting(self) -> bool:
        return self._queue is not None

    @property
    def is_pinned(self) -> bool:
        return self.way.asked.version is not None

    # Attempts

    def start(self) -> None:
        now, lane, plane = self.started_s, self.lane, self._plane
        plane.in_flight.add(self)
        plane.budget.earned += 1
        if self._slot is not None:
            self._slot.add(STARTED)
        if lane is not self.way.live.stable and self._may_fall_back:
            self.attempt_ends_s = now + self.way.deadline_s / 2
            if not self._may_try(lane, now):
                self._fall_back(Outcome.UNAVAILABLE, now)
                return
        self._enter(lane, now)

    @property
    def _may_fall_back(self) -> bool:
        return not self.fell_back and not self.is_pinned and self.lane is not self.way.live.stable

    def _may_try(self, lane: Lane, now: float) -> bool:
        if lane.is_silent(now, self.way.live.stable):
            self._plane.openings += lane.breaker.fell_silent(now)
        return lane.breaker.lets_pass(now)

    def _enter(self, lane: Lane, now: float) -> None:
        """Take a place in the lane, or wait for one."""
        if lane.in_flight < lane.most:
            if not lane.in_flight:
                lane.answered_s = now  # Nobody waited: it was not silent until now.
            lane.in_flight += 1
            self._seat = lane
            self._attempt(lane.pool.pick(now))
        elif lane.queue(self):
            self._queue = lane
            self.attempt_ends_s = min(self.attempt_ends_s, now + lane.room.wait_s)
        else:
            self._no_room(now)

    def admitted(self) -> None:
        """There is room now (lanes.Waiting)."""
        self._seat, self._queue = self._queue, None
        now = monotonic()
        self.attempt_ends_s = now + (self._ends_s - now) / 2 if self._may_fall_back else self._ends_s
        self._attempt(self.lane.pool.pick(now))

    def _no_room(self, now: float) -> None:
        if self._may_fall_back:
            self._fall_back(Outcome.UNAVAILABLE, now)
        else:
            self._give_up(Outcome.SHED)

    def _attempt(self, server: Server | None, fresh: bool = False) -> None:
        self._server = server
        if server is None:
            self.failed(Outcome.UNAVAILABLE, False)
            return
        self._tries += 1
        self.attempt = self._tries
        server.send(self, request_parts(self.request, self.way.asked, self.lane, server, self.request_id), fresh)

    def expired(self) -> None:
        """This attempt's time is up: the server's to answer, the client's to read, or the queue's to move."""
        if self._queue is not None:
            self._leave_lane()
            self._no_room(monotonic())
            return
        self.attempt = 0
        connection, self.connection = self.connection, None
        if connection is not None:
            connection.abandon()
        if self._slow_since_s is None or self._client is None:
            self.failed(Outcome.TIMEOUT, False)
            return
        client = self._client
        self.client_gone()
        client.abort()

    def failed(self, outcome: Outcome, was_stale: bool) -> None:
        """The attempt failed: send again, fall back, try elsewhere, or tell the client."""
        self.attempt = 0
        self.connection = None
        server, now = self._server, monotonic()
        if was_stale and server is not None and not self._resent and self._client is not None:
            self._resent = True  # A kept connection that the server had closed: nobody's failure.
            self._attempt(server, fresh=True)
            return
        self._plane.blame(self.lane, self._server, now)
        if self._has_begun:
            self._count(outcome)
            client = self._client
            self._leave(0)
            if client is not None:
                client.abort()
        elif not self._try_elsewhere(outcome, now):
            self._give_up(outcome)

    def _try_elsewhere(self, outcome: Outcome, now: float) -> bool:
        if self._client is None or now >= self._ends_s:
            return False
        if self._may_fall_back:
            self._fall_back(outcome, now)
            return True
        other = None if self._retried else self.lane.pool.pick(now, without=self._server)
        if other is None or not self._plane.budget.spend():
            return False
        self._retried = True
        if self._slot is not None:
            self._slot.add(RETRIES)
        self._forget_answer()
        self._attempt(other)
        return True

    def _fall_back(self, outcome: Outcome, now: float) -> None:
        """The candidate is charged, and stable answers."""
        self.fell_back = True
        slot = self._slot
        self._count(outcome)
        if slot is not None:
            slot.add(FALLBACKS)
        self._leave_lane()
        self.lane = self.way.live.stable
        self.attempt_ends_s = self._ends_s
        self._resent = False
        self._forget_answer()
        self._enter(self.lane, now)

    def _forget_answer(self) -> None:
        self.head, self._answer, self.size = None, [], 0

    def _give_up(self, outcome: Outcome) -> None:
        self._count(outcome)
        client, (status, text) = self._client, wording.no_answer(outcome, self.way.deadline_s)
        self._leave(status)
        if client is not None:
            retry = b"retry-after: 1\r\n" if status == 503 else b""
            client.answer(
                self.request, status, error_body(text), b"%s%s\r\n%s" % (self.own_lines, self.request_id, retry)
            )

    # The answer (upstream.Listener)

    def arrived(self, head: AnswerHead | None, chunks: Chunks, size: int, is_last: bool) -> None:
        if head is None:
            head = self.head
            assert head is not None
        else:
            self.head = head
        self.size = size = self.size + size
        is_good = head.status < 400
        if is_good or size <= HELD_BYTES:  # An error is held until it is whole, and none needs more than this.
            if self._answer:
                self._answer += chunks
            else:
                self._answer = chunks
        if is_last:
            self.attempt = 0
            self.connection = None
            if is_good:
                self._succeeded(head)
            else:
                self._ended_badly(head)
        elif is_good and (self._has_begun or size > HELD_BYTES or self.way.asked.kind is Kind.GENERATE):
            self._write_part(head)

    def _succeeded(self, head: AnswerHead) -> None:
        now = monotonic()
        server, slot = self._server, self._slot
        if server is not None and server.health.failures:
            server.health.succeeded(now)
        if not self.fell_back:
            latency_s = now - self.started_s
            self.lane.answered(now, latency_s)
            if slot is not None:
                slot.ended_ok(latency_s * 1e6)
                self._slot = None
        plane, way = self._plane, self.way
        is_inference = way.asked.kind is Kind.INFER and head.status == 200 and self._client is not None
        is_told = is_inference and (plane.is_recording or way.live.mirror is not None)
        self._write_last(head)
        if is_told:
            plane.observer.answered(self)

    def recordable(self) -> Chunks | None:
        """The answer's body, if it is small enough to be recorded."""
        if self.size > self._plane.sample_body_bytes:
            return None
        return self._answer if self._kept is None else self._kept + self._answer

    def _ended_badly(self, head: AnswerHead) -> None:
        status, text, now = head.status, b"".join(self._answer), monotonic()
        if status == 500 and wording.is_clients_fault(text):
            head = head.as_status(400)  # Which it is: see facts on Triton, server#8762.
        elif status >= 500 or (status == 404 and any(words in text for words in _NOT_LOADED)):
            outcome = Outcome.SERVER_ERROR if status >= 500 else Outcome.UNAVAILABLE
            self._plane.blame(self.lane, self._server, now)
            if self._try_elsewhere(outcome, now):
                return
            self._count(outcome)
        else:
            self.lane.answered(now, self.lane.mean_s)
            if self._server is not None:
                self._server.health.succeeded(now)
        self._count(Outcome.CLIENT_ERROR)
        shown = wording.shown_error(head, text, self.size > HELD_BYTES, self.lane.release_name, self.request_id)
        if shown is not None:
            self._answer, self.size = [shown], len(shown)
            head = wording.shown_head(head, shown)
        self.head = head
        self._write_last(head)

    def _count(self, outcome: Outcome) -> None:
        """Charge or excuse the release that was assigned first, once."""
        slot, self._slot = self._slot, None
        if slot is not None:
            slot.add(outcome)

    def _leave(self, status: int) -> None:
        """Over: give back what it held. `status` is what the client saw, 0 for nothing."""
        plane = self._plane
        plane.in_flight.discard(self)
        seat = self._seat
        if seat is not None:
            self._seat = None
            seat.leave()
        elif self._queue is not None:
            self._leave_lane()
        self._client = None
        if self.request.held_bytes:
            plane.memory.release(self.request)
        if plane.is_watched:
            plane.observer.over(self, status, monotonic() - self.started_s)

    def _leave_lane(self) -> None:
        """Give back the place it had, or wait for none any more."""
        seat, self._seat, queue, self._queue = self._seat, None, self._queue, None
        if seat is not None:
            seat.leave()
        if queue is not None:
            queue.unqueue(self)

    # The client's side (http1.Exchanging)

    def client_gone(self) -> None:
        """The client went away. The answer is still awaited, so that its connection can serve again."""
        if self._client is None:
            return  # It is over, or known: the client's connection was broken from here.
        self._client = None
        self._count(Outcome.CLIENT_GONE)
        self.client_is_ready()  # Whom it did not read for is gone: the server has its own time again.
        if not self.attempt:
            self._leave(0)

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
            self.started_s += waited_s
            self._ends_s += waited_s
            self.attempt_ends_s = self._ends_s
        if self.connection is not None:
            self.connection.resume_reading()

    @property
    def own_lines(self) -> bytes:
        """The gateway's own fields of the answer's head, up to the request's id."""
        if self.fell_back:
            return b"x-sluice-fallback: %s\r\n%s" % (self.assigned.release_name, self.lane.own_lines)
        return self.lane.own_lines

    def _write_part(self, head: AnswerHead) -> None:
        """Write what has arrived; the head goes out with the first part."""
        body, self._answer = self._answer, []
        if self.size <= self._plane.sample_body_bytes:
            self._kept = (self._kept or []) + body
        client = self._client
        if client is None:
            return
        parts: Chunks = []
        if not self._has_begun:
            self._has_begun = True
            self.attempt_ends_s = self._ends_s  # Nobody else can answer any more: all the time is its own.
            parts.append(self._begin_answer(client, head, None))
        if self.way.asked.kind is Kind.GENERATE:
            self._ends_s = self.attempt_ends_s = monotonic() + self.way.deadline_s  # From part to part.
        if self.request.head.method != b"HEAD":
            parts += wording.one_chunk(body) if self._is_chunked else body
        client.write_parts(parts)

    def _begin_answer(self, client: ClientConnection, head: AnswerHead, whole_size: int | None) -> bytes:
        self._will_close = client.will_close(self.request)
        own_lines = self.own_lines if self.fell_back else self.lane.own_lines
        lines, self._is_chunked = answer_lines(
            head, own_lines, self.request_id, self._will_close, self.request.head.takes_chunks, whole_size
        )
        return lines

    def _write_last(self, head: AnswerHead) -> None:
        """Write what is left of the answer, and let go of the client."""
        client, body = self._client, self._answer
        if client is None:
            self._leave(0)
            return
        is_head = self.request.head.method == b"HEAD"
        if self._has_begun:
            if not is_head:
                client.write_parts(wording.last_chunk(body) if self._is_chunked else body)
        else:
            lines = self._begin_answer(client, head, self.size)
            if is_head:
                client.write(lines)
            elif self.size <= JOIN_BYTES:
                client.write(b"".join((lines, *body)))
            else:
                client.write_parts([lines, *body])
        self._leave(head.status)
        client.answered(not self._will_close)
