"""Facts in, decisions stored, instructions carried out: the control plane's one writer of rollouts.

Every fact goes through `_tell`: read the state, ask the engine, store the new state with what it owes and its line of
history in one transaction, then have the instructions carried out. So whatever was announced was stored before, and a
control plane that is killed goes on with the same evidence. Only the leader does any of it (see `leading`).
"""

import contextlib
import logging
import secrets
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path

from sqlalchemy import Connection

from exporter.release import Release, ReleaseError, read_release, release_folder, verify_files
from rollout.caretaking import Caretaker
from rollout.carrying import Carrier, Means
from rollout.decision import engine
from rollout.decision.events import Approved, Event, RolloutStarted
from rollout.decision.rules import Plan
from rollout.decision.verdict import progress
from rollout.errors import ConflictError, DatabaseError, NotFoundError, NotLeaderError, RefusedError
from rollout.leading import RENEW_S, Leadership
from rollout.observing import not_counted, observed
from rollout.orders import ORDERS
from rollout.routing import Routing
from rollout.serving import Key, Serving
from rollout.store import history, observations, rollouts, routes
from rollout.store.history import Entry
from rollout.store.rollouts import StoredRollout
from rollout.terms import NO_TERMS, Terms
from rollout.watched import Watched

LABEL_WAIT_S, LABEL_WAIT_TIMES = 900.0, 2.0
"""A label that comes later after its answer than both this and this many times the plan's delay counts for nothing."""
FORGET_EVERY_S = 600.0
NO_REASON = "no reason given"
HINTS_NOW = {
    True: "`sluice rollout history` tells how it ended; start another one to try again",
    False: "`sluice rollout status` shows where it stands",
}
"""By whether the rollout has ended."""

log = logging.getLogger("sluice.control")


class Controller:
    """Owns all rollouts. `start` and `stop` run its clock; everything else may be called from any thread."""

    def __init__(
        self, leadership: Leadership, serving: Serving, routing: Routing, repository: Path, *, tick_s: float,
        drain_timeout_s: float, kept_observations_s: float, now: Callable[[], float] = time.time,
    ) -> None:  # fmt: skip
        self._leadership = leadership
        self._serving = serving
        self._routing = routing
        self._repository = repository
        self._tick_s = tick_s
        self._kept_observations_s = kept_observations_s
        self._now = now
        self._carrier = Carrier(Means(leadership, serving, routing, drain_timeout_s), self._tell_done)
        self._caretaker = Caretaker(serving, routing, self._tell, lambda key: self.get(key).state, now)
        self._lock = threading.RLock()
        self._stopping = threading.Event()
        self._threads = [
            threading.Thread(target=run, name=name, daemon=True)
            for name, run in (("controller", self._run), ("lease", self._keep_lease))
        ]
        self._term: int | None = None
        """The term whose beginning was seen to."""
        self._forgot_at = 0.0
        self.watched = Watched()

    def start(self) -> None:
        """Lead if nobody else does, and begin to tick. Raises DatabaseError."""
        self.lead_or_follow()
        for thread in self._threads:
            thread.start()

    def stop(self) -> None:
        """Stop deciding, and let another lead. Pools and gateways serve on."""
        self._stopping.set()
        self._carrier.stop()
        for thread in self._threads:
            thread.join(timeout=10.0)
        self._caretaker.stop()
        with contextlib.suppress(DatabaseError):
            self._leadership.resign()

    def failing(self) -> Mapping[Key, str]:
        """See `Caretaker.failing`."""
        return self._caretaker.failing()

    # Leading

    def _keep_lease(self) -> None:
        while not self._stopping.wait(RENEW_S):
            try:
                self.lead_or_follow()
            except DatabaseError as exc:
                log.error("%s", exc)

    def lead_or_follow(self) -> None:
        """Lead if nobody else does; take over when it begins to. Raises DatabaseError."""
        before = self._leadership.term
        if self._leadership.seek():
            if self._leadership.term != self._term:
                self._take_over()
        elif before is not None:
            log.warning("another control plane leads now; this one follows")

    def _take_over(self) -> None:
        """Adopt living pools and take up what is owed, as the leader before left them."""
        self._routing.reload()
        for pool in self._serving.adopt():
            log.info("adopted %s/%d at %s", pool.model, pool.release, ", ".join(pool.addresses))
        self._term = self._leadership.term
        self._carrier.kick()

    # What engineers ask

    def begin(
        self, model: str, number: int, plan: Plan, by: str, reason: str = "", terms: Terms = NO_TERMS
    ) -> StoredRollout:
        """Start a rollout.

        Raises:
            NotFoundError: there is no such release.
            RefusedError: it is damaged, does not match stable's inputs and outputs, or the plan asks for guards that
                nobody counts for.
            ConflictError: it is stable already, or the model has a rollout under way.
        """
        if keys := not_counted(plan):
            raise RefusedError(
                f"nothing is counted for {', '.join(keys)} yet, so it could never be cleared", "leave it off"
            )
        return self._begin(self.release(model, number), plan, by, reason or f"roll out {model}/{number}", terms)

    def _begin(
        self, release: Release, plan: Plan, by: str, reason: str, terms: Terms, direct: str = ""
    ) -> StoredRollout:
        model, number, now = release.model, release.number, self._now()
        with self._lock:
            with self._leadership.writing() as connection:
                terms.before(connection, None)
                table = routes.current(connection)
                stable = table.routes[model].stable if model in table.routes else None
                self._check_against(release, stable)
                attempt = 1 + rollouts.attempts(connection, model, number, stable)
                salt = f"{model}-{secrets.token_hex(8)}"[-48:]
                state = engine.start(model, number, stable, plan, salt, attempt, direct)
                stored = rollouts.create(connection, state, table.version, now)
                history.append(connection, Entry(now, by, model, stored.id, "asked", reason))
                self._advance(connection, stored, RolloutStarted(), "engine", "")
                terms.after(connection, stored.id)
            self._carrier.kick()
        return self.get(stored.id)

    def order(self, verb: str, key: int, by: str, reason: str, terms: Terms = NO_TERMS) -> StoredRollout:
        """Tell a rollout what somebody wants of it: one of ORDERS.

        Raises:
            NotFoundError: there is no such rollout.
            ConflictError: this cannot follow on where it stands.
        """
        return self._told_by(key, ORDERS[verb].fact(by, reason or NO_REASON), by, reason, terms)

    def roll_back_model(self, model: str, by: str, reason: str, terms: Terms = NO_TERMS) -> StoredRollout:
        """Give all of a model's traffic to the release before: by the rollout under way, or by one of its own.

        Raises:
            NotFoundError: the model is not served, or its stable release followed on none.
        """
        with self._leadership.reading() as connection:
            under_way = rollouts.under_way(connection, model)
            route = routes.current(connection).routes.get(model)
            previous = None if route is None else rollouts.stable_before(connection, model, route.stable)
        if under_way is not None:
            return self.order("rollback", under_way, by, reason, terms)
        if route is None:
            raise NotFoundError(f"no model {model!r} is served", "`sluice releases` lists them")
        if previous is None:
            raise NotFoundError(
                f"{model}/{route.stable} followed on no release", "`sluice rollout start` brings another one in"
            )
        why = f"rolled back from {model}/{route.stable} by {by}: {reason or NO_REASON}"
        return self._begin(self.release(model, previous), Plan(), by, why, terms, direct=why)

    def get(self, key: int) -> StoredRollout:
        with self._leadership.reading() as connection:
            return rollouts.get(connection, key)

    def release(self, model: str, number: int) -> Release:
        """A release of the repository, its files checked. Raises NotFoundError or RefusedError."""
        folder = release_folder(self._repository, model, number)
        if not folder.is_dir():
            raise NotFoundError(
                f"there is no release {model}/{number}", "`sluice releases` lists them, `sluice export` adds"
            )
        try:
            release = read_release(folder)
            verify_files(release, folder)
        except ReleaseError as exc:
            raise RefusedError(str(exc), "export it again under a new number: releases are never changed") from exc
        return release

    def _check_against(self, release: Release, stable: int | None) -> None:
        """Raises ConflictError or RefusedError when a release cannot follow on the stable one."""
        if stable == release.number:
            raise ConflictError(f"{release.name} is stable already", "roll out another release")
        if stable is not None:
            _check_signature(release, self.release(release.model, stable))

    def _told_by(self, key: int, event: Event, by: str, reason: str, terms: Terms) -> StoredRollout:
        with self._lock:
            stored = self.get(key)
            try:
                self._tell(key, event, by, reason, terms)
            except engine.UnexpectedEventError as exc:
                status = stored.state.status.value.replace("_", " ")
                what = "it has ended" if stored.state.has_ended else f"it cannot be {type(event).__name__.lower()} now"
                raise ConflictError(f"rollout {key} is {status}: {what}", HINTS_NOW[stored.state.has_ended]) from exc
        return self.get(key)

    # Facts

    def _tell(self, key: int, event: Event, by: str = "engine", reason: str = "", terms: Terms = NO_TERMS) -> None:
        """One fact to the engine, outside the ticks."""
        with self._lock:
            with self._leadership.writing() as connection:
                stored = rollouts.get(connection, key)
                terms.before(connection, stored)
                owes = self._advance(connection, stored, event, by, reason)
                terms.after(connection, key)
            if owes:
                self._carrier.kick()

    def _tell_done(self, key: int, event: Event, instruction: int) -> None:
        """A fact that ends an instruction: either both are stored, or the instruction stays owed and is done again."""
        with self._lock, self._leadership.writing() as connection:
            rollouts.done(connection, instruction, self._now())
            self._advance(connection, rollouts.get(connection, key), event, "engine", "")

    def _advance(self, connection: Connection, stored: StoredRollout, event: Event, by: str, reason: str) -> bool:
        """Ask the engine, and store the new state with what it owes and its line of history. Does it owe anything?"""
        now, before = self._now(), stored.state
        state, instructions = engine.handle(before, event, now)
        is_changed = rollouts.standing(before) != rollouts.standing(state)
        new = replace(stored, state=state, revision=stored.revision + is_changed)
        rollouts.save(connection, new, instructions, now)
        if isinstance(event, Approved) and before.approved_by != state.approved_by:
            history.append(connection, Entry(now, by, state.model, stored.id, "approved", reason or NO_REASON))
        if (before.status, before.stage) != (state.status, state.stage):
            text = reason or progress(state, state.clock).summary
            history.append(connection, Entry(now, by, state.model, stored.id, state.status.value, text))
        return bool(instructions)

    # The clock

    def _run(self) -> None:
        while not self._stopping.wait(self._tick_s):
            try:
                if self._term is not None and self._term == self._leadership.term:
                    with self.watched.tick.time():
                        self.tick()
                else:
                    self._routing.refresh()
            except NotLeaderError as exc:
                log.warning("%s", exc)
            except DatabaseError as exc:
                self.watched.failed_ticks.inc()
                log.error("a tick failed, the next one tries again: %s", exc)
            except Exception:
                self.watched.failed_ticks.inc()
                log.exception("a tick failed; the next one tries again")

    def tick(self) -> None:
        """Observe every rollout under way, and see to the pools."""
        with self._leadership.reading() as connection:
            active = rollouts.active(connection)
        self._caretaker.look(active)
        for stored in active:
            self._observe(stored.id)
        if self._now() - self._forgot_at > FORGET_EVERY_S:
            self._forgot_at = self._now()
            with self._leadership.writing() as connection:
                observations.forget_before(connection, self._now() - self._kept_observations_s)

    def _observe(self, key: int) -> None:
        """Tell a rollout what was counted since its evidence was last brought up; store both in one transaction."""
        with self._lock:
            with self._leadership.writing() as connection:
                stored = rollouts.get(connection, key)
                state = stored.state
                if state.has_ended:
                    return
                windows, windows_seen = observations.windows_after(connection, state.model, stored.windows_seen)
                predictions, samples_seen = observations.predictions_after(connection, state.model, stored.samples_seen)
                wait_s = max(LABEL_WAIT_S, LABEL_WAIT_TIMES * state.plan.labels.delay_s)
                since = max(stored.created_at, self._now() - wait_s)
                judged = observations.newly_judged(connection, state.model, state.release, since)
                observations.mark_judged(connection, [one.id for one in judged])
                own = [window for window in windows if window.revision > stored.since_version]
                fact = observed(state, own, predictions, judged)
                seen = replace(stored, windows_seen=windows_seen, samples_seen=samples_seen)
                owes = self._advance(connection, seen, fact, "engine", "")
            if owes:
                self._carrier.kick()


def _check_signature(candidate: Release, stable: Release) -> None:
    """Raises RefusedError when clients of stable would not be served by the candidate."""
    if candidate.max_batch_size < stable.max_batch_size:
        raise RefusedError(
            f"{candidate.name} takes batches of {candidate.max_batch_size} rows where stable {stable.name} takes"
            f" {stable.max_batch_size}",
            f"export it with --max-batch-size {stable.max_batch_size}",
        )
    if candidate.signature != stable.signature:
        raise RefusedError(
            f"{candidate.name} does not match stable {stable.name}: it has {_shown(candidate)} where clients rely on"
            f" {_shown(stable)}",
            "export it under another model name, or with the same inputs and outputs",
        )


def _shown(release: Release) -> str:
    signature = release.signature
    ins, outs = (
        ", ".join(f"{one.name} {one.dtype}{list(one.dims)}" for one in side)
        for side in (signature.inputs, signature.outputs)
    )
    return f"({ins}) -> ({outs})"
