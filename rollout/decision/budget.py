"""The budget of a step: is it shown that the next stage costs at most so many extra bad requests?

Knows one clear test of errors whose margin is wide where little traffic is at stake. Knows nothing of stages.

`facts/statistics.md` 2, steps: a stage that sends w' of `rate` requests a second for T seconds to the candidate costs
at most B extra failures while the candidate's error rate is less than B / (w' rate T) above stable's. So early steps,
which risk little, pass quickly. The margin is fixed when the step before begins; the evidence is of that step alone.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from rollout.decision.counts import Comparison, Tally
from rollout.decision.odds import OddsProcess, OddsTest

WIDEST = 0.5
"""No candidate goes on that may fail half of its requests, however few they are."""


@dataclass(frozen=True, slots=True)
class StepEvidence:
    """Evidence that the candidate's error rate is less than `margin` above stable's."""

    margin: float
    process: OddsProcess

    @staticmethod
    def begin(extra_bad_requests: int, requests: float, narrowest: float) -> "StepEvidence":
        """For a next stage in which the candidate gets `requests`; at least as wide as the plan's own clear margin."""
        margin = min(WIDEST, max(narrowest, extra_bad_requests / max(requests, 1.0)))
        return StepEvidence(margin, OddsProcess.begin(OddsTest.of_clear(1.0, margin)))

    def anew(self) -> "StepEvidence":
        """The same question, before any answer."""
        return replace(self, process=OddsProcess.begin(self.process.test))

    def add(self, comparison: Comparison) -> "StepEvidence":
        candidate, stable = comparison.candidate, comparison.stable
        arms = Tally(candidate.requests, candidate.failures), Tally(stable.requests, stable.failures)
        return replace(self, process=self.process.add(comparison.weight, *arms))

    def is_shown(self, beta: float) -> bool:
        return self.process.log_e >= -math.log(beta)

    def to_json(self) -> dict[str, Any]:
        return {"margin": self.margin, "process": self.process.to_json()}

    @staticmethod
    def from_json(data: Mapping[str, Any]) -> "StepEvidence":
        test = OddsTest.of_clear(1.0, float(data["margin"]))
        return StepEvidence(float(data["margin"]), OddsProcess.from_json(test, data["process"]))
