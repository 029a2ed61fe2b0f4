"""Carries out what the engine wants done, in order, one rollout beside the other, and tells how it went.

An instruction is owed until it is done, and doing it twice changes nothing, so a control plane that was killed goes on
where it was.
"""

import logging
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass

from gateway.routes import Route
from rollout.decision.events import Event, PoolBecameReady, PoolFailed
from rollout.decision.instructions import Announce, ReplaceRoute, StartPool, StopPool
from rollout.decision.state import Rollout
from rollout.errors import DatabaseError, NotLeaderError, StoppingError
from rollout.leading import Leadership
from rollout.pools.errors import PoolError
from rollout.routing import Routing
from rollout.serving import Serving
from rollout.store import rollouts
from rollout.store.rollouts import Owed

RETRY_S = 1.0
STOP_TIMEOUT_S = 5.0

log = logging.getLogger("sluice.control")

Tell = Callable[[int, Event, int], None]
"""Told to the engine: (rollout, fact, the instruction that it ends); both are stored in one transaction."""


@dataclass(frozen=True, slots=True)
class Means:
    """What instructions are carried out with."""

    leadership: Leadership
    serving: Serving
    routing: Routing
    drain_timeout_s: float


class Carrier:
    """One thread a rollout, while anything is owed for it."""

    def __init__(self, means: Means, tell: Tell) -> None:
        self._means = means
        self._tell = tell
        self._busy: set[int] = set()
        self._threads: list[threading.Thread] = []
        self._lock = threading.Lock()
        self._stopping = threading.Event()

    def kick(self) -> None:
        """Begin to carry out whatever is owed and not under way."""
        with self._lock:
            if self._stopping.is_set():
                return
            for rollout in {owed.rollout for owed in self._owed()} - self._busy:
                self._busy.add(rollout)
                thread = threading.Thread(
                    target=self._carry_all, args=(rollout,), name=f"rollout-{rollout}", daemon=True
                )
                self._threads = [one for one in self._threads if one.is_alive()] + [thread]
                thread.start()

    def stop(self) -> None:
        """Begin nothing new, and wait a little; what is under way stays owed and is taken up after the next start."""
        self._stopping.set()
        self._means.routing.stop()
        for thread in self._threads:
            thread.join(STOP_TIMEOUT_S)

    def _owed(self, rollout: int | None = None) -> list[Owed]:
        with self._means.leadership.reading() as connection:
            return rollouts.owed(connection, rollout)

    def _carry_all(self, rollout: int) -> None:
        while not self._stopping.is_set():
            try:
                mine = self._owed(rollout)
                if not mine:
                    self._finish(rollout)
                    return
                self._carry(mine[0])
            except StoppingError:
                return
            except NotLeaderError as exc:
                log.warning("rollout %d: what is owed is left to the leader (%s)", rollout, exc)
                with self._lock:
                    self._busy.discard(rollout)
                return
            except DatabaseError as exc:
                log.error("rollout %d: %s", rollout, exc)
                self._stopping.wait(RETRY_S)
            except Exception:
                log.exception("rollout %d: what it owes could not be carried out; trying again", rollout)
                self._stopping.wait(RETRY_S)

    def _finish(self, rollout: int) -> None:
        with self._lock:
            self._busy.discard(rollout)
        self.kick()  # Something may have become owed since the look.

    def _carry(self, owed: Owed) -> None:
        self._means.leadership.check()
        with self._means.leadership.reading() as connection:
            state = rollouts.get(connection, owed.rollout).state
        fact = self._do(owed.rollout, state, owed)
        if fact is not None:
            self._tell(owed.rollout, fact, owed.id)
            return
        with self._means.leadership.writing() as connection:
            rollouts.done(connection, owed.id, time.time())

    def _do(self, rollout: int, state: Rollout, owed: Owed) -> Event | None:
        match owed.instruction:
            case StartPool(release):
                return self._start_pool(state, release)
            case ReplaceRoute() as wanted:
                table = self._means.routing.change(state.model, lambda _: self._route(state, wanted))
                self._means.routing.wait_applied(table.version)
            case StopPool(release):
                name = f"{state.model}/{release}"
                if not self._means.routing.wait_drained(name, self._means.drain_timeout_s):
                    log.warning("%s still had requests in flight when it was stopped", name)
                self._means.serving.stop(state.model, release, self._means.drain_timeout_s)
            case Announce(text):
                log.info("rollout %d: %s", rollout, text)
        return None

    def _start_pool(self, state: Rollout, release: int) -> Event:
        if state.has_ended:
            return PoolFailed(release, "the rollout ended before its pool was started")
        try:
            self._means.serving.ensure(state.model, release)
        except PoolError as exc:
            return PoolFailed(release, str(exc))
        return PoolBecameReady(release)

    def _route(self, state: Rollout, wanted: ReplaceRoute) -> Route:
        candidate, shadow = wanted.candidate, wanted.shadow
        releases = {wanted.stable} | {arm.release for arm in (candidate, shadow) if arm is not None}
        return Route(
            model=state.model,
            revision=0,
            stable=wanted.stable,
            servers={release: self._means.serving.addresses(state.model, release) for release in sorted(releases)},
            candidate=candidate,
            shadow=shadow,
            salt=state.salt,
        )
