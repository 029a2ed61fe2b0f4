"""The whole distribution of latencies: is the candidate's anywhere more than a margin above stable's?

Knows histograms in log buckets. Knows nothing of time, pools or requests.

A release that is slower throughout shows it in every request, where the exceedance of one quantile (`exceedance`)
looks at one threshold only. With edges c_1 < ... < c_7 at quantiles of stable of before, and the candidate's at
r c_1 < ... < r c_7, each request falls into one of eight bins, and the question is again whose it was (`odds`): with a
density ratio of rho_b in bin b, the candidate's with probability theta_b = w rho_b / (1 - w + w rho_b).

    per request  fC(b) = theta_b / w            a request of the candidate in bin b
                 fS(b) = (1 - theta_b)/(1 - w)  a request of stable in bin b
    harm: H0 the candidate's latency is stochastically at most r times stable's

In each bin w fC + (1-w) fS = 1, so with equal distributions the expectation is 1, whatever they are. rho_b grows with
b, and so does fC: a candidate that is stochastically faster than that only makes it smaller. The alternatives are
shifts of a lognormal by t standard deviations, rho_b = exp(t z_b - t^2/2), with z_b the mean normal score of bin b; for
other distributions the test is as valid and somewhat weaker. A failure's latency is infinite. Own derivation; its
relatives are
the tests of stochastic order in Lindon, Sanden & Shirikian (KDD 2022) and Arnold et al. (arXiv 2604.21851).
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import pairwise
from statistics import NormalDist

from rollout.decision.counts import ArmCounts, Comparison
from rollout.decision.exceedance import RecentLatency, reachable, threshold_at
from rollout.decision.mixture import log_mean_exp, log_mix
from rollout.decision.odds import SHARED

QUANTILES = (0.1, 0.25, 0.5, 0.75, 0.9, 0.95, 0.99)
TILTS = (0.05, 0.1, 0.2, 0.4, 0.8, 1.6)
"""How many standard deviations of its logarithm the latency may lie above the margin."""


def _scores() -> tuple[float, ...]:
    """The mean of a standard normal within each bin."""
    normal = NormalDist()
    edges = [-math.inf, *map(normal.inv_cdf, QUANTILES), math.inf]
    shares = [0.0, *QUANTILES, 1.0]
    return tuple(
        (normal.pdf(low) - normal.pdf(high)) / (shares[place + 1] - shares[place])
        for place, (low, high) in enumerate(pairwise(edges))
    )


SCORES = _scores()


@dataclass(frozen=True, slots=True)
class ShiftProcess:
    """The running evidence for a margin in buckets: one log likelihood ratio a tilt."""

    margin: int
    logs: tuple[float, ...] = (0.0,) * len(TILTS)

    def add(self, edges: Sequence[int], comparison: Comparison) -> "ShiftProcess":
        """The evidence after this interval too. `edges` are stable's buckets at QUANTILES, fixed before it."""
        edges = [reachable(edge, self.margin) for edge in edges]
        ours = _bins(comparison.candidate, [edge + self.margin for edge in edges])
        theirs = _bins(comparison.stable, edges)
        logs = [
            log + sum(map(float.__mul__, candidate, ours)) + sum(map(float.__mul__, stable, theirs))
            for log, (candidate, stable) in zip(self.logs, _log_factors(comparison.weight), strict=True)
        ]
        return ShiftProcess(self.margin, tuple(logs))

    def shared(self) -> "ShiftProcess":
        """The same e-value, with a little of it given to every alternative alike (see OddsProcess)."""
        mean = self.log_e
        return ShiftProcess(self.margin, tuple([log_mix(SHARED, mean, log) for log in self.logs]))

    @property
    def log_e(self) -> float:
        return log_mean_exp(self.logs)


def edges_of(stable: RecentLatency) -> tuple[int, ...]:
    """Stable's buckets at QUANTILES (see threshold_at). Raises AssertionError without a success."""
    return tuple(threshold_at(stable, p).bucket for p in QUANTILES)


def _bins(arm: ArmCounts, edges: Sequence[int]) -> list[float]:
    """Requests by bin: up to the first edge, between two, and beyond the last one."""
    beyond = [arm.requests, *arm.slower_than_each(edges), 0]
    return [float(more - less) for more, less in pairwise(beyond)]


@lru_cache(maxsize=256)
def _log_factors(weight: float) -> tuple[tuple[tuple[float, ...], tuple[float, ...]], ...]:
    """For each tilt, ln fC and ln fS by bin."""
    factors = []
    for tilt in TILTS:
        ratios = [math.exp(tilt * score - tilt**2 / 2) for score in SCORES]
        thetas = [weight * ratio / (1 - weight + weight * ratio) for ratio in ratios]
        candidate = tuple(math.log(theta / weight) for theta in thetas)
        factors.append((candidate, tuple(math.log((1 - theta) / (1 - weight)) for theta in thetas)))
    return tuple(factors)
