"""Which server of a pool gets a request: the less busy of two picks, without ejected ones. Knows nothing of HTTP."""

import random
from typing import Generic, Protocol, TypeVar

FAILURES_TO_EJECT = 3
EJECTED_S = 0.5
EJECTED_MOST_S = 10.0


class Busy(Protocol):
    """What the choice needs to know of a server."""

    @property
    def in_flight(self) -> int: ...

    @property
    def health(self) -> "Health": ...


class Health:
    """Consecutive failures of one server, and until when it is left out.

    After three failures in a row it is out for half a second; then requests probe it, and each further failure doubles
    the time, to ten seconds at most. One success takes it back.
    """

    __slots__ = ("_failures", "ejected_until_s")

    def __init__(self) -> None:
        self._failures = 0
        self.ejected_until_s = 0.0

    def succeeded(self) -> None:
        self._failures = 0

    def failed(self, now_s: float) -> None:
        self._failures += 1
        beyond = self._failures - FAILURES_TO_EJECT
        if beyond >= 0:
            self.ejected_until_s = now_s + min(EJECTED_MOST_S, EJECTED_S * 2 ** min(beyond, 10))


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
        if len(choice) < 2:
            return choice[0] if choice else None
        first = int(random.random() * len(choice))
        second = int(random.random() * (len(choice) - 1))
        one, other = choice[first], choice[second + (second >= first)]
        return one if one.in_flight <= other.in_flight else other


class RetryBudget:
    """Retries may be a share of the requests: each request earns `share` of a retry, at most `most` are saved up."""

    __slots__ = ("_most", "_saved", "_share")

    def __init__(self, share: float, most: float = 20.0) -> None:
        self._share, self._most, self._saved = share, most, most

    def earn(self) -> None:
        self._saved = min(self._most, self._saved + self._share)

    def spend(self) -> bool:
        if self._saved < 1.0:
            return False
        self._saved -= 1.0
        return True
