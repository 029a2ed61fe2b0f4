"""The evidence cap: however much happens in one block of time, it adds, and takes, a bounded amount of evidence.

Knows blocks and log e-values. Knows nothing of where the evidence comes from.

`facts/statistics.md` 1.7, with a reserve. A block in which the e-value grew by the factor X multiplies the evidence by

    min(reserve + (1 - reserve) X, needed^(1/m))

so at least m blocks must agree, and one bad block takes no more than ln(1/reserve). Betting only a part of the wealth
and min(., c) both keep the expectation at most 1, so the product over blocks is a test supermartingale, inside the
running block too. Bursts on one arm (a replica's pause, a noisy neighbour) break the independence that every
per-request test assumes: without the cap one would decide, and without the reserve no later block could make good for
it. They must be shorter than a block. Each of its six slots adds no more than the block may, too (min(., c) again), so
that a burst in one of them does not outweigh the others that saw nothing.

After the last stage the same blocks feed an e-detector (Shin, Ramdas & Rinaldo 2024; ibid. 1.6), so that hours of good
behaviour do not hide a regression that begins late: Shiryaev-Roberts, M = L (M + 1) with each block's factor L. It is
the sum of the e-processes begun at every block, so an alarm at M >= A comes once in A blocks or later, on average, when
nothing is wrong.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from rollout.decision.mixture import log_mix, log_sum_exp

RESERVE = 0.05
"""The part of the wealth that a block does not risk: it takes at most 2.3 nats, and small gains shrink by a tenth."""


SLOTS = 6
"""Of a block."""


@dataclass(frozen=True, slots=True)
class CappedEvidence:
    """Log evidence, block by block. Times are counted in blocks: 2.5 is the middle of the third.

    `limit` is the most that a block may add, in nats. `banked` is what the closed blocks gave, `within` what the closed
    slots of the running block did, `opened` and `latest` the uncapped log e-value when the running slot began and now.
    `width` is for how many slots it stands: more than one where nothing was told in between.
    """

    limit: float
    restarts: bool = False
    """Is it an e-detector, which each block begins anew as well?"""
    block: float = 0.0
    banked: float = 0.0
    within: float = 0.0
    opened: float = 0.0
    latest: float = 0.0
    width: int = SLOTS

    @staticmethod
    def needing(blocks: int, error: float) -> "CappedEvidence":
        """Evidence that reaches 1/error after `blocks` blocks at the earliest."""
        return CappedEvidence(-math.log(error) / blocks)

    @staticmethod
    def detecting(blocks: int, error: float, block: float, log_e: float) -> "CappedEvidence":
        """An e-detector that begins in this block, when the uncapped evidence has come to `log_e`."""
        return CappedEvidence(-math.log(error) / blocks, True, block, opened=log_e, latest=log_e, width=1)

    def add(self, block: float, log_e: float) -> "CappedEvidence":
        """The uncapped evidence has become `log_e` at this time; an earlier one counts as the running slot."""
        slot, running = _slot(block), _slot(self.block)
        if slot <= running:
            return CappedEvidence(
                self.limit, self.restarts, self.block, self.banked, self.within, self.opened, log_e, self.width
            )
        banked, within = self.banked, self._within
        if slot // SLOTS > running // SLOTS:
            banked, within = log_sum_exp(self.log_e, 0.0) if self.restarts else self.log_e, 0.0
        width = min(SLOTS, slot - running)
        return CappedEvidence(self.limit, self.restarts, block, banked, within, self.latest, log_e, width)

    @property
    def _within(self) -> float:
        """What the running block has gathered, each of its slots capped."""
        return self.within + min(self.latest - self.opened, self.limit * self.width)

    @property
    def log_e(self) -> float:
        return self.banked + min(log_mix(RESERVE, 0.0, self._within), self.limit)

    def to_json(self) -> list[float]:
        return [self.block, self.banked, self.within, self.opened, self.latest, self.width]

    def restored(self, data: Sequence[float]) -> "CappedEvidence":
        """The same cap with the stored evidence."""
        block, banked, within, opened, latest, width = map(float, data)
        return CappedEvidence(self.limit, self.restarts, block, banked, within, opened, latest, int(width))


def _slot(block: float) -> int:
    return int(block * SLOTS + _ROUNDING)


_ROUNDING = 1e-6
"""A sixth of a block has no exact number."""


@dataclass(frozen=True, slots=True)
class CappedSides:
    """A guard's evidence of harm and its evidence of being clear of harm, each capped."""

    harm: CappedEvidence
    clear: CappedEvidence

    @staticmethod
    def needing(blocks: int, alpha: float, beta: float) -> "CappedSides":
        return CappedSides(CappedEvidence.needing(blocks, alpha), CappedEvidence.needing(blocks, beta))

    def add(self, block: float, harm: float, clear: float) -> "CappedSides":
        """Both uncapped log e-values as they are now."""
        return CappedSides(self.harm.add(block, harm), self.clear.add(block, clear))

    def to_json(self) -> dict[str, list[float]]:
        return {"harm": self.harm.to_json(), "clear": self.clear.to_json()}

    def restored(self, data: Mapping[str, Sequence[float]]) -> "CappedSides":
        return CappedSides(self.harm.restored(data["harm"]), self.clear.restored(data["clear"]))
