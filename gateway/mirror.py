"""Budgeted copies: after an answer left, the same request goes to the shadow, if there is room.

A copy has connections and a budget of its own (requests in flight, bytes), waits for nobody and is dropped first. Its
answer never reaches the client; with stable's answer it makes a sample.
"""

import asyncio
from collections import deque
from collections.abc import Callable
from time import monotonic

from gateway.config import GatewayConfig
from gateway.counters import DROPPED_BYTES, DROPPED_IN_FLIGHT, DROPPED_MEMORY, STARTED, Slot
from gateway.exchange import Exchange
from gateway.heads import AnswerHead
from gateway.lanes import Lane
from gateway.memory import ByteLedger
from gateway.upstream import Chunks, Connection, Server
from gateway.windows import Outcome, Role
from gateway.wording import request_parts

MirroredCallback = Callable[[Exchange, Chunks | None, AnswerHead, Chunks | None, int], None]
"""Takes the exchange with its answer, and the copy's head, answer and release. None stands for an answer that is too
large to be recorded. Not called for a copy that failed."""


GATHERED_S = 0.001
"""Copies wait so long for others: those that are sent together are answered together, and wake everybody less often."""
SENT_PER_TURN, PENDING_PER_TURN = 2, 4
"""So many copies are sent in a turn of the loop, and one more for each so many that wait."""


class MirrorBudget:
    """What all copies of a worker may use together, and those that wait for their turn to be sent.

    Clients come first: copies are gathered, then sent between the loop's turns, a few at a time.
    """

    __slots__ = ("_is_sending", "_pending", "bytes_most", "copies", "held_bytes", "in_flight_most", "memory",
                 "sample_body_bytes")  # fmt: skip

    def __init__(self, config: GatewayConfig, memory: ByteLedger) -> None:
        self.in_flight_most, self.bytes_most = config.mirror_in_flight, config.mirror_bytes
        self.sample_body_bytes = config.sample_body_bytes
        self.memory = memory
        self._pending: deque[Mirror] = deque()
        self._is_sending = False
        self.copies: set[Mirror] = set()
        self.held_bytes = 0

    def queue(self, copy: "Mirror") -> None:
        """Send a copy soon."""
        self._pending.append(copy)
        if not self._is_sending:
            self._is_sending = True
            asyncio.get_running_loop().call_later(GATHERED_S, self._send_some)

    def _send_some(self) -> None:
        pending = self._pending
        for _ in range(min(len(pending), SENT_PER_TURN + len(pending) // PENDING_PER_TURN)):
            copy = pending.popleft()
            if copy in self.copies:  # Else its time was up before its turn.
                copy.send()
        self._is_sending = bool(pending)
        if pending:
            asyncio.get_running_loop().call_soon(self._send_some)

    def refuses(self, size: int) -> int | None:
        """Why a copy of this size is not sent, as the counter's cell; None when there is room."""
        if len(self.copies) >= self.in_flight_most:
            return DROPPED_IN_FLIGHT
        if self.held_bytes + size > self.bytes_most:
            return DROPPED_BYTES
        return DROPPED_MEMORY if self.memory.is_half_full else None

    def expire(self) -> None:
        now_s = monotonic()
        for copy in [copy for copy in self.copies if copy.ends_s <= now_s]:
            copy.expired()


class Mirror:
    """One copy on its way to the shadow (upstream.Listener)."""

    connection: Connection | None = None
    attempt = 0
    _server: Server | None = None
    _head: AnswerHead | None = None
    _size = 0

    def __init__(
        self, budget: MirrorBudget, exchange: Exchange, lane: Lane, answered: Chunks | None,
        on_mirrored: MirroredCallback,
    ) -> None:  # fmt: skip
        self._budget, self._exchange, self._lane = budget, exchange, lane
        self._answered, self._on_mirrored = answered, on_mirrored
        self._slot: Slot = lane.slots[Role.MIRRORED]
        self._started_s = 0.0
        self.ends_s = monotonic() + exchange.way.live.route.deadline_s
        self._body: Chunks = []

    def start(self) -> bool:
        """Have the copy sent, or count why not."""
        budget, size = self._budget, self._exchange.request.size
        reason = budget.refuses(size)
        if reason is not None:
            self._slot.add(reason)
            return False
        budget.copies.add(self)
        budget.held_bytes += size
        budget.memory.held_bytes += size
        self._slot.add(STARTED)
        budget.queue(self)
        return True

    def send(self) -> None:
        exchange, lane = self._exchange, self._lane
        self._started_s = now = monotonic()
        server = lane.pool.pick(now)
        if server is None:
            self.failed(Outcome.UNAVAILABLE, False)
            return
        self._server, self.attempt = server, 1
        server.send(self, request_parts(exchange.request, exchange.way.asked, lane, server, exchange.request_id))

    def expired(self) -> None:
        connection, self.connection = self.connection, None
        self.attempt = 0
        if connection is not None:
            connection.abandon()
        self.failed(Outcome.TIMEOUT, False)

    def arrived(self, head: AnswerHead | None, chunks: Chunks, size: int, is_last: bool) -> None:
        if head is not None:
            self._head = head
        self._size += size
        is_small = self._size <= self._budget.sample_body_bytes
        if is_small:
            self._body += chunks
        if is_last:
            self._ended(self._body if is_small else None)

    def _ended(self, body: Chunks | None) -> None:
        assert self._head is not None
        self.attempt = 0
        self._leave()
        if self._head.status >= 400:
            self._slot.add(Outcome.SERVER_ERROR)  # A 4xx too: stable has just answered the same bytes.
            return
        now = monotonic()
        if self._server is not None and self._server.health.failures:
            self._server.health.succeeded(now)
        self._slot.ended_ok((now - self._started_s) * 1e6)
        self._on_mirrored(self._exchange, self._answered, self._head, body, self._lane.release)

    def failed(self, outcome: Outcome, was_stale: bool) -> None:
        self.attempt = 0
        self._leave()
        self._slot.add(Outcome.CLIENT_GONE if was_stale else outcome)  # A closed kept connection is nobody's failure.
        if self._server is not None and not was_stale:
            self._server.health.failed(monotonic())

    def _leave(self) -> None:
        budget, size = self._budget, self._exchange.request.size
        budget.copies.discard(self)
        budget.held_bytes -= size
        budget.memory.held_bytes -= size
