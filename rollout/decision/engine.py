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
    Event,
    Held,
    Observed,
    PoolBecameReady,
    PoolFailed,
    PoolLost,
    Resumed,
    RolloutStarted,
)
from rollout.decision.evidence import Evidence
from rollout.decision.instructions import Announce, StartPool
from rollout.decision.journey import Step
from rollout.decision.rules import Plan
from rollout.decision.state import ENDED, Decision, Hold, Rollout, Status


class UnexpectedEventError(ValueError):
    """A fact that cannot follow on this state; names both. Nothing was changed."""


def start(model: str, release: int, stable: int | None, plan: Plan, salt: str) -> Rollout:
    """A rollout of `release` over `stable`; without a stable release it is the model's first.

    Raises:
        ValueError: the candidate is the stable release.
    """
    if release == stable:
        raise ValueError(f"{model}/{release} is the stable release already")
    return Rollout(model, release, stable, plan, salt, Evidence.begin(plan))


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
    return replace(state, is_pool_ready=state.is_pool_ready or event.release == state.release), ()


def _lose_pool(state: Rollout, event: PoolFailed | PoolLost) -> Step:
    if event.release != state.release:
        return state, ()
    if state.is_routed:
        return journey.roll_back(state, "server", f"its pool was lost: {event.reason}")
    return journey.fail(state, event.reason)


def _pass_time(state: Rollout, _: Observed) -> Step:
    return state, ()


def _observe(state: Rollout, event: Observed) -> Step:
    seen = journey.with_evidence(state, event)
    return journey.harm_step(seen) or journey.gate_step(seen) or journey.patience_step(seen) or (seen, ())


def _observe_held(state: Rollout, event: Observed) -> Step:
    if not state.is_routed:
        return state, ()
    seen = journey.with_evidence(state, event)
    return journey.harm_step(seen) or (seen, ())


def _hold(state: Rollout, event: Held) -> Step:
    hold = Hold(event.by, event.reason, state.clock, state.status)
    text = f"{state.model}/{state.release} is held by {event.by} in {state.status.value}: {event.reason}"
    return replace(state, status=Status.HELD, hold=hold), (Announce(text),)


def _resume(state: Rollout, event: Resumed) -> Step:
    """Back to where it was, with the plan's patience anew: someone has looked at it."""
    deadline = state.clock + state.plan.longest_s
    resumed = replace(state, status=state.phase, hold=None, deadline=deadline)
    note = Announce(f"{state.model}/{state.release} goes on, resumed by {event.by}: {event.reason}")
    if resumed.status is Status.WARMING and resumed.is_pool_ready:
        onward, instructions = journey.leave_warming(resumed)
        return onward, (*instructions, note)
    return resumed, (note,)


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
    Aborted: _abort,
}
_ROUTED: Mapping[type[Event], Transition] = {
    PoolBecameReady: _note_ready_pool,
    PoolFailed: _lose_pool,
    PoolLost: _lose_pool,
    Observed: _observe,
    Held: _hold,
    Aborted: _abort,
}
_HELD: Mapping[type[Event], Transition] = {
    PoolBecameReady: _note_ready_pool,
    PoolFailed: _lose_pool,
    PoolLost: _lose_pool,
    Observed: _observe_held,
    Resumed: _resume,
    Aborted: _abort,
}
# What was under way when the rollout ended still arrives; people's wishes come too late.
_ENDED: Mapping[type[Event], Transition] = {
    PoolBecameReady: _arrive_late,
    PoolFailed: _arrive_late,
    PoolLost: _arrive_late,
    Observed: _arrive_late,
}

_PENDING: Mapping[type[Event], Transition] = {RolloutStarted: _begin, Observed: _pass_time, Aborted: _abort_pending}
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
