"""Budgeted copies: after an answer left, the same request goes to the shadow, if there is room.

A copy has connections and a budget of its own (requests in flight, bytes), waits for nobody and is dropped first. Its
answer never reaches the client; with stable's answer it makes a sample.
"""

from collections.abc import Callable
from time import monotonic

from gateway.config import GatewayConfig
from gateway.counters import DROPPED_BYTES, DROPPED_IN_FLIGHT, STARTED, Slot
from gateway.exchange import Exchange, recorded_answer, request_bytes
from gateway.live import Lane
from gateway.samples import Answer
from gateway.upstream import Connection, Headers, Server
from gateway.windows import Outcome, Role

MirroredCallback = Callable[[Exchange, Answer | None, Answer | None], None]
"""Takes both answers; None stands for one that is too large to be recorded. Not called for a copy that failed."""


class MirrorBudget:
    """What all copies of a worker may use together."""

    __slots__ = ("bytes_most", "copies", "held_bytes", "in_flight_most", "sample_body_bytes")

    def __init__(self, config: GatewayConfig) -> None:
        self.in_flight_most, self.bytes_most = config.mirror_in_flight, config.mirror_bytes
        self.sample_body_bytes = config.sample_body_bytes
        self.copies: set[Mirror] = set()
        self.held_bytes = 0

    def expire(self) -> None:
        now_s = monotonic()
        for copy in [copy for copy in self.copies if copy.ends_s <= now_s]:
            copy.expired()


class Mirror:
    """One copy on its way to the shadow."""

    __slots__ = (
        "_answered", "_body", "_budget", "_exchange", "_headers", "_lane", "_on_mirrored", "_server", "_size",
        "_slot", "_started_s", "_status", "attempt", "connection", "ends_s",
    )  # fmt: skip

    def __init__(
        self, budget: MirrorBudget, exchange: Exchange, lane: Lane, answered: Answer | None,
        on_mirrored: MirroredCallback,
    ) -> None:  # fmt: skip
        self._budget, self._exchange, self._lane = budget, exchange, lane
        self._answered, self._on_mirrored = answered, on_mirrored
        self._slot: Slot = lane.slots[Role.MIRRORED]
        self._started_s = monotonic()
        self.ends_s = self._started_s + exchange.live.route.deadline_s
        self._server: Server | None = None
        self._status = 0
        self._headers: Headers = []
        self._body: list[bytes] = []
        self._size = 0
        self.connection: Connection | None = None
        self.attempt = 0

    def start(self) -> bool:
        """Send the copy, or count why not."""
        budget, size = self._budget, self._exchange.request.size
        if len(budget.copies) >= budget.in_flight_most:
            self._slot.add(DROPPED_IN_FLIGHT)
            return False
        if budget.held_bytes + size > budget.bytes_most:
            self._slot.add(DROPPED_BYTES)
            return False
        budget.copies.add(self)
        budget.held_bytes += size
        self._slot.add(STARTED)
        server = self._lane.pool.pick(self._started_s)
        if server is None:
            self.failed(Outcome.UNAVAILABLE, False)
            return True
        self._server, self.attempt = server, 1
        exchange = self._exchange
        server.send(
            self, request_bytes(exchange.request, exchange.asked, self._lane.release, server, exchange.request_id)
        )
        return True

    def expired(self) -> None:
        connection, self.connection = self.connection, None
        self.attempt = 0
        if connection is not None:
            connection.abandon()
        self.failed(Outcome.TIMEOUT, False)

    def head_arrived(self, status: int, headers: Headers) -> None:
        self._status, self._headers = status, headers

    def body_arrived(self, chunks: list[bytes]) -> None:
        self._size += sum(map(len, chunks))
        if self._size <= self._budget.sample_body_bytes:
            self._body += chunks

    def ended(self) -> None:
        self.attempt = 0
        self._leave()
        if self._status >= 500:
            self._slot.add(Outcome.SERVER_ERROR)
        elif self._status >= 400:
            self._slot.add(Outcome.SERVER_ERROR)  # Stable has just answered the same bytes.
        else:
            self._slot.ended_ok((monotonic() - self._started_s) * 1e6)
            is_small = self._size <= self._budget.sample_body_bytes
            mirrored = recorded_answer(self._lane.release, self._headers, self._body) if is_small else None
            self._on_mirrored(self._exchange, self._answered, mirrored)

    def failed(self, outcome: Outcome, was_stale: bool) -> None:
        self.attempt = 0
        self._leave()
        self._slot.add(Outcome.CLIENT_GONE if was_stale else outcome)  # A closed kept connection is nobody's failure.
        if self._server is not None and not was_stale:
            self._server.health.failed(monotonic())

    def _leave(self) -> None:
        self._budget.copies.discard(self)
        self._budget.held_bytes -= self._exchange.request.size
