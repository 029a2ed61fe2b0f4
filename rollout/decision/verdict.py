"""Verdicts: what the evidence says about each guard, in plain words with the numbers, and where the rollout stands.

Knows how to read evidence. Decides nothing: what a verdict leads to is in `journey`.
"""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from enum import StrEnum
from typing import Any

from rollout.decision.evidence import clear_needed, harm_needed, late_needed
from rollout.decision.feasibility import MIRRORED
from rollout.decision.gate import Gate, gate_of
from rollout.decision.guards import Guard
from rollout.decision.interval import Interval
from rollout.decision.rules import Drift
from rollout.decision.state import Decision, Point, Rollout, Status
from rollout.decision.words import against, divided, drifted, estimate, intervals, percent


class Finding(StrEnum):
    """What is known about a guard. Invalid means that nothing was measured where something should have been."""

    HARMED = "harmed"
    CLEARED = "cleared"
    UNDECIDED = "undecided"
    INVALID = "invalid"


@dataclass(frozen=True, slots=True)
class Verdict:
    """One guard's finding. `harm` and `clear` are the evidence as a share of what is needed, in logs, 0 to 1.

    `intervals` are the estimates by name (a latency's by level), `needs` says what it would take to decide.
    """

    guard: Guard
    finding: Finding
    is_required: bool
    harm: float
    clear: float
    intervals: Mapping[str, Interval]
    reason: str
    needs: str


@dataclass(frozen=True, slots=True)
class Check:
    """Is what was counted fit to be compared? `share`: were requests divided as meant? `drift`: are answers alike?"""

    name: str
    is_failed: bool
    reason: str


@dataclass(frozen=True, slots=True)
class Progress:
    """Where a rollout stands, for people. `stage` counts from 1 and is `stages` + 1 while baking."""

    model: str
    release: int
    stable: int | None
    status: Status
    phase: Status
    stage: int
    stages: int
    weight: float
    shadow_share: float
    seconds_in_stage: float
    requests: int
    attempt: int
    approved_by: tuple[str, ...]
    verdicts: tuple[Verdict, ...]
    checks: tuple[Check, ...]
    trail: tuple[Point, ...]
    waiting_for: tuple[str, ...]
    decision: Decision | None
    summary: str


def progress(state: Rollout, now: float) -> Progress:
    """Where the rollout stands at `now`, on the evidence of its last fact."""
    state = state if state.has_ended else state.at(now)
    is_promoted = state.status is Status.PROMOTED
    waiting = waiting_for(state)
    return Progress(
        model=state.model,
        release=state.release,
        stable=state.stable,
        status=state.status,
        phase=state.phase,
        stage=state.stage + 1,
        stages=len(state.plan.stages),
        weight=1.0 if is_promoted else state.rules.weight if state.is_routed else 0.0,
        shadow_share=state.rules.shadow_share if state.is_routed else 0.0,
        seconds_in_stage=state.clock - state.entered_at,
        requests=state.requests,
        attempt=state.attempt,
        approved_by=state.approved_by,
        verdicts=tuple(verdict_of(state, guard) for guard in state.plan.guards.enabled),
        checks=checks_of(state),
        trail=state.trail,
        waiting_for=waiting,
        decision=state.decision,
        summary=_summary(state, waiting),
    )


def outline(state: Rollout) -> dict[str, Any]:
    """What a list shows of a rollout, by the names of `Progress`."""
    return {
        "stable": state.stable,
        "phase": state.phase.value,
        "stage": state.stage + 1,
        "stages": len(state.plan.stages),
        "requests": state.requests,
        "attempt": state.attempt,
        "decision": None if state.decision is None else asdict(state.decision),
        "summary": _summary(state, waiting_for(state, is_brief=True)),
    }


def verdict_of(state: Rollout, guard: Guard) -> Verdict:
    """What the evidence says about this guard."""
    plan, evidence = state.plan, state.evidence.of(guard)
    return Verdict(
        guard,
        _finding(state, guard),
        guard in plan.guards.required,
        _share(evidence.log_harm, harm_needed(plan, guard)),
        _share(evidence.log_clear, clear_needed(plan)),
        intervals(evidence),
        f"{estimate(guard, evidence)}; {_bounds(state, guard)}",
        _needs(state, guard),
    )


def checks_of(state: Rollout) -> tuple[Check, ...]:
    """Whether what was counted is fit to be compared."""
    plan, evidence = state.plan, state.evidence
    checks = [Check("share", evidence.share.is_broken(plan), check_reason(state, "share"))]
    if plan.checks.drift is not Drift.OFF:
        checks.append(Check("drift", evidence.drift.is_shown(plan), check_reason(state, "drift")))
    return tuple(checks)


def check_reason(state: Rollout, name: str) -> str:
    """What a data check saw, and what it means when it failed."""
    plan, evidence = state.plan, state.evidence
    if name == "drift":
        seen = drifted(evidence.drift)
        return f"answers differ from stable's: {seen}" if evidence.drift.is_shown(plan) else seen
    seen = divided(evidence.share)
    if not evidence.share.is_broken(plan):
        return seen
    return (
        f"nothing can be compared, since {seen}: are requests assigned by a key that few clients share?"
        " Resuming begins the evidence anew; checks.share_tolerance says how far off is tolerated"
    )


def harm_reason(state: Rollout, guard: Guard) -> str:
    """Why a guard takes the candidate back."""
    evidence = state.evidence.of(guard)
    return f"{estimate(guard, evidence)}; evidence of harm {against(evidence.log_harm, harm_needed(state.plan, guard))}"


def late_reason(state: Rollout, guard: Guard) -> str:
    """Why a guard takes the candidate back while it bakes, though it was fine before."""
    evidence = state.evidence.of(guard)
    shown = against(evidence.log_late, late_needed(state.plan))
    return f"worse since it bakes; over the whole rollout {estimate(guard, evidence)}; evidence of late harm {shown}"


def waiting_for(state: Rollout, is_brief: bool = False) -> tuple[str, ...]:
    """What must happen before the rollout goes on; empty when nothing is missing, or when it has ended.

    Brief, it goes without estimates: their intervals take milliseconds, and outlines are made at every tick.
    """
    if state.has_ended:
        return ()
    match state.status:
        case Status.PENDING:
            return ("its start",)
        case Status.WARMING:
            if state.is_pool_ready:
                return _people(state, state.approvals_missing, state.plan.may_go_on(state.clock))
            return (f"the pool of {state.model}/{state.release} to become ready",)
        case Status.HELD:
            return ("someone to resume it",)
        case _:
            return _missing(state, gate_of(state), is_brief)


def _finding(state: Rollout, guard: Guard) -> Finding:
    if state.evidence.is_harmed(state.plan, guard):
        return Finding.HARMED
    if state.evidence.is_cleared(state.plan, guard):
        return Finding.CLEARED
    has_soaked = state.is_routed and state.clock - state.entered_at >= state.rules.soak_s
    is_expected = guard in MIRRORED or state.rules.weight > 0
    if has_soaked and is_expected and state.evidence.of(guard).size == 0:
        return Finding.INVALID
    return Finding.UNDECIDED


def _share(log_e: float, needed: float) -> float:
    return min(1.0, max(0.0, log_e / needed))


def _bounds(state: Rollout, guard: Guard) -> str:
    evidence = state.evidence.of(guard)
    harm = against(evidence.log_harm, harm_needed(state.plan, guard))
    clear = against(evidence.log_clear, clear_needed(state.plan))
    return f"evidence of harm {harm}, of being clear {clear}"


def _missing(state: Rollout, gate: Gate, is_brief: bool) -> tuple[str, ...]:
    missing = []
    if gate.silent_s > 0:
        missing.append(f"data: nothing was counted for {gate.silent_s:,.0f} s")
    if gate.soak_s > 0:
        missing.append(f"{gate.soak_s:,.0f} s more of this stage")
    if gate.requests > 0:
        missing.append(f"{gate.requests:,} more requests")
    for guard in gate.guards:
        evidence = state.evidence.of(guard)
        clear = against(evidence.log_clear, clear_needed(state.plan))
        seen = "" if is_brief else f"; {estimate(guard, evidence)}"
        missing.append(f"{guard.value} to be cleared ({clear}{seen})")
    if not gate.is_within_budget:
        assert state.evidence.step is not None
        most = percent(state.evidence.step.margin)
        missing.append(f"errors to be shown less than {most} above stable's, as the next stage's budget needs")
    return (*missing, *_people(state, gate.approvals, gate.is_within_hours))


def _people(state: Rollout, approvals: int, is_within_hours: bool) -> tuple[str, ...]:
    """What does not come from evidence."""
    missing = []
    if approvals:
        who = "one person" if approvals == 1 else f"{approvals} people"
        missing.append(f"approval by {who}{' more' if state.approved_by else ''}: `sluice rollout approve`")
    if not is_within_hours:
        missing.append("the plan's hours")
    return tuple(missing)


def _needs(state: Rollout, guard: Guard) -> str:
    """What it would take to decide, at the pace of the evidence since the stage began."""
    evidence, plan = state.evidence.of(guard), state.plan
    if _finding(state, guard) in (Finding.HARMED, Finding.CLEARED):
        return "nothing"
    points = [point for point in state.trail if point.stage == state.stage]
    if not points or evidence.size == 0:
        return "not known yet"
    seconds = state.clock - points[0].clock
    for name, log_e, needed, before in (
        ("cleared", evidence.log_clear, clear_needed(plan), points[0].clear.get(guard.value, 0.0)),
        ("harmed", evidence.log_harm, harm_needed(plan, guard), points[0].harm.get(guard.value, 0.0)),
    ):
        gained = log_e - before * needed
        if seconds > 0 and gained > 0.1:
            return f"about {(needed - log_e) / gained * seconds:,.0f} s more at this pace to be {name}"
    return "more requests, or a larger weight: the evidence does not grow"


def _summary(state: Rollout, waiting: tuple[str, ...]) -> str:
    name = f"{state.model}/{state.release}"
    if state.decision is not None:
        ended = f"{name} is {state.status.value.replace('_', ' ')} ({state.decision.by}): {state.decision.reason}"
        return f"{ended}, after {state.decision.requests:,} requests and {state.decision.seconds:,.0f} s"
    if state.hold is not None:
        return f"{name} is held in {state.hold.origin.value} by {state.hold.by}: {state.hold.reason}"
    where = f" at {percent(state.rules.weight)}" if state.is_routed and state.rules.weight else ""
    return f"{name} is {state.status.value}{where}, waiting for {'; '.join(waiting) or 'the next observation'}"
