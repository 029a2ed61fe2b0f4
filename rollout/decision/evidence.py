"""All evidence of one rollout: one running pair of e-processes a guard, from the first request to the last.

Knows which counts feed which guard. Knows nothing of stages: a change of weight changes the weight of later increments
and nothing else, so looking often, and ramping, cost nothing.
"""

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from rollout.decision.breaker import Breaker
from rollout.decision.budget import StepEvidence
from rollout.decision.counts import AnswerComparison, Comparison, LabelComparison, Tally
from rollout.decision.events import Observed
from rollout.decision.guards import Guard
from rollout.decision.live import LatencyEvidence, RateEvidence
from rollout.decision.paired import AgreementEvidence, DifferenceEvidence, QualityEvidence
from rollout.decision.rules import Drift, Plan
from rollout.decision.share import DriftCheck, ShareCheck

GuardEvidence = RateEvidence | LatencyEvidence | AgreementEvidence | DifferenceEvidence | QualityEvidence


@dataclass(frozen=True, slots=True)
class Evidence:
    """The evidence of every guard, the data checks, and two breakers: one for what the candidate answered, one for its
    copies. Apart, since copies that go well must not hide answers that do not.

    `step` is set where the plan bounds what the next stage may cost. The guards' fields are named as `Guard` does.
    """

    errors: RateEvidence
    latency: LatencyEvidence
    agreement: AgreementEvidence
    difference: DifferenceEvidence
    quality: QualityEvidence
    mistakes: RateEvidence
    share: ShareCheck
    drift: DriftCheck = field(default_factory=DriftCheck)
    answered: Breaker = field(default_factory=Breaker)
    mirrored: Breaker = field(default_factory=Breaker)
    step: StepEvidence | None = None

    @staticmethod
    def begin(plan: Plan) -> "Evidence":
        return Evidence(
            RateEvidence.begin(plan, Guard.ERRORS),
            LatencyEvidence.begin(plan),
            AgreementEvidence.begin(plan),
            DifferenceEvidence.begin(plan),
            QualityEvidence.begin(plan),
            RateEvidence.begin(plan, Guard.MISTAKES),
            ShareCheck.begin(plan),
        )

    def add(self, plan: Plan, block: int, observed: Observed, *, is_warm: bool) -> "Evidence":
        """The evidence after one observation in this block. A guard that is not enabled gathers none.

        While the route is not warm nothing is compared, whatever the outcomes were; the breaker never looks away.
        """
        guards, answered, copies = plan.guards, observed.answered, observed.mirrored
        errors, latency, share, step = self.errors, self.latency.renewed(block), self.share, self.step
        for comparison in observed.comparisons if is_warm else ():
            if guards.latency.enabled:
                latency = latency.add(block, comparison)
            if comparison.is_randomised:
                share = share.add(comparison)
                step = step.add(comparison) if step is not None else None
                if guards.errors.enabled:
                    errors = errors.add(block, comparison.weight, *_failures(comparison))
        has_agreement = guards.agreement.enabled and observed.agreement.total > 0
        has_differences = guards.difference.enabled and observed.differences.total > 0
        has_labels = guards.quality.enabled and observed.quality.total > 0
        return Evidence(
            errors,
            latency,
            self.agreement.add(block, observed.agreement) if has_agreement else self.agreement,
            self.difference.add(block, observed.differences) if has_differences else self.difference,
            self.quality.add(block, observed.quality) if has_labels else self.quality,
            self._mistakes(block, observed.labelled) if guards.mistakes.enabled else self.mistakes,
            share,
            self._drift(observed.answers) if plan.checks.drift is not Drift.OFF else self.drift,
            self.answered.add(sum(arm.requests for arm in answered), sum(arm.failures for arm in answered)),
            self.mirrored.add(copies.requests, copies.failures),
            step,
        )

    def _mistakes(self, block: int, labelled: Iterable[LabelComparison]) -> RateEvidence:
        mistakes = self.mistakes
        for one in labelled:
            if 0 < one.weight < 1:
                mistakes = mistakes.add(block, one.weight, one.candidate, one.stable)
        return mistakes

    def _drift(self, answers: Iterable[AnswerComparison]) -> DriftCheck:
        drift = self.drift
        for one in answers:
            if 0 < one.weight < 1:
                drift = drift.add(one)
        return drift

    def baking(self, plan: Plan, block: int) -> "Evidence":
        """The same evidence, with detectors that begin in this block beside it."""
        return replace(
            self,
            errors=self.errors.baking(plan, block),
            latency=self.latency.baking(plan, block),
            mistakes=self.mistakes.baking(plan, block),
        )

    @property
    def tripped(self) -> Breaker | None:
        """The breaker that tripped, if one did."""
        return next((breaker for breaker in (self.answered, self.mirrored) if breaker.is_tripped), None)

    def of(self, guard: Guard) -> GuardEvidence:
        evidence: GuardEvidence = getattr(self, guard)
        return evidence

    def is_harmed(self, plan: Plan, guard: Guard) -> bool:
        """Is harm shown, at the guard's share of alpha?"""
        return self.of(guard).log_harm >= harm_needed(plan, guard)

    def is_harmed_late(self, plan: Plan, guard: Guard) -> bool:
        """Does the detector of a late regression give alarm?"""
        return self.of(guard).log_late >= late_needed(plan)

    def is_cleared(self, plan: Plan, guard: Guard) -> bool:
        """Is it shown that the candidate is not outside the clear margin, at beta?"""
        return self.of(guard).log_clear >= clear_needed(plan)

    def to_json(self) -> dict[str, Any]:
        guards = {guard.value: self.of(guard).to_json() for guard in Guard}
        return {
            **guards,
            "share": self.share.to_json(),
            "drift": self.drift.to_json(),
            "answered": self.answered.to_json(),
            "mirrored": self.mirrored.to_json(),
            "step": None if self.step is None else self.step.to_json(),
        }

    @staticmethod
    def from_json(plan: Plan, data: Mapping[str, Any]) -> "Evidence":
        """The stored evidence of a rollout under this plan, bit by bit."""
        empty = Evidence.begin(plan)
        return Evidence(
            empty.errors.restored(data["errors"]),
            empty.latency.restored(data["latency"]),
            empty.agreement.restored(data["agreement"]),
            empty.difference.restored(data["difference"]),
            empty.quality.restored(data["quality"]),
            empty.mistakes.restored(data["mistakes"]),
            empty.share.restored(data["share"]),
            DriftCheck.from_json(data["drift"]),
            Breaker.from_json(data["answered"]),
            Breaker.from_json(data["mirrored"]),
            None if data["step"] is None else StepEvidence.from_json(data["step"]),
        )


def _failures(comparison: Comparison) -> tuple[Tally, Tally]:
    """The candidate's requests and failures, and stable's."""
    candidate, stable = comparison.candidate, comparison.stable
    return Tally(candidate.requests, candidate.failures), Tally(stable.requests, stable.failures)


# A cap is a whole fraction of what is needed, and blocks * (needed / blocks) may round to just below it.
_ROUNDING = 1e-9


def harm_needed(plan: Plan, guard: Guard) -> float:
    """The log e-value that shows harm: ln(1/alpha)."""
    return -math.log(plan.alpha_of(guard)) - _ROUNDING


def late_needed(plan: Plan) -> float:
    """The log value of a detector that gives alarm: ln of the mean number of blocks to a false one."""
    return -math.log(plan.late_alpha) - _ROUNDING


def clear_needed(plan: Plan) -> float:
    """The log e-value that clears a guard: ln(1/beta), not divided, since all guards must clear."""
    return -math.log(plan.beta) - _ROUNDING
