"""The evidence cap: however much happens in one block of time, it adds, and takes, a bounded amount of evidence.

Knows blocks and log e-values. Knows nothing of where the evidence comes from.

`facts/statistics.md` 1.7, with a reserve. A block in which the e-value grew by the factor X multiplies the evidence by

    min(reserve + (1 - reserve) X, needed^(1/m))

so at least m blocks must agree, and one bad block takes no more than ln(1/reserve). Betting only a part of the wealth
and min(., c) both keep the expectation at most 1, so the product over blocks is a test supermartingale, inside the
running block too. Bursts on one arm (a replica's pause, a noisy neighbour) break the independence that every
per-request test assumes: without the cap one would decide, and without the reserve no later block could make good for
it. They must be shorter than a block.

After the last stage the same blocks feed an e-detector (Shin, Ramdas & Rinaldo 2024; ibid. 1.6), so that hours of good
behaviour do not hide a regression that begins late: Shiryaev-Roberts, M = L (M + 1) with each block's factor L. It is
the sum of the e-processes begun at every block, so an alarm at M >= A comes once in A blocks or later, on average, when
nothing is wrong.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from rollout.decision.mixture import log_mix, log_sum_exp

RESERVE = 0.02
"""The part of the wealth that a block does not risk: it takes at most 3.9 nats, small gains shrink by a fiftieth."""


@dataclass(frozen=True, slots=True)
class CappedEvidence:
    """Log evidence, block by block.

    `limit` is the most that a block may add, in nats. `banked` is what the closed blocks gave, `opened` and `latest`
    the uncapped log e-value when the running block began and now. `peak` is the most that the evidence ever came to:
    the chance that it ever comes so far is what is bounded, so what was shown once stays shown.
    """

    limit: float
    restarts: bool = False
    """Is it an e-detector, which each block begins anew as well?"""
    block: int = 0
    banked: float = 0.0
    opened: float = 0.0
    latest: float = 0.0
    peak: float = 0.0

    @staticmethod
    def needing(blocks: int, error: float) -> "CappedEvidence":
        """Evidence that reaches 1/error after `blocks` blocks at the earliest."""
        return CappedEvidence(-math.log(error) / blocks)

    @staticmethod
    def detecting(blocks: int, error: float, block: int, log_e: float) -> "CappedEvidence":
        """An e-detector that begins in this block, when the uncapped evidence has come to `log_e`."""
        return CappedEvidence(-math.log(error) / blocks, True, block, 0.0, log_e, log_e)

    def add(self, block: int, log_e: float) -> "CappedEvidence":
        """The uncapped evidence has become `log_e` in this block; an earlier block counts as the running one."""
        if block <= self.block:
            block, banked, opened = self.block, self.banked, self.opened
        else:
            banked, opened = log_sum_exp(self.log_e, 0.0) if self.restarts else self.log_e, self.latest
        peak = max(self.peak, banked + self._gain(log_e - opened))
        return CappedEvidence(self.limit, self.restarts, block, banked, opened, log_e, peak)

    def _gain(self, uncapped: float) -> float:
        """What a block adds in which the uncapped evidence grew by so much."""
        return min(log_mix(RESERVE, 0.0, uncapped), self.limit)

    @property
    def log_e(self) -> float:
        return self.banked + self._gain(self.latest - self.opened)

    def to_json(self) -> list[float]:
        return [self.block, self.banked, self.opened, self.latest, self.peak]

    def restored(self, data: Sequence[float]) -> "CappedEvidence":
        """The same cap with the stored evidence."""
        block, banked, opened, latest, peak = map(float, data)
        return CappedEvidence(self.limit, self.restarts, int(block), banked, opened, latest, peak)


@dataclass(frozen=True, slots=True)
class CappedSides:
    """A guard's evidence of harm and its evidence of being clear of harm, each capped."""

    harm: CappedEvidence
    clear: CappedEvidence

    @staticmethod
    def needing(blocks: int, alpha: float, beta: float) -> "CappedSides":
        return CappedSides(CappedEvidence.needing(blocks, alpha), CappedEvidence.needing(blocks, beta))

    def add(self, block: int, harm: float, clear: float) -> "CappedSides":
        """Both uncapped log e-values as they are now."""
        return CappedSides(self.harm.add(block, harm), self.clear.add(block, clear))

    def to_json(self) -> dict[str, list[float]]:
        return {"harm": self.harm.to_json(), "clear": self.clear.to_json()}

    def restored(self, data: Mapping[str, Sequence[float]]) -> "CappedSides":
        return CappedSides(self.harm.restored(data["harm"]), self.clear.restored(data["clear"]))
