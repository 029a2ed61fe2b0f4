"""Scaled exceedance: is the candidate's latency, near a quantile, more than a margin above stable's?

Knows histograms in log buckets. Knows nothing of time, pools or requests.

`facts/statistics.md` 1.2; relative: Lindon, Sanden & Shirikian, "Rapid Regression Detection in Software Deployments
through Sequential Testing" (KDD 2022). With c at stable's p-quantile of before and r = 2^(margin/32):

    event of stable      latency > c             event of the candidate     latency > r c

and the odds test of `odds` at ratio 1, since Q_C(p) <= r Q_S(p) exactly when P(C > r Q_S(p)) <= 1 - p. The quantile is
known to lie in a bucket. Of stable's requests in it a part counts as slower, so that 1 - p of all do, as if ties were
broken by chance; the candidate's c is the bucket's upper edge for harm, its lower one for clear, so that both say too
little. Margins are whole buckets, so r c is an edge again. Failures take for ever. No moments, no shape of the
distribution, no constancy in time is assumed: only that c was fixed before the interval began.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

from gateway.windows import LAST_BUCKET
from rollout.decision.betting import Side
from rollout.decision.counts import ArmCounts, Comparison, Tally
from rollout.decision.odds import OddsProcess, OddsTest

EXCEEDANCE_GRID = (1.03, 1.06, 1.12, 1.24, 1.48, 1.96, 2.92, 4.84, 8.68)
"""How many times more often the candidate may exceed the threshold; at the median no more than twice is possible."""
LEAST_REFERENCE = 100
"""Stable's successes before a quantile is read from them. Fewer would be valid too, but could miss the tail."""


@dataclass(frozen=True, slots=True)
class ExceedanceProcess:
    """The running evidence at one quantile, for a margin in buckets."""

    side: Side
    margin: int
    odds: OddsProcess

    @staticmethod
    def begin(side: Side, margin: int) -> "ExceedanceProcess":
        make = OddsTest.of_harm if side is Side.HARM else OddsTest.of_clear
        return ExceedanceProcess(side, margin, OddsProcess.begin(make(1.0, 0.0, EXCEEDANCE_GRID)))

    def add(self, threshold: "Threshold", comparison: Comparison) -> "ExceedanceProcess":
        """The evidence after this interval too. `threshold` is stable's quantile, fixed before it."""
        bucket, weight = reachable(threshold.bucket, self.margin), comparison.weight
        candidate, stable = comparison.candidate, comparison.stable
        slower = candidate.slower_than(bucket + self.margin - (self.side is Side.CLEAR))
        beyond = stable.slower_than(bucket)
        odds = self.odds.add(weight, Tally(candidate.requests, slower), Tally(stable.requests, beyond))
        within = stable.slower_than(bucket - 1) - beyond
        return replace(self, odds=odds.add_part(weight, threshold.part, within) if within else odds)

    def shared(self) -> "ExceedanceProcess":
        return replace(self, odds=self.odds.shared())

    @property
    def log_e(self) -> float:
        return self.odds.log_e

    def to_json(self) -> list[float]:
        return self.odds.to_json()

    def restored(self, data: Sequence[float]) -> "ExceedanceProcess":
        """The same test with the stored evidence."""
        return replace(self, odds=OddsProcess.from_json(self.odds.test, data))


@dataclass(frozen=True, slots=True)
class Threshold:
    """Where stable's quantile lies: its bucket, and the part of that bucket's requests that are beyond it."""

    bucket: int
    part: float


def reachable(threshold: int, margin: int) -> int:
    """In the last bucket latencies have no upper edge, so the candidate's threshold must stay below it."""
    return min(threshold, LAST_BUCKET - 1 - margin)


@dataclass(frozen=True, slots=True)
class RecentLatency:
    """One arm's recent latencies, with older blocks fading by half a block."""

    failures: int = 0
    histogram: Mapping[int, int] = field(default_factory=dict)

    def add(self, arm: ArmCounts) -> "RecentLatency":
        histogram = dict(self.histogram)
        known = histogram.get
        for bucket, count in arm.histogram.items():
            histogram[bucket] = known(bucket, 0) + count
        return RecentLatency(self.failures + arm.failures, histogram)

    def faded(self) -> "RecentLatency":
        return RecentLatency(self.failures // 2, {b: n // 2 for b, n in self.histogram.items() if n > 1})

    @property
    def successes(self) -> int:
        return sum(self.histogram.values())

    def quantile_bucket(self, p: float) -> int | None:
        """The bucket of the p-quantile (nearest rank; LAST_BUCKET for a failure); None without a count."""
        total = self.successes + self.failures
        if total == 0:
            return None
        rank, seen = max(1, math.ceil(p * total)), 0
        for bucket in sorted(self.histogram):
            seen += self.histogram[bucket]
            if seen >= rank:
                return bucket
        return LAST_BUCKET

    def to_json(self) -> dict[str, object]:
        return {"failures": self.failures, "histogram": [[b, n] for b, n in sorted(self.histogram.items())]}

    @staticmethod
    def from_json(data: Mapping[str, object]) -> "RecentLatency":
        failures, pairs = data["failures"], data["histogram"]
        if not isinstance(failures, int) or not isinstance(pairs, list):
            raise ValueError(f"not stored latencies: {data!r}")
        return RecentLatency(failures, {int(bucket): int(count) for bucket, count in pairs})


def threshold_at(stable: RecentLatency, p: float) -> Threshold:
    """The p-quantile of stable's successes; c is one of its bucket's edges.

    Of successes, since c would be infinite for a stable release that fails 1 - p of its requests, and then nothing
    could ever clear.

    Raises AssertionError without a success.
    """
    bucket = replace(stable, failures=0).quantile_bucket(p)
    assert bucket is not None, "a threshold without a success"
    total, within = stable.successes, stable.histogram[bucket]
    beyond = sum(count for other, count in stable.histogram.items() if other > bucket)
    return Threshold(bucket, min(1.0, max(0.0, ((1 - p) * total - beyond) / within)))
