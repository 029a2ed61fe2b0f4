"""Caretaking: a pool that dies is started again and warm before it is routed; one that keeps dying is given up.

Knows which pools should live, how long to wait before the next start, and when patience ends. Must not know how pools
are run, nor what follows for a rollout: the engine is told.

The laws: a stable release is never given up, for there is nothing to serve in its place; a candidate is, with its
log's last words. A pool that came back is cold, so the engine is told that too. A candidate that is away meanwhile is
answered for by stable: the gateway falls back by itself, and charges the candidate.
"""

import logging
import threading
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace

from gateway.routes import Route
from rollout.decision.events import Event, PoolBecameReady, PoolLost
from rollout.decision.state import Rollout
from rollout.pools.errors import PoolError
from rollout.routing import Routing
from rollout.serving import Key, Serving
from rollout.store.rollouts import StoredRollout

LONGEST_PAUSE_S = 60.0
STEADY_S = 300.0
"""A pool that lived for so long is well: what was before counts no longer."""
RENEW_EVERY_S = 5.0
"""So often at most a pool that serves by some of its servers is started, to take the others up again."""
CANDIDATE_STARTS = 3
"""How often a candidate is started again before it is given up."""
STOP_TIMEOUT_S = 5.0

log = logging.getLogger("sluice.control")


@dataclass(frozen=True, slots=True)
class Ailing:
    """A pool that died or did not start, `deaths` times since it was last well. `back_at` is when it lived again."""

    deaths: int
    start_at: float
    words: str
    back_at: float | None = None

    def is_well(self, now: float) -> bool:
        return self.back_at is not None and now - self.back_at >= STEADY_S

    @property
    def is_failing(self) -> bool:
        """Is it away, or does it come and go?"""
        return self.deaths > (0 if self.back_at is None else 1)


def died(before: Ailing | None, words: str, now: float) -> Ailing:
    """A pool after one more death or failed start: started again at once, then after 1, 2, 4 ... 60 s."""
    deaths = 1 if before is None or before.is_well(now) else before.deaths + 1
    pause_s = 0.0 if deaths == 1 else min(LONGEST_PAUSE_S, 2.0 ** min(deaths - 2, 10))
    return Ailing(deaths, now + pause_s, words)


def lessened(before: Ailing | None, now: float) -> Ailing:
    """A pool that serves still, but not in full, or whose lost server came back: to be started again; no death."""
    if before is None or before.back_at is None or before.is_well(now):
        return Ailing(0, now, "")
    return replace(before, start_at=max(now, before.back_at + RENEW_EVERY_S), back_at=None)


@dataclass(frozen=True, slots=True)
class Wanted:
    """A pool that should live. `rollout` is the one under way for its model."""

    model: str
    release: int
    rollout: int | None
    is_candidate: bool

    @property
    def key(self) -> Key:
        return self.model, self.release

    @property
    def name(self) -> str:
        return f"{self.model}/{self.release}"


class Caretaker:
    """Sees to the pools whenever it is told to look. `tell` and `rollout` are the controller's."""

    def __init__(
        self, serving: Serving, routing: Routing, tell: Callable[[int, Event], None],
        rollout: Callable[[int], Rollout], now: Callable[[], float],
    ) -> None:  # fmt: skip
        self._serving = serving
        self._routing = routing
        self._tell = tell
        self._rollout = rollout
        self._now = now
        self._ailing: dict[Key, Ailing] = {}
        self._starting: dict[Key, threading.Thread] = {}
        self._stopping = threading.Event()

    def failing(self) -> Mapping[Key, str]:
        """The pools that are away or come and go, with their last words."""
        return {key: ailing.words for key, ailing in self._ailing.copy().items() if ailing.is_failing}

    def look(self, active: Iterable[StoredRollout]) -> None:
        """Start again what should live and does not, in threads of their own. Waits for none of them."""
        wanted = {one.key: one for one in self._wanted(list(active))}
        living = {(pool.model, pool.release) for pool in self._serving.pools()} - set(self._serving.dead())
        for key in self._ailing.keys() - wanted.keys() - self._starting.keys():
            del self._ailing[key]
        for key, one in wanted.items():
            if key in living:
                self._note_living(key)
            elif key not in self._starting:
                self._see_to(one)

    def stop(self) -> None:
        """Begin nothing new, and wait a little for what is under way."""
        self._stopping.set()
        self.wait(STOP_TIMEOUT_S)

    def wait(self, timeout_s: float) -> None:
        """Wait for the starts that are under way, each for so long at most."""
        for thread in self._starting.copy().values():
            thread.join(timeout_s)

    def _wanted(self, active: list[StoredRollout]) -> Iterable[Wanted]:
        under_way = {stored.state.model: stored.id for stored in active}
        for stored in active:
            if stored.state.is_pool_ready:
                yield Wanted(stored.state.model, stored.state.release, stored.id, is_candidate=True)
        for model, route in self._routing.table.routes.items():
            yield Wanted(model, route.stable, under_way.get(model), is_candidate=False)

    def _note_living(self, key: Key) -> None:
        ailing = self._ailing.get(key)
        if ailing is not None and ailing.is_well(self._now()):
            del self._ailing[key]
        elif ailing is not None and ailing.back_at is None and key not in self._starting:
            self._ailing[key] = replace(ailing, back_at=self._now())

    def _see_to(self, one: Wanted) -> None:
        ailing = self._ailing.get(one.key)
        if ailing is None or ailing.back_at is not None:
            words = self._serving.last_words(*one.key)
            if words is None:
                self._ailing[one.key] = lessened(ailing, self._now())
            elif not self._note_death(one, words):
                return
            log.warning("%s is to be started again: %s", one.name, words or "some of its servers went or came back")
        if self._now() >= self._ailing[one.key].start_at and not self._stopping.is_set():
            thread = threading.Thread(target=self._start, args=(one,), name=f"start-{one.name}", daemon=True)
            self._starting[one.key] = thread
            thread.start()

    def _note_death(self, one: Wanted, words: str) -> bool:
        """Is it to be started again? Otherwise it was given up."""
        ailing = self._ailing[one.key] = died(self._ailing.get(one.key), words, self._now())
        if not one.is_candidate or ailing.deaths <= CANDIDATE_STARTS:
            return True
        assert one.rollout is not None
        reason = f"it died or did not start {ailing.deaths} times, at last: {words}"
        self._tell(one.rollout, PoolLost(one.release, reason))
        return False

    def _start(self, one: Wanted) -> None:
        """In a thread: start a pool, route to its addresses, and tell that it is back if it was away or has moved."""
        try:
            before, serves_still = self._serving.addresses(*one.key), self._serving.last_words(*one.key) is None
            addresses = self._serving.ensure(*one.key).addresses
            if self._is_still_wanted(one):
                self._route(one, addresses)
                self._ailing[one.key] = replace(self._ailing[one.key], back_at=self._now())
                if one.rollout is not None and not (serves_still and addresses == before):
                    self._tell(one.rollout, PoolBecameReady(one.release))
            else:
                self._serving.stop(*one.key, STOP_TIMEOUT_S)
        except PoolError as exc:
            log.error("%s could not be started: %s", one.name, exc)
            self._note_death(one, str(exc))
        except Exception as exc:
            log.exception("%s could not be seen to; it is tried again", one.name)
            self._note_death(one, repr(exc))
        finally:
            del self._starting[one.key]

    def _is_still_wanted(self, one: Wanted) -> bool:
        """Or was it stopped for good while it was being started?"""
        route = self._routing.table.routes.get(one.model)
        is_routed = route is not None and one.release in route.servers
        return is_routed or (one.is_candidate and one.rollout is not None and not self._rollout(one.rollout).has_ended)

    def _route(self, one: Wanted, addresses: tuple[str, ...]) -> None:
        route = self._routing.table.routes.get(one.model)
        if route is not None and route.servers.get(one.release, addresses) != addresses:
            self._routing.change(one.model, lambda route: _moved(route, one.release, addresses))


def _moved(route: Route | None, release: int, addresses: tuple[str, ...]) -> Route:
    """The same route, with a release's servers at other addresses (if the release is still in it)."""
    assert route is not None
    return replace(route, servers={**route.servers, release: addresses} if release in route.servers else route.servers)
