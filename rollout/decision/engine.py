"""The engine: one fact and the time in, the next state and what is to be done out.

Knows the way of a rollout: which facts may arrive where, and what follows. Knows nothing of pools, gateways or storage.

    pending -> warming -> shadow -> canary ... -> baking -> promoted
                  |          |         |            |
                  v          +---------+------------+--> rolled back      (held and resumed from any of them,
                failed                                                     aborted from anywhere but the end)

Laws: a pool is ready before it is routed, routed away before it is stopped, and a change is announced last. Harm is
asked before anything else. Without data nothing is cleared, so nothing is promoted.
"""

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

from rollout.decision import journey
from rollout.decision.events import (
    Aborted,
    Approved,
    Event,
    Held,
    Observed,
    PoolBecameReady,
    PoolFailed,
    PoolLost,
    Promoted,
    Resumed,
    RolledBack,
    RolloutStarted,
)
from rollout.decision.evidence import Evidence
from rollout.decision.instructions import Announce, StartPool
from rollout.decision.journey import Step
from rollout.decision.rules import Plan
from rollout.decision.state import ENDED, Decision, Hold, Rollout, Status


class UnexpectedEventError(ValueError):
    """A fact that cannot follow on this state; names both. Nothing was changed."""


def start(
    model: str, release: int, stable: int | None, plan: Plan, salt: str, attempt: int = 1, direct: str = ""
) -> Rollout:
    """A rollout of `release` over `stable`; without a stable release it is the model's first.

    `attempt` counts the rollouts of this pair, this one included: each spends less of alpha and beta. With a reason
    for a `direct` one it is promoted as soon as its pool is ready.

    Raises:
        ValueError: the candidate is the stable release.
    """
    if release == stable:
        raise ValueError(f"{model}/{release} is the stable release already")
    spent = plan.attempted(attempt)
    return Rollout(model, release, stable, spent, salt, Evidence.begin(spent), attempt=attempt, direct=direct)


def handle(state: Rollout, event: Event, now: float) -> Step:
    """The state after `event`, and the instructions to carry out in this order. `now` in seconds of any one clock.

    Raises:
        UnexpectedEventError: this event cannot follow on this state.
    """
    transition = TRANSITIONS.get((state.status, type(event)))
    if transition is None:
        name = f"{state.model}/{state.release}"
        raise UnexpectedEventError(f"{name} is {state.status.value}: {type(event).__name__} cannot follow")
    return transition(state if state.has_ended else state.at(now), event)


def _begin(state: Rollout, _: RolloutStarted) -> Step:
    begun = replace(state, status=Status.WARMING, started_at=state.clock, entered_at=state.clock)
    return replace(begun, deadline=state.clock + state.plan.longest_s), (
        StartPool(state.release),
        Announce(f"{state.model}/{state.release} is warming"),
    )


def _take_ready_pool(state: Rollout, event: PoolBecameReady) -> Step:
    if event.release != state.release:
        return state, ()
    return journey.leave_warming(replace(state, is_pool_ready=True))


def _note_ready_pool(state: Rollout, event: PoolBecameReady) -> Step:
    """A pool of one of the two came back: it is cold."""
    is_pool_ready = state.is_pool_ready or event.release == state.release
    is_one_of_us = event.release in (state.release, state.stable)
    return replace(state, is_pool_ready=is_pool_ready, changed_at=state.clock if is_one_of_us else state.changed_at), ()


def _lose_pool(state: Rollout, event: PoolFailed | PoolLost) -> Step:
    if event.release != state.release:
        return state, ()
    if state.is_routed:
        return journey.roll_back(state, "server", f"its pool was lost: {event.reason}")
    return journey.fail(state, event.reason)


def _pass_time(state: Rollout, _: Observed) -> Step:
    """It may only have waited for the plan's hours."""
    return journey.leave_warming(state) if state.is_pool_ready else (state, ())


def _pass_pending_time(state: Rollout, _: Observed) -> Step:
    return state, ()


def _observe(state: Rollout, event: Observed) -> Step:
    seen = journey.with_evidence(state, event)
    for step in (journey.breaker_step, journey.check_step, journey.harm_step, journey.gate_step, journey.patience_step):
        taken = step(seen)
        if taken is not None:
            return taken
    return journey.noting_people(seen), ()


def _observe_held(state: Rollout, event: Observed) -> Step:
    if not state.is_routed:
        return state, ()
    seen = journey.with_evidence(state, event)
    return journey.breaker_step(seen) or journey.harm_step(seen) or (seen, ())


def _approve(state: Rollout, event: Approved) -> Step:
    """Noted once for each person; the step itself is taken with the next observation."""
    if event.by in state.approved_by:
        return state, ()
    approved = replace(state, approved_by=(*state.approved_by, event.by))
    reason = f": {event.reason}" if event.reason else ""
    return approved, (Announce(f"the next step of {state.model}/{state.release} is approved by {event.by}{reason}"),)


def _hold(state: Rollout, event: Held) -> Step:
    hold = Hold(event.by, event.reason, state.clock, state.status)
    text = f"{state.model}/{state.release} is held by {event.by} in {state.status.value}: {event.reason}"
    return replace(state, status=Status.HELD, hold=hold), (Announce(text),)


def _resume(state: Rollout, event: Resumed) -> Step:
    """Back to where it was, with the plan's patience anew: someone has looked at it.

    What was not fit to be compared is forgotten; answers that drift are known.
    """
    evidence, held_by = state.evidence, state.hold.by if state.hold else ""
    if held_by == "share":
        step = None if evidence.step is None else evidence.step.anew()
        evidence = replace(Evidence.begin(state.plan), step=step)
        evidence = evidence.baking(state.plan, state.block) if state.phase is Status.BAKING else evidence
    is_drift_known = state.is_drift_known or held_by == "drift"
    resumed = replace(
        state, status=state.phase, hold=None, deadline=state.clock + state.plan.longest_s, evidence=evidence,
        is_drift_known=is_drift_known,
    )  # fmt: skip
    note = Announce(f"{state.model}/{state.release} goes on, resumed by {event.by}: {event.reason}")
    if resumed.status is Status.WARMING and resumed.is_pool_ready:
        onward, instructions = journey.leave_warming(resumed)
        return onward, (*instructions, note)
    return resumed, (note,)


def _promote(state: Rollout, event: Promoted) -> Step:
    """At once, or as soon as its pool is ready."""
    reason = f"promoted by {event.by}: {event.reason}"
    if state.is_pool_ready:
        return journey.promote(state, "engineer", reason)
    note = Announce(f"{state.model}/{state.release} will be promoted as soon as its pool is ready, by {event.by}")
    return replace(state, direct=reason), (note,)


def _roll_back(state: Rollout, event: RolledBack) -> Step:
    return journey.roll_back(state, "engineer", f"rolled back by {event.by}: {event.reason}")


def _abort(state: Rollout, event: Aborted) -> Step:
    decision = journey.decide(state, "engineer", f"aborted by {event.by}: {event.reason}")
    return journey.withdraw(state, Status.ABORTED, decision)


def _abort_pending(state: Rollout, event: Aborted) -> Step:
    reason = f"aborted by {event.by}: {event.reason}"
    return replace(state, status=Status.ABORTED, decision=Decision("engineer", reason, 0, 0.0)), ()


def _arrive_late(state: Rollout, _: Event) -> Step:
    return state, ()


Transition = Callable[[Rollout, Any], Step]
"""Each takes the one kind of event under whose name it stands in the table."""

_WARMING: Mapping[type[Event], Transition] = {
    PoolBecameReady: _take_ready_pool,
    PoolFailed: _lose_pool,
    PoolLost: _lose_pool,
    Observed: _pass_time,
    Held: _hold,
    Approved: _approve,
    Promoted: _promote,
    RolledBack: _roll_back,
    Aborted: _abort,
}
_ROUTED: Mapping[type[Event], Transition] = {
    PoolBecameReady: _note_ready_pool,
    PoolFailed: _lose_pool,
    PoolLost: _lose_pool,
    Observed: _observe,
    Held: _hold,
    Approved: _approve,
    Promoted: _promote,
    RolledBack: _roll_back,
    Aborted: _abort,
}
_HELD: Mapping[type[Event], Transition] = {
    PoolBecameReady: _note_ready_pool,
    PoolFailed: _lose_pool,
    PoolLost: _lose_pool,
    Observed: _observe_held,
    Resumed: _resume,
    Approved: _approve,
    Promoted: _promote,
    RolledBack: _roll_back,
    Aborted: _abort,
}
# What was under way when the rollout ended still arrives; people's wishes come too late.
_ENDED: Mapping[type[Event], Transition] = {
    PoolBecameReady: _arrive_late,
    PoolFailed: _arrive_late,
    PoolLost: _arrive_late,
    Observed: _arrive_late,
}

_PENDING: Mapping[type[Event], Transition] = {
    RolloutStarted: _begin,
    Observed: _pass_pending_time,
    Aborted: _abort_pending,
}
_ROWS: Mapping[Status, Mapping[type[Event], Transition]] = {
    Status.PENDING: _PENDING,
    Status.WARMING: _WARMING,
    Status.SHADOW: _ROUTED,
    Status.CANARY: _ROUTED,
    Status.BAKING: _ROUTED,
    Status.HELD: _HELD,
    **dict.fromkeys(ENDED, _ENDED),
}

TRANSITIONS: Mapping[tuple[Status, type[Event]], Transition] = {
    (status, event): transition for status, row in _ROWS.items() for event, transition in row.items()
}
"""All that may happen, by status and kind of event. What is missing is an error."""
