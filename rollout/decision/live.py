"""Evidence from requests that chance divided: the guards `errors`, `mistakes` and `latency`.

Knows the e-processes of each, their caps, their detectors while baking, and the sums that people's estimates are made
of. Knows nothing of stages or of what a verdict leads to.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from rollout.decision.betting import Side
from rollout.decision.cap import CappedEvidence, CappedSides
from rollout.decision.counts import Comparison, Tally
from rollout.decision.exceedance import (
    LEAST_REFERENCE,
    ExceedanceProcess,
    RecentLatency,
    Threshold,
    reachable,
    threshold_at,
)
from rollout.decision.guards import ErrorRules, Guard, MistakeRules
from rollout.decision.interval import SHIFTS, ArmSums, ShiftSums
from rollout.decision.mixture import log_mean_exp
from rollout.decision.odds import OddsProcess, OddsTest
from rollout.decision.rules import Plan
from rollout.decision.shift import ShiftProcess, edges_of

Late = CappedEvidence | None
"""The e-detector of harm while baking; None before."""


def begin_late(plan: Plan, harm: CappedEvidence, block: int) -> CappedEvidence:
    """A detector that begins now, beside this evidence of harm."""
    return CappedEvidence.detecting(plan.cap_blocks, plan.late_alpha, block, harm.latest)


def late_to_json(late: Late) -> list[Any] | None:
    return None if late is None else [late.limit, *late.to_json()]


def late_from_json(data: list[Any] | None) -> Late:
    return None if data is None else CappedEvidence(data[0], True).restored(data[1:])


@dataclass(frozen=True, slots=True)
class RateEvidence:
    """How often something happened with the candidate beside stable; `sums` are of all requests compared."""

    harm: OddsProcess
    clear: OddsProcess
    capped: CappedSides
    late: Late = None
    sums: ArmSums = field(default_factory=ArmSums)
    expected: float = 0.0
    """How often it would have happened to the candidate at stable's rate of the same moment."""

    @staticmethod
    def begin(plan: Plan, guard: Guard) -> "RateEvidence":
        rules = plan.guards.rules(guard)
        assert isinstance(rules, ErrorRules | MistakeRules)
        return RateEvidence(
            OddsProcess.begin(OddsTest.of_harm(rules.harm_ratio, rules.harm_floor)),
            OddsProcess.begin(OddsTest.of_clear(rules.clear_ratio, rules.clear_floor)),
            CappedSides.needing(plan.cap_blocks, plan.alpha_of(guard), plan.beta),
        )

    def add(self, block: int, weight: float, candidate: Tally, stable: Tally) -> "RateEvidence":
        """The evidence after these requests too, under this weight."""
        is_new_block = block > self.capped.harm.block
        harm, clear = (self.harm.shared(), self.clear.shared()) if is_new_block else (self.harm, self.clear)
        harm, clear = harm.add(weight, candidate, stable), clear.add(weight, candidate, stable)
        rate = stable.events / stable.requests if stable.requests else 0.0
        return RateEvidence(
            harm,
            clear,
            self.capped.add(block, harm.log_e, clear.log_e),
            None if self.late is None else self.late.add(block, harm.log_e),
            self.sums.add(weight, candidate, stable),
            self.expected + candidate.requests * rate,
        )

    def baking(self, plan: Plan, block: int) -> "RateEvidence":
        return replace(self, late=begin_late(plan, self.capped.harm, block))

    @property
    def log_harm(self) -> float:
        return self.capped.harm.log_e

    @property
    def log_clear(self) -> float:
        return self.capped.clear.peak

    @property
    def log_late(self) -> float:
        return 0.0 if self.late is None else self.late.log_e

    @property
    def size(self) -> int:
        """How many of the candidate's requests were compared."""
        return sum(candidate.requests for candidate, _ in self.sums.arms.values())

    @property
    def events(self) -> int:
        """To how many of them it happened."""
        return sum(candidate.events for candidate, _ in self.sums.arms.values())

    def to_json(self) -> dict[str, Any]:
        return {
            "harm": self.harm.to_json(),
            "clear": self.clear.to_json(),
            "capped": self.capped.to_json(),
            "late": late_to_json(self.late),
            "sums": self.sums.to_json(),
            "expected": self.expected,
        }

    def restored(self, data: Mapping[str, Any]) -> "RateEvidence":
        return RateEvidence(
            OddsProcess.from_json(self.harm.test, data["harm"]),
            OddsProcess.from_json(self.clear.test, data["clear"]),
            self.capped.restored(data["capped"]),
            late_from_json(data["late"]),
            ArmSums.from_json(data["sums"]),
            float(data["expected"]),
        )


@dataclass(frozen=True, slots=True)
class LatencyEvidence:
    """Evidence at each of the plan's quantiles, and of the whole distribution where the plan minds it.

    Harm is the mean of all (valid under any dependence), each quantile clears alone. `thresholds` are stable's
    quantiles (buckets) from earlier intervals, renewed with each block, and `edges` those of `whole`. `requests` counts
    the candidate's requests that were compared; `sums` has one entry a quantile.
    """

    quantiles: tuple[float, ...]
    clear_from_weight: float
    harm: tuple[ExceedanceProcess, ...]
    clear: tuple[ExceedanceProcess, ...]
    harm_cap: CappedEvidence
    clear_caps: tuple[CappedEvidence, ...]
    sums: tuple[ShiftSums, ...]
    whole: ShiftProcess | None
    late: Late = None
    thresholds: tuple[Threshold, ...] = ()
    edges: tuple[int, ...] = ()
    stable: RecentLatency = field(default_factory=RecentLatency)
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
            (ShiftSums(),) * levels,
            ShiftProcess(rules.harm_buckets) if rules.whole else None,
        )

    def renewed(self, block: int) -> "LatencyEvidence":
        """Ready for an interval in this block: thresholds come from what was seen before it, older blocks fade.

        Where traffic is low, nothing fades before there is enough to read a quantile from.
        """
        is_same_block = block <= self.block
        if (self.thresholds and is_same_block) or self.stable.successes < LEAST_REFERENCE:
            return self if is_same_block else replace(self, block=block)
        thresholds = tuple(threshold_at(self.stable, p) for p in self.quantiles)
        stable = self.stable if is_same_block else self.stable.faded()
        return replace(
            self, thresholds=thresholds, edges=edges_of(self.stable), stable=stable, block=max(block, self.block)
        )

    def add(self, block: int, comparison: Comparison) -> "LatencyEvidence":
        """The evidence after this interval too; `renewed` was called before the interval's first comparison."""
        stable = self.stable.add(comparison.stable)
        if not comparison.is_randomised or not self.thresholds:
            return replace(self, stable=stable)
        is_new_block, whole = block > self.harm_cap.block, self.whole
        harm = self._added(self.harm, comparison, is_new_block=is_new_block)
        harms = [process.log_e for process in harm]
        if whole is not None:
            whole = (whole.shared() if is_new_block else whole).add(self.edges, comparison)
            harms.append(whole.log_e)
        log_harm = log_mean_exp(harms)
        clear, clear_caps = self.clear, self.clear_caps
        if comparison.weight >= self.clear_from_weight:
            clear = self._added(clear, comparison, is_new_block=block > clear_caps[0].block)
            clear_caps = tuple([cap.add(block, p.log_e) for cap, p in zip(clear_caps, clear, strict=True)])
        sums = [
            sums.add(reachable(threshold.bucket, SHIFTS[-1]), comparison)
            for sums, threshold in zip(self.sums, self.thresholds, strict=True)
        ]
        return replace(
            self,
            harm=harm,
            clear=clear,
            harm_cap=self.harm_cap.add(block, log_harm),
            clear_caps=clear_caps,
            sums=tuple(sums),
            whole=whole,
            late=None if self.late is None else self.late.add(block, log_harm),
            stable=stable,
            requests=self.requests + comparison.candidate.requests,
        )

    def _added(
        self, processes: tuple[ExceedanceProcess, ...], comparison: Comparison, *, is_new_block: bool
    ) -> tuple[ExceedanceProcess, ...]:
        ready = [process.shared() for process in processes] if is_new_block else processes
        return tuple([process.add(c, comparison) for process, c in zip(ready, self.thresholds, strict=True)])

    def baking(self, plan: Plan, block: int) -> "LatencyEvidence":
        return replace(self, late=begin_late(plan, self.harm_cap, block))

    @property
    def log_harm(self) -> float:
        return self.harm_cap.log_e

    @property
    def log_clear(self) -> float:
        return min(cap.peak for cap in self.clear_caps)

    @property
    def log_late(self) -> float:
        return 0.0 if self.late is None else self.late.log_e

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
            "sums": [sums.to_json() for sums in self.sums],
            "late": late_to_json(self.late),
            "whole": None if self.whole is None else list(self.whole.logs),
            "thresholds": [[one.bucket, one.part] for one in self.thresholds],
            "edges": list(self.edges),
            "stable": self.stable.to_json(),
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
            sums=tuple(map(ShiftSums.from_json, data["sums"])),
            late=late_from_json(data["late"]),
            whole=None if self.whole is None else replace(self.whole, logs=tuple(data["whole"])),
            thresholds=tuple(Threshold(int(bucket), float(part)) for bucket, part in data["thresholds"]),
            edges=tuple(map(int, data["edges"])),
            stable=RecentLatency.from_json(data["stable"]),
            block=int(data["block"]),
            requests=int(data["requests"]),
        )
