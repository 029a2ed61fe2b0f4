"""The gate of a stage: what is still missing before the rollout goes on.

Knows soak, requests, cleared guards, the step's budget, approvals and hours. Knows nothing of harm, which is asked
first and elsewhere, nor of what follows.
"""

from dataclasses import dataclass

from rollout.decision.guards import Guard
from rollout.decision.state import Rollout


@dataclass(frozen=True, slots=True)
class Gate:
    """What is missing: data at all, seconds of soak, the candidate's requests, guards to be cleared, approvals."""

    silent_s: float
    soak_s: float
    requests: int
    guards: tuple[Guard, ...]
    is_within_budget: bool
    approvals: int
    is_within_hours: bool

    @property
    def has_evidence(self) -> bool:
        """Is nothing missing but people and hours?"""
        return (
            self.silent_s <= 0 and self.soak_s <= 0 and self.requests <= 0 and not self.guards and self.is_within_budget
        )

    @property
    def has_people(self) -> bool:
        return self.approvals <= 0 and self.is_within_hours

    @property
    def is_open(self) -> bool:
        return self.has_evidence and self.has_people


def gate_of(state: Rollout) -> Gate:
    """The gate of the stage that the rollout is in. What was never measured is not cleared."""
    rules, plan, step = state.rules, state.plan, state.evidence.step
    needed = plan.must_clear(state.stage)
    return Gate(
        silent_s=state.silent_s,
        soak_s=max(0.0, rules.soak_s - (state.clock - state.entered_at)),
        requests=max(0, rules.min_requests - state.stage_requests),
        guards=tuple(g for g in Guard if g in needed and not state.evidence.is_cleared(plan, g)),
        is_within_budget=step is None or step.is_shown(plan.beta),
        approvals=state.approvals_missing,
        is_within_hours=plan.may_go_on(state.clock),
    )
