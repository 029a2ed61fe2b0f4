"""Betting on a bounded mean: is it more than a margin? Of accuracy lost, and of how far two answers lie apart.

Knows pairs in which one, both or none of two answers to the same request were right, and differences sorted into bins.
Knows nothing of labels' arrival, nor of what an answer is.

Waudby-Smith & Ramdas, "Estimating means of bounded random variables by betting" (JRSS-B 2024);
`facts/statistics.md` 1.4. d = +1 where only stable was right, -1 where only the candidate was, else 0;
E d is the accuracy lost.

    harm   H0 E d <= m    E = mean_j exp( sum_v n_v ln(1 + l_j (v - m)) )
    clear  H0 E d >= m    E = mean_j exp( sum_v n_v ln(1 - l_j (v - m)) )

Each factor's expectation is 1 + l (E d - m) (or its mirror image), at most 1 under the null, also when E d drifts.
Assumes that which requests get a label does not depend on which release was right.

Differences lie in [0, 1]. Of their bins harm takes the lower edge and clear the upper one, so that both say too little:
the nulls on v then imply those on the true differences.
"""

import math
from dataclasses import dataclass, field, replace
from enum import Enum

from rollout.decision.counts import DIFFERENCE_EDGES, Differences, PairedLabels
from rollout.decision.mixture import log_mean_exp, log_spaced

BETS = (0.05, 0.15, 0.3, 0.5, 0.85)
"""Stakes, as shares of 1/(1+|m|), the largest |v - m|: no outcome ever loses everything."""


class Side(Enum):
    """Which null is bet against. The value is the sign of the bet on accuracy lost."""

    HARM = 1.0
    CLEAR = -1.0


@dataclass(frozen=True, slots=True)
class BettingProcess:
    """The running evidence: counts are enough, as the order of the pairs does not matter."""

    side: Side
    margin: float
    seen: PairedLabels = field(default_factory=PairedLabels)

    def add(self, labels: PairedLabels) -> "BettingProcess":
        seen = self.seen
        total = PairedLabels(seen.better + labels.better, seen.equal + labels.equal, seen.worse + labels.worse)
        return replace(self, seen=total)

    @property
    def log_e(self) -> float:
        return log_mean_exp([self._log_wealth(share / (1 + abs(self.margin))) for share in BETS])

    def _log_wealth(self, stake: float) -> float:
        stake *= self.side.value
        return (
            self.seen.worse * math.log1p(stake * (1 - self.margin))
            + self.seen.equal * math.log1p(-stake * self.margin)
            + self.seen.better * math.log1p(-stake * (1 + self.margin))
        )


LEAST_STAKE, STAKES = 0.05, 10


@dataclass(frozen=True, slots=True)
class DifferenceProcess:
    """The running evidence on the mean difference of two answers; `margin` in (0, 1)."""

    side: Side
    margin: float
    seen: Differences = field(default_factory=Differences)

    def add(self, differences: Differences) -> "DifferenceProcess":
        return replace(self, seen=self.seen.plus(differences))

    @property
    def log_e(self) -> float:
        is_clear = self.side is Side.CLEAR
        # The outcome that loses most is 0 for harm and 1 for clear; no stake loses everything on it.
        most = 0.95 / (1 - self.margin if is_clear else self.margin)
        gains = [
            (count, self.side.value * (DIFFERENCE_EDGES[b + is_clear] - self.margin))
            for b, count in self.seen.bins.items()
        ]
        stakes = log_spaced(min(LEAST_STAKE, most / 2), most, STAKES)
        return log_mean_exp([sum(n * math.log1p(stake * gain) for n, gain in gains) for stake in stakes])
