"""One release of a route as a worker uses it: its pool, its counters, its room, and its breaker. Knows no HTTP."""

from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass
from hashlib import blake2b
from typing import Protocol

from gateway.balance import Pool
from gateway.counters import Slot
from gateway.routes import HASH_RANGE, Route
from gateway.upstream import Server
from gateway.windows import Role

OPENS_AFTER, OPENS_UNPROVEN_AFTER = 8, 3
"""Failures in a row after which a breaker opens: of a release that answered well before, and of one that never did."""
PROBE_S, PROBE_MOST_S = 0.5, 8.0
"""How long an open breaker waits before it lets one request try; doubled with every try that failed."""
SILENT_IN_FLIGHT, SILENT_S, SILENT_TIMES = 4, 0.8, 10.0
"""A release is silent when this many requests wait and none was answered for 0.8 s and for 10 times stable's mean."""
_MEAN_SHARE = 0.05


class Waiting(Protocol):
    """Who waits for room in a lane."""

    def admitted(self) -> None: ...


class Breaker:
    """Opens when a release only fails, at once and on the spot; the control plane decides later and from more."""

    __slots__ = ("_probe_at_s", "_wait_s", "failures", "opens_after")

    def __init__(self) -> None:
        self.failures = 0
        """In a row."""
        self.opens_after = OPENS_UNPROVEN_AFTER
        self._wait_s = PROBE_S
        self._probe_at_s = 0.0

    def lets_pass(self, now_s: float) -> bool:
        """May a request be sent? When it is open, one now and then may."""
        if self.failures < self.opens_after:
            return True
        if now_s < self._probe_at_s:
            return False
        self._wait_s = min(PROBE_MOST_S, 2 * self._wait_s)
        self._probe_at_s = now_s + self._wait_s
        return True

    def failed(self, now_s: float) -> bool:
        """True when it opens now."""
        self.failures += 1
        return self.failures == self.opens_after and self._open(now_s)

    def answered(self) -> None:
        """A good answer came."""
        self.failures, self.opens_after = 0, OPENS_AFTER

    def fell_silent(self, now_s: float) -> bool:
        """True when it opens now."""
        if self.failures >= self.opens_after:
            return False
        self.failures = self.opens_after
        return self._open(now_s)

    def _open(self, now_s: float) -> bool:
        self._wait_s = PROBE_S
        self._probe_at_s = now_s + PROBE_S
        return True


@dataclass(frozen=True, slots=True)
class Room:
    """How many requests of one release may be on their way in one worker, and how many more may wait, how long."""

    in_flight: int
    waiting: int
    wait_s: float


class Lane:
    """One release of a route: its pool and its counters, by role."""

    __slots__ = (
        "_waiting", "answered_s", "answered_slot", "breaker", "in_flight", "mean_s", "most", "own_lines", "path",
        "pinned_slot", "pool", "release", "release_name", "room", "slots",
    )  # fmt: skip

    def __init__(self, model: str, release: int, pool: Pool[Server], slots: Mapping[Role, Slot], room: Room) -> None:
        self.release = release
        self.release_name = f"{model}/{release}".encode()
        self.own_lines = b"x-sluice-release: %s\r\nx-request-id: " % self.release_name
        """The gateway's own fields of an answer's head, but for the request's id behind them."""
        self.pool = pool
        self.slots = slots
        self.room = room
        self.most = room.in_flight
        self.answered_slot, self.pinned_slot = slots.get(Role.ANSWERED), slots.get(Role.PINNED)
        self.in_flight = 0
        self.breaker = Breaker()
        self.answered_s = self.mean_s = 0.0
        """When the last good answer came, and the mean of latencies, recent ones counting more."""
        self._waiting: deque[Waiting] = deque()
        self.path = f"/v2/models/{model}/versions/{release}".encode()
        """What a server knows the release by."""

    # Room

    @property
    def waiting(self) -> int:
        return len(self._waiting)

    def queue(self, waiting: Waiting) -> bool:
        """Wait for room; False when too many wait."""
        if len(self._waiting) >= self.room.waiting:
            return False
        self._waiting.append(waiting)
        return True

    def unqueue(self, waiting: Waiting) -> None:
        if waiting in self._waiting:
            self._waiting.remove(waiting)

    def leave(self) -> None:
        """One is no longer on its way: admit who waits."""
        self.in_flight -= 1
        while self._waiting and self.in_flight < self.most:
            self.in_flight += 1
            self._waiting.popleft().admitted()

    # What its answers tell

    def answered(self, now_s: float, latency_s: float) -> None:
        self.answered_s = now_s
        self.mean_s += _MEAN_SHARE * (latency_s - self.mean_s)
        self.breaker.answered()

    def is_silent(self, now_s: float, stable: "Lane") -> bool:
        """Do requests wait here while not one is answered, for much longer than stable takes?"""
        if self.in_flight < SILENT_IN_FLIGHT:
            return False
        return now_s - self.answered_s > max(SILENT_S, SILENT_TIMES * stable.mean_s)


class LiveRoute:
    """A route with its lanes by release; `mirror` is the shadow's own lane, with its own connections."""

    __slots__ = ("_candidate_below", "_hash", "_shadow_below", "_shadow_hash", "body_bytes", "lanes", "mirror", "route",
                 "stable", "sticky_header")  # fmt: skip

    def __init__(self, route: Route, lanes: Mapping[int, Lane], mirror: Lane | None) -> None:
        self.route = route
        self.lanes = lanes
        self.stable = lanes[route.stable]
        self.mirror = mirror
        self.sticky_header = route.sticky_header.encode()
        self.body_bytes = 2**63 if route.body_bytes is None else route.body_bytes
        self._hash = blake2b(digest_size=8, key=route.salt.encode())
        self._shadow_hash = blake2b(digest_size=8, key=f"{route.salt}/shadow".encode())
        self._candidate_below = route.candidate.weight * HASH_RANGE if route.candidate else 0.0
        self._shadow_below = route.shadow.share * HASH_RANGE if route.shadow else 0.0

    def pick(self, key: bytes) -> Lane:
        """The lane of what `Route.pick` says, from a hash that was begun once."""
        if self._candidate_below:
            place = self._hash.copy()
            place.update(key)
            if int.from_bytes(place.digest(), "little") < self._candidate_below:
                assert self.route.candidate is not None
                return self.lanes[self.route.candidate.release]
        return self.stable

    def is_mirrored(self, key: bytes) -> bool:
        """What `Route.is_mirrored` says."""
        if self._shadow_below >= HASH_RANGE:
            return True
        place = self._shadow_hash.copy()
        place.update(key)
        return int.from_bytes(place.digest(), "little") < self._shadow_below
