"""Which server of a pool gets a request: the less busy of two picks, without ejected ones. Knows nothing of HTTP."""

import random
from typing import Generic, Protocol, TypeVar

FAILURES_TO_EJECT = 3
EJECTED_S = 0.5
EJECTED_MOST_S = 10.0
PROBE_S = 1.0
"""How long a probe may take before the next one."""
RETURN_S = 10.0
RETURN_LEAST = 0.1
"""A server that came back gets this share of its picks at first, and all of them after `RETURN_S`."""


class Busy(Protocol):
    """What the choice needs to know of a server."""

    @property
    def in_flight(self) -> int: ...

    @property
    def health(self) -> "Health": ...


class Health:
    """Consecutive failures of one server, and until when it is left out.

    After three failures in a row it is out for half a second; then one request a second probes it, and each further
    failure doubles the time, to ten seconds at most. One success takes it back, to a share of its picks that grows over
    ten seconds: a server that has just come back is cold.
    """

    __slots__ = ("_returned_s", "ejected_until_s", "failures")

    def __init__(self) -> None:
        self.failures = 0
        self.ejected_until_s = 0.0
        self._returned_s: float | None = None

    def succeeded(self, now_s: float) -> None:
        if self.failures >= FAILURES_TO_EJECT:
            self._returned_s, self.ejected_until_s = now_s, 0.0
        self.failures = 0

    def failed(self, now_s: float) -> bool:
        """True when it is left out from now on."""
        self.failures += 1
        beyond = self.failures - FAILURES_TO_EJECT
        if beyond >= 0:
            self.ejected_until_s = now_s + min(EJECTED_MOST_S, EJECTED_S * 2 ** min(beyond, 10))
        return beyond == 0

    def probed(self, now_s: float) -> None:
        """It was picked after an ejection: until its answer comes, no other request should meet it."""
        if self.failures >= FAILURES_TO_EJECT and self.ejected_until_s <= now_s:
            self.ejected_until_s = now_s + PROBE_S

    def takes_full_share(self, now_s: float) -> bool:
        """By chance less often in the first seconds after a return."""
        if self._returned_s is None:
            return True
        share = (now_s - self._returned_s) / RETURN_S
        if share >= 1.0:
            self._returned_s = None
            return True
        return random.random() < max(RETURN_LEAST, share)


T = TypeVar("T", bound=Busy)


class Pool(Generic[T]):
    """The servers of one release."""

    __slots__ = ("servers",)

    def __init__(self, servers: tuple[T, ...]) -> None:
        self.servers = servers

    def pick(self, now_s: float, without: T | None = None) -> T | None:
        """A server to try, or None when there is no other than `without`. When all are ejected, any is tried."""
        servers = self.servers
        if len(servers) == 1:
            return servers[0] if servers[0] is not without else None
        choice = [server for server in servers if server is not without]
        choice = [server for server in choice if server.health.ejected_until_s <= now_s] or choice
        picked = _of_two(choice, now_s)
        if picked is not None and picked.health.failures:
            picked.health.probed(now_s)
        return picked


def _of_two(choice: list[T], now_s: float) -> T | None:
    """The less busy of two random ones; a server that has just come back loses to the other one more often."""
    if len(choice) < 2:
        return choice[0] if choice else None
    first = int(random.random() * len(choice))
    second = int(random.random() * (len(choice) - 1))
    one, other = choice[first], choice[second + (second >= first)]
    if other.in_flight < one.in_flight:
        one, other = other, one
    return one if one.health.takes_full_share(now_s) else other


class RetryBudget:
    """Retries may be a share of the requests: each request earns `share` of a retry, at most `most` are saved up."""

    __slots__ = ("_most", "_saved", "_share", "earned")

    def __init__(self, share: float, most: float = 20.0) -> None:
        self._share, self._most, self._saved = share, most, most
        self.earned = 0
        """Requests since the last retry."""

    def spend(self) -> bool:
        self._saved = min(self._most, self._saved + self.earned * self._share)
        self.earned = 0
        if self._saved < 1.0:
            return False
        self._saved -= 1.0
        return True
