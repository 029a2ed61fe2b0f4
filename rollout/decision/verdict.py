"""Verdicts: what the evidence says about each guard, in plain words with the numbers, and where the rollout stands.

Knows how to read evidence. Decides nothing: what a verdict leads to is in `journey`.
"""

from dataclasses import dataclass
from enum import StrEnum

from rollout.decision.evidence import clear_needed, harm_needed
from rollout.decision.gate import Gate, gate_of
from rollout.decision.rules import Guard
from rollout.decision.state import Decision, Rollout, Status
from rollout.decision.words import against, estimate, percent


class Finding(StrEnum):
    """What is known about a guard. Invalid means that nothing was measured where something should have been."""

    HARMED = "harmed"
    CLEARED = "cleared"
    UNDECIDED = "undecided"
    INVALID = "invalid"


@dataclass(frozen=True, slots=True)
class Verdict:
    """One guard's finding. `harm` and `clear` are the evidence as a share of what is needed, in logs, 0 to 1."""

    guard: Guard
    finding: Finding
    is_required: bool
    harm: float
    clear: float
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
    verdicts: tuple[Verdict, ...]
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
        verdicts=tuple(verdict_of(state, guard) for guard in state.plan.guards.enabled),
        waiting_for=waiting,
        decision=state.decision,
        summary=_summary(state, waiting),
    )


def verdict_of(state: Rollout, guard: Guard) -> Verdict:
    """What the evidence says about this guard."""
    plan, evidence = state.plan, state.evidence.of(guard)
    return Verdict(
        guard,
        _finding(state, guard),
        guard in plan.guards.required,
        _share(evidence.log_harm, harm_needed(plan, guard)),
        _share(evidence.log_clear, clear_needed(plan)),
        f"{estimate(evidence)}; {_bounds(state, guard)}",
    )


def harm_reason(state: Rollout, guard: Guard) -> str:
    """Why a guard takes the candidate back."""
    evidence = state.evidence.of(guard)
    return f"{estimate(evidence)}; evidence of harm {against(evidence.log_harm, harm_needed(state.plan, guard))}"


def waiting_for(state: Rollout) -> tuple[str, ...]:
    """What must happen before the rollout goes on; empty when nothing is missing, or when it has ended."""
    if state.has_ended:
        return ()
    match state.status:
        case Status.PENDING:
            return ("its start",)
        case Status.WARMING:
            return (f"the pool of {state.model}/{state.release} to become ready",)
        case Status.HELD:
            return ("someone to resume it",)
        case _:
            return _missing(state, gate_of(state))


def _finding(state: Rollout, guard: Guard) -> Finding:
    if state.evidence.is_harmed(state.plan, guard):
        return Finding.HARMED
    if state.evidence.is_cleared(state.plan, guard):
        return Finding.CLEARED
    has_soaked = state.is_routed and state.clock - state.entered_at >= state.rules.soak_s
    is_expected = guard in (Guard.AGREEMENT, Guard.QUALITY) or state.rules.weight > 0
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


def _missing(state: Rollout, gate: Gate) -> tuple[str, ...]:
    missing = []
    if gate.soak_s > 0:
        missing.append(f"{gate.soak_s:,.0f} s more of this stage")
    if gate.requests > 0:
        missing.append(f"{gate.requests:,} more requests")
    for guard in gate.guards:
        evidence = state.evidence.of(guard)
        clear = against(evidence.log_clear, clear_needed(state.plan))
        missing.append(f"{guard.value} to be cleared ({clear}; {estimate(evidence)})")
    return tuple(missing)


def _summary(state: Rollout, waiting: tuple[str, ...]) -> str:
    name = f"{state.model}/{state.release}"
    if state.decision is not None:
        ended = f"{name} is {state.status.value.replace('_', ' ')} ({state.decision.by}): {state.decision.reason}"
        return f"{ended}, after {state.decision.requests:,} requests and {state.decision.seconds:,.0f} s"
    if state.hold is not None:
        return f"{name} is held in {state.hold.origin.value} by {state.hold.by}: {state.hold.reason}"
    where = f" at {percent(state.rules.weight)}" if state.is_routed and state.rules.weight else ""
    return f"{name} is {state.status.value}{where}, waiting for {'; '.join(waiting) or 'the next observation'}"
