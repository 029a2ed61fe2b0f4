"""Cells whose evidence comes from copies and labels, which other rules do not look at: for the engine alone."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace

import numpy as np

from loadtests.deciding.cells import AGREEMENT, DIFFERENCE, MISTAKES, OFF, QUALITY, WINDOWS, Truth, promoting
from loadtests.deciding.traffic import WINDOW_S
from rollout.decision.counts import (
    DIFFERENCE_EDGES,
    Agreement,
    ArmCounts,
    Comparison,
    Differences,
    LabelComparison,
    PairedLabels,
    Tally,
)
from rollout.decision.events import Observed
from rollout.decision.guards import MistakeRules, QualityRules
from rollout.decision.rules import Plan, Stage

Dice = np.random.Generator
Observe = Callable[[Dice, float], Observed]
"""What is counted in a window at this weight of the candidate."""

ACCURACY, DISCORDANT = 0.9, 0.06
LABELS_PER_S, LIVE_LABELS_PER_S = 1.0, 4.0
PAIRS_PER_S = 20.0


@dataclass(frozen=True, slots=True)
class PairCell:
    """The requests of its decisions are pairs, or labels of the candidate."""

    name: str
    truth: Truth
    plan: Plan
    observe: Observe
    windows: int = WINDOWS


def paired(lost: float, per_s: float = LABELS_PER_S) -> Observe:
    """Labels of mirrored requests: the candidate's accuracy is `lost` lower, on 6 % only one is right."""

    def observe(dice: Dice, weight: float) -> Observed:
        labels = int(dice.poisson(per_s * WINDOW_S))
        half = (DISCORDANT + lost) / 2 if lost > DISCORDANT else DISCORDANT / 2
        worse, better, equal = dice.multinomial(labels, (half + lost / 2, half - lost / 2, 1 - 2 * half))
        fact = Observed(quality=PairedLabels(int(better), int(equal), int(worse)), mirrored=_copies(labels))
        return replace(fact, comparisons=_live(dice, weight))

    return observe


def unpaired(lost: float) -> Observe:
    """Labels of what each release answered itself."""

    def observe(dice: Dice, weight: float) -> Observed:
        labels = int(dice.poisson(LIVE_LABELS_PER_S * WINDOW_S))
        ours = int(dice.binomial(labels, weight))
        wrong = 1 - ACCURACY
        stable = Tally(labels - ours, int(dice.binomial(labels - ours, wrong)))
        candidate = Tally(ours, int(dice.binomial(ours, wrong + lost)))
        labelled = (LabelComparison(weight, stable, candidate),) if weight else ()
        return Observed(_live(dice, weight), labelled=labelled, mirrored=_copies(labels))

    return observe


def differing(share: float) -> Observe:
    """Copies, of which so many are answered differently."""

    def observe(dice: Dice, weight: float) -> Observed:
        pairs = int(dice.poisson(PAIRS_PER_S * WINDOW_S))
        disagreed = int(dice.binomial(pairs, share))
        return Observed(_live(dice, weight), _copies(pairs), Agreement(pairs - disagreed, disagreed))

    return observe


def apart(mean: float) -> Observe:
    """Copies whose answers lie so far apart on average: exponential, cut at 1."""

    def observe(dice: Dice, weight: float) -> Observed:
        pairs = int(dice.poisson(PAIRS_PER_S * WINDOW_S))
        far = np.minimum(dice.exponential(mean, pairs), 0.999)
        counts = np.histogram(far, DIFFERENCE_EDGES)[0].tolist()
        bins = {place: int(count) for place, count in enumerate(counts) if count}
        return Observed(_live(dice, weight), _copies(pairs), differences=Differences(bins))

    return observe


def _copies(count: int) -> ArmCounts:
    return ArmCounts(count, 0, {200: count} if count else {})


def _live(dice: Dice, weight: float) -> tuple[Comparison, ...]:
    """Live traffic in which nothing is wrong."""
    requests = int(dice.poisson(50 * WINDOW_S))
    ours = int(dice.binomial(requests, weight))
    return (Comparison(weight, _copies(requests - ours), _copies(ours)),)


_SHADOW = Stage(0.0, 1.0, soak_s=1e5)
_HALF = Stage(0.5, soak_s=1e5)
PAIRED_PLAN = Plan((_SHADOW, Stage(0.5)), replace(OFF, quality=QualityRules(alpha_share=1.0, harm=1e-4)), warmup_s=0.0,
                   longest_s=1e6)  # fmt: skip
UNPAIRED_PLAN = Plan((_HALF,), replace(OFF, mistakes=MistakeRules(enabled=True, alpha_share=1.0, harm_floor=5e-4)),
                     warmup_s=0.0, longest_s=1e6)  # fmt: skip

PAIR_CELLS: Mapping[str, PairCell] = {
    cell.name: cell
    for cell in (
        PairCell("accuracy_paired", Truth.BAD, PAIRED_PLAN, paired(0.02), windows=720),
        PairCell("accuracy_unpaired", Truth.BAD, UNPAIRED_PLAN, unpaired(0.02), windows=1200),
        PairCell("beyond_clear.agreement", Truth.BAD, promoting(AGREEMENT, 1.0), differing(0.10)),
        PairCell("beyond_clear.difference", Truth.BAD, promoting(DIFFERENCE, 1.0), apart(0.10)),
        PairCell("beyond_clear.quality", Truth.BAD, promoting(QUALITY, 1.0), paired(0.04, 10.0)),
        PairCell("beyond_clear.mistakes", Truth.BAD, promoting(MISTAKES), unpaired(0.036)),
    )
}
