"""Facts in, decisions stored, instructions carried out: the control plane's one writer of rollouts.

Every fact goes through `_tell`: read the state, ask the engine, store the new state with what it owes and its line of
history in one transaction, then have the instructions carried out. So whatever was announced was stored before, and a
control plane that is killed goes on with the same evidence.
"""

import logging
import secrets
import threading
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from sqlalchemy import Connection

from exporter.release import Release, ReleaseError, read_release, release_folder, verify_files
from gateway.routes import Route
from rollout.carrying import Carrier, Means
from rollout.decision import engine
from rollout.decision.events import Aborted, Event, Held, PoolLost, Resumed, RolloutStarted
from rollout.decision.rules import Plan
from rollout.decision.state import Rollout
from rollout.decision.verdict import progress
from rollout.errors import ConflictError, NotFoundError, RefusedError
from rollout.observing import observed
from rollout.pools.errors import PoolError
from rollout.routing import Routing
from rollout.serving import Serving
from rollout.store import history, observations, rollouts
from rollout.store.database import Database
from rollout.store.history import Entry
from rollout.store.rollouts import StoredRollout

LABEL_WAIT_S = 900.0
"""A label that comes later than this after its answer is kept, but counts for no rollout."""
FORGET_EVERY_S = 600.0
RESTART_EVERY_S = 5.0

log = logging.getLogger("sluice.control")


class Controller:
    """Owns all rollouts. `start` and `stop` run its clock; everything else may be called from any thread."""

    def __init__(
        self, database: Database, serving: Serving, routing: Routing, repository: Path, *, tick_s: float,
        drain_timeout_s: float, kept_observations_s: float, now: Callable[[], float] = time.time,
    ) -> None:  # fmt: skip
        self._database = database
        self._serving = serving
        self._routing = routing
        self._repository = repository
        self._tick_s = tick_s
        self._kept_observations_s = kept_observations_s
        self._now = now
        self._carrier = Carrier(Means(database, serving, routing, drain_timeout_s), self._tell)
        self._lock = threading.RLock()
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, name="controller", daemon=True)
        self._restarting: dict[str, float] = {}
        self._forgot_at = 0.0

    def start(self) -> None:
        """Adopt living pools, take up what is owed, and begin to tick."""
        for process in self._serving.adopt():
            log.info("adopted %s/%d (pid %d)", process.model, process.release, process.pid)
        self._carrier.kick()
        self._thread.start()

    def stop(self) -> None:
        """Stop deciding. Pools and gateways serve on."""
        self._stopping.set()
        self._carrier.stop()
        self._thread.join(timeout=10.0)

    # What engineers ask

    def begin(self, model: str, number: int, plan: Plan, by: str, reason: str = "") -> StoredRollout:
        """Start a rollout.

        Raises:
            NotFoundError: there is no such release.
            RefusedError: it is damaged, or does not match stable's inputs and outputs.
            ConflictError: it is stable already, or the model has a rollout under way.
        """
        release = self.release(model, number)
        route = self._routing.table.routes.get(model)
        stable = None if route is None else route.stable
        if stable == number:
            raise ConflictError(f"{release.name} is stable already")
        if stable is not None:
            _check_signature(release, self.release(model, stable))
        state = engine.start(model, number, stable, plan, f"{model}-{secrets.token_hex(8)}"[-48:])
        now = self._now()
        with self._lock:
            with self._database.writing() as connection:
                windows_seen, samples_seen = observations.last_ids(connection)
                stored = rollouts.create(connection, state, windows_seen, samples_seen, now)
                history.append(
                    connection, Entry(now, by, model, stored.id, "asked", reason or f"roll out {release.name}")
                )
            self._tell(stored.id, RolloutStarted())
        return self.get(stored.id)

    def hold(self, key: int, by: str, reason: str) -> StoredRollout:
        return self._told_by(key, Held(by, reason), by, reason)

    def resume(self, key: int, by: str, reason: str) -> StoredRollout:
        return self._told_by(key, Resumed(by, reason), by, reason)

    def abort(self, key: int, by: str, reason: str) -> StoredRollout:
        return self._told_by(key, Aborted(by, reason), by, reason)

    def get(self, key: int) -> StoredRollout:
        with self._database.reading() as connection:
            return rollouts.get(connection, key)

    def release(self, model: str, number: int) -> Release:
        """A release of the repository, its files checked. Raises NotFoundError or RefusedError."""
        folder = release_folder(self._repository, model, number)
        if not folder.is_dir():
            raise NotFoundError(
                f"there is no release {model}/{number}: `sluice releases` lists them, `sluice export` adds"
            )
        try:
            release = read_release(folder)
            verify_files(release, folder)
        except ReleaseError as exc:
            raise RefusedError(str(exc)) from exc
        return release

    def _told_by(self, key: int, event: Event, by: str, reason: str) -> StoredRollout:
        with self._lock:
            stored = self.get(key)
            try:
                self._tell(key, event, by, reason)
            except engine.UnexpectedEventError as exc:
                raise ConflictError(f"rollout {key} is {stored.state.status.value}: {exc}") from exc
        return self.get(key)

    # Facts

    def _tell(self, key: int, event: Event, by: str = "engine", reason: str = "") -> None:
        """One fact to the engine, outside the ticks."""
        with self._lock:
            with self._database.writing() as connection:
                stored = rollouts.get(connection, key)
                state, instructions = engine.handle(stored.state, event, self._now())
                rollouts.save(connection, replace(stored, state=state), instructions, self._now())
                self._note(connection, key, stored.state, state, by, reason)
            if instructions:
                self._carrier.kick()

    def _note(self, connection: Connection, key: int, before: Rollout, after: Rollout, by: str, reason: str) -> None:
        """Write history when the rollout moved."""
        if (before.status, before.stage) == (after.status, after.stage):
            return
        text = reason or progress(after, after.clock).summary
        now = self._now()
        history.append(connection, Entry(now, by, after.model, key, after.status.value, text))

    # The clock

    def _run(self) -> None:
        while not self._stopping.wait(self._tick_s):
            try:
                self.tick()
            except Exception:
                log.exception("a tick failed; the next one tries again")

    def tick(self) -> None:
        """Observe every rollout under way, and see to the pools."""
        with self._database.reading() as connection:
            active = rollouts.active(connection)
        self._see_to_pools(active)
        for stored in active:
            self._observe(stored.id)
        if self._now() - self._forgot_at > FORGET_EVERY_S:
            self._forgot_at = self._now()
            with self._database.writing() as connection:
                observations.forget_before(connection, self._now() - self._kept_observations_s)

    def _observe(self, key: int) -> None:
        """Tell a rollout what was counted since its evidence was last brought up; store both in one transaction."""
        with self._lock:
            with self._database.writing() as connection:
                stored = rollouts.get(connection, key)
                before = stored.state
                if before.has_ended:
                    return
                windows, windows_seen = observations.windows_after(connection, before.model, stored.windows_seen)
                predictions, samples_seen = observations.predictions_after(
                    connection, before.model, stored.samples_seen
                )
                since = max(stored.created_at, self._now() - LABEL_WAIT_S)
                judged = observations.newly_judged(connection, before.model, before.release, since)
                fact = observed(before, windows, predictions, judged)
                state, instructions = engine.handle(before, fact, self._now())
                observations.mark_judged(connection, [one.id for one in judged])
                seen = replace(stored, state=state, windows_seen=windows_seen, samples_seen=samples_seen)
                rollouts.save(connection, seen, instructions, self._now())
                self._note(connection, key, before, state, "engine", "")
            if instructions:
                self._carrier.kick()

    def _see_to_pools(self, active: list[StoredRollout]) -> None:
        """Tell rollouts of lost candidates; start a stable release that should serve and does not."""
        dead = set(self._serving.dead())
        living = {(one.model, one.release) for one in self._serving.processes()} - dead
        for stored in active:
            state = stored.state
            is_needed = state.is_pool_ready and not state.has_ended
            if is_needed and (state.model, state.release) not in living:
                self._tell(stored.id, PoolLost(state.release, "its server process died"))
        for model, route in self._routing.table.routes.items():
            if (model, route.stable) not in living:
                self._restart_stable(model, route.stable)

    def _restart_stable(self, model: str, release: int) -> None:
        if self._now() < self._restarting.get(model, 0.0):
            return
        self._restarting[model] = float("inf")
        threading.Thread(target=self._restart, args=(model, release), name=f"restart-{model}", daemon=True).start()

    def _restart(self, model: str, release: int) -> None:
        """Start stable's server anew and route to its new address."""
        try:
            log.warning("the server of %s/%d is not there: starting it", model, release)
            address = self._serving.ensure(model, release).address
            if self._routing.table.routes[model].servers.get(release) != (address,):
                self._routing.change(model, lambda route: _moved(route, release, address))
        except PoolError as exc:
            log.error("%s/%d could not be started: %s", model, release, exc)
        finally:
            self._restarting[model] = self._now() + RESTART_EVERY_S


def _moved(route: Route | None, release: int, address: str) -> Route:
    """The same route, with a release's server at another address (if the release is still in it)."""
    assert route is not None
    return replace(route, servers={**route.servers, release: (address,)} if release in route.servers else route.servers)


def _check_signature(candidate: Release, stable: Release) -> None:
    """Raises RefusedError when clients of stable would not be served by the candidate."""
    if candidate.signature != stable.signature:
        raise RefusedError(
            f"{candidate.name} does not match stable {stable.name}: it has {_shown(candidate)} where clients rely on"
            f" {_shown(stable)}; export it under another model name, or with the same inputs and outputs"
        )


def _shown(release: Release) -> str:
    signature = release.signature
    ins, outs = (
        ", ".join(f"{one.name} {one.dtype}{list(one.dims)}" for one in side)
        for side in (signature.inputs, signature.outputs)
    )
    return f"({ins}) -> ({outs})"
