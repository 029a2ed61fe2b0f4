"""The steps of a rollout: into a stage, on to the next, to promotion, or back.

Knows what each step changes and which instructions it owes, in which order. Knows nothing of which facts lead to which
step: that is `engine`'s table.
"""

from dataclasses import replace

from gateway.routes import Candidate, Shadow
from rollout.decision.events import Observed
from rollout.decision.gate import gate_of
from rollout.decision.instructions import Announce, Instruction, ReplaceRoute, StopPool
from rollout.decision.rules import Inconclusive
from rollout.decision.state import Decision, Hold, Rollout, Status
from rollout.decision.verdict import harm_reason, waiting_for
from rollout.decision.words import percent

Step = tuple[Rollout, tuple[Instruction, ...]]


def decide(state: Rollout, by: str, reason: str) -> Decision:
    """The end of the rollout, with what it took."""
    seconds = 0.0 if state.routed_at is None else state.clock - state.routed_at
    return Decision(by, reason, state.requests, seconds)


def with_evidence(state: Rollout, event: Observed) -> Rollout:
    """The rollout after what was observed."""
    answered = sum(comparison.candidate.requests for comparison in event.comparisons)
    counted = event.mirrored.requests if state.rules.weight == 0 else answered
    return replace(
        state,
        evidence=state.evidence.add(state.plan, state.block, event, is_warm=state.is_warm),
        requests=state.requests + answered + event.mirrored.requests,
        stage_requests=state.stage_requests + counted,
    )


def harm_step(state: Rollout) -> Step | None:
    """Back to stable if harm is shown, the breaker first; else None."""
    tripped = state.evidence.tripped
    if tripped is not None:
        return roll_back(state, "breaker", f"{tripped.failures:,} of its last {tripped.requests:,} requests failed")
    for guard in state.plan.guards.enabled:
        if state.evidence.is_harmed(state.plan, guard):
            return roll_back(state, guard.value, harm_reason(state, guard))
    return None


def gate_step(state: Rollout) -> Step | None:
    """On to the next stage, to baking or to promotion when nothing is waited for any more; else None."""
    if not gate_of(state).is_open:
        return None
    if state.stage < len(state.plan.stages):
        return enter_stage(state, state.stage + 1)
    return promote(state, "cleared", "every required guard is cleared")


def patience_step(state: Rollout) -> Step | None:
    """What the plan says when the longest duration has passed without a decision; else None."""
    if state.clock < state.deadline:
        return None
    reason = f"inconclusive after {state.clock - state.started_at:,.0f} s: {'; '.join(waiting_for(state))}"
    match state.plan.inconclusive:
        case Inconclusive.ROLL_BACK:
            return roll_back(state, "inconclusive", reason)
        case Inconclusive.HOLD:
            hold = Hold("plan", reason, state.clock, state.status)
            held = replace(state, status=Status.HELD, hold=hold)
            return held, (Announce(f"{state.model}/{state.release} is held, {reason}"),)


def leave_warming(state: Rollout) -> Step:
    """The pool is ready: into the first stage, or to promotion when there is nothing to compare with."""
    if state.stable is None:
        return promote(state, "first release", "the model had no release before")
    return enter_stage(replace(state, routed_at=state.clock), 0)


def enter_stage(state: Rollout, stage: int) -> Step:
    """Into a stage; the one after the plan's last is baking."""
    assert state.stable is not None
    entered = replace(state, stage=stage, entered_at=state.clock, stage_requests=0)
    rules, release = entered.rules, state.release
    route = ReplaceRoute(
        state.stable,
        Candidate(release, rules.weight) if rules.weight > 0 else None,
        Shadow(release, rules.shadow_share) if rules.shadow_share > 0 else None,
    )
    if stage == len(state.plan.stages):
        status, text = Status.BAKING, f"is baking at {percent(rules.weight)}"
    elif rules.weight > 0:
        status, text = Status.CANARY, f"takes {percent(rules.weight)} of the traffic"
    else:
        status, text = Status.SHADOW, f"gets copies of {percent(rules.shadow_share)} of the traffic"
    return replace(entered, status=status), (route, Announce(f"{state.model}/{release} {text}"))


def promote(state: Rollout, by: str, reason: str) -> Step:
    """All traffic to the candidate; the old release drains and stops."""
    promoted = replace(state, status=Status.PROMOTED, decision=decide(state, by, reason))
    stop_old = () if state.stable is None else (StopPool(state.stable),)
    text = f"{state.model}/{state.release} is promoted: {reason}"
    return promoted, (ReplaceRoute(state.release), *stop_old, Announce(text))


def roll_back(state: Rollout, by: str, reason: str) -> Step:
    """All traffic back to stable, because of what was observed."""
    return withdraw(state, Status.ROLLED_BACK, decide(state, by, reason))


def fail(state: Rollout, reason: str) -> Step:
    """The pool never became ready; the route was not touched."""
    return withdraw(state, Status.FAILED, decide(state, "server", f"its pool did not become ready: {reason}"))


def withdraw(state: Rollout, status: Status, decision: Decision) -> Step:
    """Take the candidate out of the route, if it is in it, and stop it."""
    route: tuple[Instruction, ...] = ()
    if state.is_routed:
        assert state.stable is not None
        route = (ReplaceRoute(state.stable),)
    text = f"{state.model}/{state.release} is {status.value.replace('_', ' ')} ({decision.by}): {decision.reason}"
    ended = replace(state, status=status, hold=None, decision=decision)
    return ended, (*route, StopPool(state.release), Announce(text))
