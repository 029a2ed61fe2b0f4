"""Evidence from live traffic that chance divided: the guards `errors` and `latency`.

Knows the two e-processes of each, their caps, and what people want to read beside them. Knows nothing of stages or of
what a verdict leads to.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from rollout.decision.betting import Side
from rollout.decision.cap import CappedEvidence, CappedSides
from rollout.decision.counts import Comparison
from rollout.decision.exceedance import LEAST_REFERENCE, ExceedanceProcess, RecentLatency, threshold_at
from rollout.decision.mixture import log_mean_exp
from rollout.decision.odds import OddsProcess, OddsTest, Tally
from rollout.decision.rules import Guard, Plan


@dataclass(frozen=True, slots=True)
class ErrorEvidence:
    """`expected` is how many of the candidate's `requests` would have failed at stable's rate of the same moment."""

    harm: OddsProcess
    clear: OddsProcess
    capped: CappedSides
    requests: int = 0
    failures: int = 0
    expected: float = 0.0

    @staticmethod
    def begin(plan: Plan) -> "ErrorEvidence":
        rules = plan.guards.errors
        return ErrorEvidence(
            OddsProcess.begin(OddsTest.of_harm(rules.harm_ratio, rules.harm_floor)),
            OddsProcess.begin(OddsTest.of_clear(rules.clear_ratio, rules.clear_floor)),
            CappedSides.needing(plan.cap_blocks, plan.alpha_of(Guard.ERRORS), plan.beta),
        )

    def add(self, block: int, comparison: Comparison) -> "ErrorEvidence":
        candidate, stable = comparison.candidate, comparison.stable
        arms = (Tally(candidate.requests, candidate.failures), Tally(stable.requests, stable.failures))
        is_new_block = block > self.capped.harm.block
        harm, clear = (self.harm.shared(), self.clear.shared()) if is_new_block else (self.harm, self.clear)
        harm, clear = harm.add(comparison.weight, *arms), clear.add(comparison.weight, *arms)
        rate = stable.failures / stable.requests if stable.requests else 0.0
        return ErrorEvidence(
            harm,
            clear,
            self.capped.add(block, harm.log_e, clear.log_e),
            self.requests + candidate.requests,
            self.failures + candidate.failures,
            self.expected + candidate.requests * rate,
        )

    @property
    def log_harm(self) -> float:
        return self.capped.harm.log_e

    @property
    def log_clear(self) -> float:
        return self.capped.clear.log_e

    @property
    def size(self) -> int:
        """How many of the candidate's requests were compared."""
        return self.requests

    def to_json(self) -> dict[str, Any]:
        return {
            "harm": self.harm.to_json(),
            "clear": self.clear.to_json(),
            "capped": self.capped.to_json(),
            "requests": self.requests,
            "failures": self.failures,
            "expected": self.expected,
        }

    def restored(self, data: Mapping[str, Any]) -> "ErrorEvidence":
        return ErrorEvidence(
            OddsProcess.from_json(self.harm.test, data["harm"]),
            OddsProcess.from_json(self.clear.test, data["clear"]),
            self.capped.restored(data["capped"]),
            int(data["requests"]),
            int(data["failures"]),
            float(data["expected"]),
        )


@dataclass(frozen=True, slots=True)
class LatencyEvidence:
    """Evidence at each of the plan's quantiles: harm is their mean (valid under any dependence), each clears alone.

    `thresholds` are stable's quantiles (buckets) from earlier intervals, renewed with each block. `requests` counts the
    candidate's requests that were compared.
    """

    quantiles: tuple[float, ...]
    clear_from_weight: float
    harm: tuple[ExceedanceProcess, ...]
    clear: tuple[ExceedanceProcess, ...]
    harm_cap: CappedEvidence
    clear_caps: tuple[CappedEvidence, ...]
    thresholds: tuple[int, ...] = ()
    stable: RecentLatency = field(default_factory=RecentLatency)
    candidate: RecentLatency = field(default_factory=RecentLatency)
    block: int = 0
    requests: int = 0

    @staticmethod
    def begin(plan: Plan) -> "LatencyEvidence":
        rules = plan.guards.latency
        levels = len(rules.quantiles)
        return LatencyEvidence(
            rules.quantiles,
            plan.least_latency_weight,
            (ExceedanceProcess.begin(Side.HARM, rules.harm_buckets),) * levels,
            (ExceedanceProcess.begin(Side.CLEAR, rules.clear_buckets),) * levels,
            CappedEvidence.needing(plan.cap_blocks, plan.alpha_of(Guard.LATENCY)),
            (CappedEvidence.needing(plan.cap_blocks, plan.beta),) * levels,
        )

    def renewed(self, block: int) -> "LatencyEvidence":
        """Ready for an interval in this block: thresholds come from what was seen before it, older blocks fade.

        Where traffic is low, nothing fades before there is enough to read a quantile from.
        """
        is_same_block = block <= self.block
        if self.stable.successes < LEAST_REFERENCE or (self.thresholds and is_same_block):
            return self if is_same_block else replace(self, block=block)
        thresholds = tuple(threshold_at(self.stable, p) for p in self.quantiles)
        if is_same_block:
            return replace(self, thresholds=thresholds)
        stable, candidate = self.stable.faded(), self.candidate.faded()
        return replace(self, thresholds=thresholds, stable=stable, candidate=candidate, block=block)

    def add(self, block: int, comparison: Comparison) -> "LatencyEvidence":
        """The evidence after this interval too; `renewed` was called before the interval's first comparison."""
        seen = replace(
            self, stable=self.stable.add(comparison.stable), candidate=self.candidate.add(comparison.candidate)
        )
        if not comparison.is_randomised or not self.thresholds:
            return seen
        requests = self.requests + comparison.candidate.requests
        return replace(seen, requests=requests)._compared(block, comparison)

    def _compared(self, block: int, comparison: Comparison) -> "LatencyEvidence":
        harm = self._added(self.harm, comparison, is_new_block=block > self.harm_cap.block)
        updated = replace(self, harm=harm, harm_cap=self.harm_cap.add(block, log_mean_exp([p.log_e for p in harm])))
        if comparison.weight < self.clear_from_weight:
            return updated
        clear = self._added(self.clear, comparison, is_new_block=block > self.clear_caps[0].block)
        caps = tuple(cap.add(block, p.log_e) for cap, p in zip(self.clear_caps, clear, strict=True))
        return replace(updated, clear=clear, clear_caps=caps)

    def _added(
        self, processes: tuple[ExceedanceProcess, ...], comparison: Comparison, *, is_new_block: bool
    ) -> tuple[ExceedanceProcess, ...]:
        ready = (process.shared() for process in processes) if is_new_block else processes
        return tuple(process.add(c, comparison) for process, c in zip(ready, self.thresholds, strict=True))

    @property
    def log_harm(self) -> float:
        return self.harm_cap.log_e

    @property
    def log_clear(self) -> float:
        return min(cap.log_e for cap in self.clear_caps)

    @property
    def size(self) -> int:
        """How many of the candidate's requests were compared."""
        return self.requests

    def to_json(self) -> dict[str, Any]:
        return {
            "harm": [process.to_json() for process in self.harm],
            "clear": [process.to_json() for process in self.clear],
            "harm_cap": self.harm_cap.to_json(),
            "clear_caps": [cap.to_json() for cap in self.clear_caps],
            "thresholds": list(self.thresholds),
            "stable": self.stable.to_json(),
            "candidate": self.candidate.to_json(),
            "block": self.block,
            "requests": self.requests,
        }

    def restored(self, data: Mapping[str, Any]) -> "LatencyEvidence":
        return replace(
            self,
            harm=tuple(p.restored(logs) for p, logs in zip(self.harm, data["harm"], strict=True)),
            clear=tuple(p.restored(logs) for p, logs in zip(self.clear, data["clear"], strict=True)),
            harm_cap=self.harm_cap.restored(data["harm_cap"]),
            clear_caps=tuple(c.restored(stored) for c, stored in zip(self.clear_caps, data["clear_caps"], strict=True)),
            thresholds=tuple(map(int, data["thresholds"])),
            stable=RecentLatency.from_json(data["stable"]),
            candidate=RecentLatency.from_json(data["candidate"]),
            block=int(data["block"]),
            requests=int(data["requests"]),
        )
