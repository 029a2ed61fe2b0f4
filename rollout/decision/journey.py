"""The steps of a rollout: into a stage, on to the next, to promotion, or back.

Knows what each step changes and which instructions it owes, in which order. Knows nothing of which facts lead to which
step: that is `engine`'s table.
"""

from dataclasses import replace

from gateway.routes import Candidate, Shadow
from rollout.decision.budget import StepEvidence
from rollout.decision.events import Observed
from rollout.decision.evidence import clear_needed, harm_needed
from rollout.decision.gate import gate_of
from rollout.decision.guards import Guard
from rollout.decision.instructions import Announce, Instruction, ReplaceRoute, StopPool
from rollout.decision.rules import Drift, Inconclusive
from rollout.decision.state import TRAIL_MOST, Decision, Hold, Point, Rollout, Status
from rollout.decision.verdict import Finding, check_reason, harm_reason, late_reason, verdict_of, waiting_for
from rollout.decision.words import percent

Step = tuple[Rollout, tuple[Instruction, ...]]


def decide(state: Rollout, by: str, reason: str) -> Decision:
    """The end of the rollout, with what it took."""
    seconds = 0.0 if state.routed_at is None else state.clock - state.routed_at
    return Decision(by, reason, state.requests, seconds)


def with_evidence(state: Rollout, event: Observed) -> Rollout:
    """The rollout after what was observed."""
    answered = sum(arm.requests for arm in event.answered)
    stables = sum(comparison.stable.requests for comparison in event.comparisons)
    counted = event.mirrored.requests if state.rules.weight == 0 else answered
    is_new_block = not state.trail or state.block > state.block_at(state.trail[-1].clock)
    return replace(
        state,
        trail=_longer_trail(state) if is_new_block else state.trail,
        evidence=state.evidence.add(state.plan, state.block, event, is_warm=state.is_warm),
        heard_at=state.heard_at if event.is_silent else state.clock,
        requests=state.requests + answered + event.mirrored.requests,
        stage_requests=state.stage_requests + counted,
        stage_traffic=state.stage_traffic + (answered + stables or _copied_from(state, event)),
    )


def _copied_from(state: Rollout, event: Observed) -> int:
    """Before the candidate has a weight nothing is compared: then its copies tell how many requests there were."""
    share = state.rules.shadow_share
    return round(event.mirrored.requests / share) if share else 0


def _longer_trail(state: Rollout) -> tuple[Point, ...]:
    """The evidence over time, with what it has come to before this block."""
    plan, evidence = state.plan, state.evidence
    harm = {g.value: evidence.of(g).log_harm / harm_needed(plan, g) for g in plan.guards.enabled}
    clear = {g.value: evidence.of(g).log_clear / clear_needed(plan) for g in plan.guards.enabled}
    trail = (*state.trail, Point(state.clock, state.stage, harm, clear))
    return trail if len(trail) <= TRAIL_MOST else trail[::2]


def breaker_step(state: Rollout) -> Step | None:
    """Back to stable when the candidate fails nearly everything; else None."""
    tripped = state.evidence.tripped
    if tripped is None:
        return None
    return roll_back(state, "breaker", f"{tripped.failures:,} of its last {tripped.requests:,} requests failed")


def check_step(state: Rollout) -> Step | None:
    """Held when what was counted is not fit to be compared, or people should look at it; else None."""
    if state.evidence.share.is_broken(state.plan):
        return hold(state, "share", check_reason(state, "share"))
    is_watched = state.plan.checks.drift is Drift.HOLD and not state.is_drift_known
    if is_watched and state.evidence.drift.is_shown(state.plan):
        return hold(state, "drift", check_reason(state, "drift"))
    return None


def harm_step(state: Rollout) -> Step | None:
    """Back to stable if harm is shown; else None. Numbers that are not fit to be compared show nothing."""
    if state.evidence.share.is_broken(state.plan):
        return None
    plan, evidence, is_baking = state.plan, state.evidence, state.phase is Status.BAKING
    for guard in plan.guards.enabled:
        if evidence.is_harmed(plan, guard):
            return roll_back(state, guard.value, harm_reason(state, guard))
        if is_baking and evidence.is_harmed_late(plan, guard):
            return roll_back(state, guard.value, late_reason(state, guard))
    return None


def gate_step(state: Rollout) -> Step | None:
    """On to the next stage, to baking or to promotion when nothing is waited for any more; else None."""
    has_soaked = state.clock - state.entered_at >= state.rules.soak_s
    if not has_soaked or not gate_of(state).is_open:
        return None
    if state.stage < len(state.plan.stages):
        return enter_stage(state, state.stage + 1)
    return promote(state, "cleared", "every required guard is cleared")


def patience_step(state: Rollout) -> Step | None:
    """What the plan says when the longest duration has passed without a decision; else None.

    Without data it is held, whatever the plan says.
    """
    if state.clock < state.deadline or gate_of(state).has_evidence:
        return None
    reason = f"inconclusive after {state.clock - state.started_at:,.0f} s: {'; '.join(waiting_for(state))}"
    match state.plan.inconclusive:
        case _ if state.silent_s:
            return hold(state, "plan", reason)
        case Inconclusive.ROLL_BACK:
            return roll_back(state, "inconclusive", reason)
        case Inconclusive.EXTEND if not state.is_extended:
            extended = replace(state, is_extended=True, deadline=state.clock + state.plan.longest_s)
            return extended, (Announce(f"{state.model}/{state.release} gets as long once more: {reason}"),)
        case Inconclusive.PROMOTE_IF_UNHARMED if _is_seen_unharmed(state):
            return promote(state, "inconclusive", f"not shown to be harmful, not shown to be good either; {reason}")
        case _:
            return hold(state, "plan", reason)


def _is_seen_unharmed(state: Rollout) -> bool:
    """Was all that is asked for measured, up to the last weight, without harm? Nothing measured is no success."""
    gate = gate_of(state)
    if state.stage < len(state.plan.stages) - 1 or gate.soak_s > 0 or gate.requests > 0 or not gate.has_people:
        return False
    required = state.plan.guards.required
    return all(verdict_of(state, guard).finding is not Finding.INVALID for guard in Guard if guard in required)


def noting_people(state: Rollout) -> Rollout:
    """Whether it waits for people or hours alone: its patience for evidence stands still meanwhile."""
    has_soaked = state.clock - state.entered_at >= state.rules.soak_s
    waits = has_soaked and gate_of(state).has_evidence
    return state if waits is state.waits_for_people else replace(state, waits_for_people=waits)


def hold(state: Rollout, by: str, reason: str) -> Step:
    """Stay here until someone resumes it."""
    held = replace(state, status=Status.HELD, hold=Hold(by, reason, state.clock, state.status))
    return held, (Announce(f"{state.model}/{state.release} is held in {state.status.value} by {by}: {reason}"),)


def leave_warming(state: Rollout) -> Step:
    """The pool is ready: into the first stage, or to promotion when there is nothing to compare with."""
    if state.stable is None:
        return promote(state, "first release", "the model had no release before")
    if state.direct:
        return promote(state, "engineer", state.direct)
    if state.approvals_missing or not state.plan.may_go_on(state.clock):
        return state, ()
    routed = replace(state, routed_at=state.clock, heard_at=state.clock, deadline=state.clock + state.plan.longest_s)
    return enter_stage(routed, 0)


def enter_stage(state: Rollout, stage: int) -> Step:
    """Into a stage; the one after the plan's last is baking."""
    assert state.stable is not None
    step = _step_to(state, stage + 1)
    entered = replace(
        state, stage=stage, entered_at=state.clock, changed_at=state.clock, stage_requests=0, stage_traffic=0,
        approved_by=(), waits_for_people=False, evidence=replace(state.evidence, step=step),
    )  # fmt: skip
    rules, release = entered.rules, state.release
    route = ReplaceRoute(
        state.stable,
        Candidate(release, rules.weight) if rules.weight > 0 else None,
        Shadow(release, rules.shadow_share) if rules.shadow_share > 0 else None,
    )
    if stage == len(state.plan.stages):
        status, text = Status.BAKING, f"is baking at {percent(rules.weight)}"
        entered = replace(entered, evidence=entered.evidence.baking(state.plan, entered.block))
    elif rules.weight > 0:
        status, text = Status.CANARY, f"takes {percent(rules.weight)} of the traffic"
    else:
        status, text = Status.SHADOW, f"gets copies of {percent(rules.shadow_share)} of the traffic"
    return replace(entered, status=status), (route, Announce(f"{state.model}/{release} {text}"))


def _step_to(state: Rollout, following: int) -> StepEvidence | None:
    """What must be shown before the stage `following` is entered, at the rate of requests of the stage before."""
    plan, seconds = state.plan, state.clock - state.entered_at
    if not plan.extra_bad_requests or following > len(plan.stages) or plan.stages[following - 1].weight == 0:
        return None
    ahead = plan.baking if following == len(plan.stages) else plan.stages[following]
    rate = state.stage_traffic / seconds if seconds > 0 else 0.0
    requests = ahead.weight * rate * ahead.soak_s
    return StepEvidence.begin(plan.extra_bad_requests, requests, plan.guards.errors.clear_floor)


def promote(state: Rollout, by: str, reason: str) -> Step:
    """All traffic to the candidate; the old release drains and stops."""
    promoted = replace(state, status=Status.PROMOTED, hold=None, decision=decide(state, by, reason))
    stop_old = () if state.stable is None else (StopPool(state.stable),)
    text = f"{state.model}/{state.release} is promoted: {reason}"
    return promoted, (ReplaceRoute(state.release), *stop_old, Announce(text))


def roll_back(state: Rollout, by: str, reason: str) -> Step:
    """All traffic back to stable: the candidate was found bad."""
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
