"""The gate of a stage: what is still missing before the rollout goes on.

Knows soak, requests and cleared guards. Knows nothing of harm, which is asked first and elsewhere, nor of what follows.
"""

from dataclasses import dataclass

from rollout.decision.rules import Guard
from rollout.decision.state import Rollout


@dataclass(frozen=True, slots=True)
class Gate:
    """What is missing: seconds of soak, requests of the candidate, guards that are not cleared."""

    soak_s: float
    requests: int
    guards: tuple[Guard, ...]

    @property
    def is_open(self) -> bool:
        return self.soak_s <= 0 and self.requests <= 0 and not self.guards


def gate_of(state: Rollout) -> Gate:
    """The gate of the stage that the rollout is in. What was never measured is not cleared."""
    rules = state.rules
    needed = state.plan.must_clear(state.stage)
    return Gate(
        soak_s=max(0.0, rules.soak_s - (state.clock - state.entered_at)),
        requests=max(0, rules.min_requests - state.stage_requests),
        guards=tuple(g for g in Guard if g in needed and not state.evidence.is_cleared(state.plan, g)),
    )
