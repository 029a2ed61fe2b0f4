"""What all exchanges of a worker share: who is on the way, the retry budget, the bytes held, and who looks on."""

from time import monotonic
from typing import TYPE_CHECKING, Protocol

from gateway.balance import RetryBudget
from gateway.config import GatewayConfig
from gateway.memory import ByteLedger

if TYPE_CHECKING:
    from gateway.exchange import Exchange
    from gateway.lanes import Lane
    from gateway.upstream import Server


class Observer(Protocol):
    """Who is told of exchanges after they are over; never on a request's way."""

    def answered(self, exchange: "Exchange") -> None:
        """A good answer to an inference left, and the plane is recording or the route has a shadow."""

    def over(self, exchange: "Exchange", status: int, latency_s: float) -> None:
        """A request is over, however it ended; `status` 0 when nothing was answered."""


class Plane:
    """What all exchanges of a worker share."""

    __slots__ = (
        "budget", "ejections", "in_flight", "is_recording", "is_watched", "memory", "observer", "openings",
        "sample_body_bytes", "write_timeout_s",
    )  # fmt: skip

    def __init__(self, config: GatewayConfig, memory: ByteLedger, observer: Observer) -> None:
        self.budget = RetryBudget(config.retry_share)
        self.memory = memory
        self.observer = observer
        self.is_recording = self.is_watched = False
        """Are `Observer.answered` and `Observer.over` called?"""
        self.sample_body_bytes = config.sample_body_bytes
        self.write_timeout_s = config.write_timeout_s
        self.in_flight: set[Exchange] = set()
        self.ejections = self.openings = 0
        """How often a server was left out, and how often a breaker opened."""

    def blame(self, lane: "Lane", server: "Server | None", now_s: float) -> None:
        """An attempt failed: the release's breaker and the server's health hear of it."""
        self.openings += lane.breaker.failed(now_s)
        if server is not None:
            self.ejections += server.health.failed(now_s)

    def expire(self) -> None:
        """Fail what has waited too long; called a few times a second."""
        now = monotonic()
        for exchange in [waiting for waiting in self.in_flight if waiting.attempt_ends_s <= now]:
            # The one before may have made room for it.
            if exchange.attempt_ends_s <= now and exchange in self.in_flight:
                exchange.expired()
