"""All evidence of one rollout: one running pair of e-processes a guard, from the first request to the last.

Knows which counts feed which guard. Knows nothing of stages: a change of weight changes the weight of later increments
and nothing else, so looking often, and ramping, cost nothing.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from rollout.decision.breaker import Breaker
from rollout.decision.events import Observed
from rollout.decision.live import ErrorEvidence, LatencyEvidence
from rollout.decision.paired import AgreementEvidence, QualityEvidence
from rollout.decision.rules import Guard, Plan

GuardEvidence = ErrorEvidence | LatencyEvidence | AgreementEvidence | QualityEvidence


@dataclass(frozen=True, slots=True)
class Evidence:
    """The evidence of every guard, and two breakers: one for what the candidate answered, one for its copies.

    Apart, since copies that go well must not hide answers that do not.
    """

    errors: ErrorEvidence
    latency: LatencyEvidence
    agreement: AgreementEvidence
    quality: QualityEvidence
    answered: Breaker = field(default_factory=Breaker)
    mirrored: Breaker = field(default_factory=Breaker)

    @staticmethod
    def begin(plan: Plan) -> "Evidence":
        return Evidence(
            ErrorEvidence.begin(plan),
            LatencyEvidence.begin(plan),
            AgreementEvidence.begin(plan),
            QualityEvidence.begin(plan),
        )

    def add(self, plan: Plan, block: int, observed: Observed, *, is_warm: bool) -> "Evidence":
        """The evidence after one observation in this block. A guard that is not enabled gathers none.

        While the route is not warm nothing is compared, whatever the outcomes were; the breaker never looks away.
        """
        guards = plan.guards
        errors, latency = self.errors, self.latency.renewed(block)
        for comparison in observed.comparisons if is_warm else ():
            if guards.latency.enabled:
                latency = latency.add(block, comparison)
            if guards.errors.enabled and comparison.is_randomised:
                errors = errors.add(block, comparison)
        has_pairs = guards.agreement.enabled and observed.agreement.total > 0
        has_labels = guards.quality.enabled and observed.quality.total > 0
        return Evidence(
            errors,
            latency,
            self.agreement.add(block, observed.agreement) if has_pairs else self.agreement,
            self.quality.add(block, observed.quality) if has_labels else self.quality,
            self.answered.add(
                sum(comparison.candidate.requests for comparison in observed.comparisons),
                sum(comparison.candidate.failures for comparison in observed.comparisons),
            ),
            self.mirrored.add(observed.mirrored.requests, observed.mirrored.failures),
        )

    @property
    def tripped(self) -> Breaker | None:
        """The breaker that tripped, if one did."""
        return next((breaker for breaker in (self.answered, self.mirrored) if breaker.is_tripped), None)

    def of(self, guard: Guard) -> GuardEvidence:
        match guard:
            case Guard.ERRORS:
                return self.errors
            case Guard.LATENCY:
                return self.latency
            case Guard.AGREEMENT:
                return self.agreement
            case Guard.QUALITY:
                return self.quality

    def is_harmed(self, plan: Plan, guard: Guard) -> bool:
        """Is harm shown, at the guard's share of alpha?"""
        return self.of(guard).log_harm >= harm_needed(plan, guard)

    def is_cleared(self, plan: Plan, guard: Guard) -> bool:
        """Is it shown that the candidate is not outside the clear margin, at beta?"""
        return self.of(guard).log_clear >= clear_needed(plan)

    def to_json(self) -> dict[str, Any]:
        guards = {guard.value: self.of(guard).to_json() for guard in Guard}
        return {**guards, "answered": self.answered.to_json(), "mirrored": self.mirrored.to_json()}

    @staticmethod
    def from_json(plan: Plan, data: Mapping[str, Any]) -> "Evidence":
        """The stored evidence of a rollout under this plan, bit by bit."""
        empty = Evidence.begin(plan)
        return Evidence(
            empty.errors.restored(data["errors"]),
            empty.latency.restored(data["latency"]),
            empty.agreement.restored(data["agreement"]),
            empty.quality.restored(data["quality"]),
            Breaker.from_json(data["answered"]),
            Breaker.from_json(data["mirrored"]),
        )


# A cap is a whole fraction of what is needed, and blocks * (needed / blocks) may round to just below it.
_ROUNDING = 1e-9


def harm_needed(plan: Plan, guard: Guard) -> float:
    """The log e-value that shows harm: ln(1/alpha)."""
    return -math.log(plan.alpha_of(guard)) - _ROUNDING


def clear_needed(plan: Plan) -> float:
    """The log e-value that clears a guard: ln(1/beta), not divided, since all guards must clear."""
    return -math.log(plan.beta) - _ROUNDING
