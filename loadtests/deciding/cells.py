"""The cells of the benchmark: which traffic the methods meet, under which plan, and what must come out.

`facts/statistics.md` 3 is the design. Bursts come once in 40 minutes on each release, so that evidence without a cap
takes back half of the good releases, as it did there.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from enum import Enum

from loadtests.deciding.traffic import (
    Happen,
    Release,
    autocorrelated,
    bursts,
    cold_start,
    diurnal,
    nothing,
    shared_host,
    worse_later,
)
from rollout.decision.guards import (
    AgreementRules,
    DifferenceRules,
    ErrorRules,
    Guards,
    LatencyRules,
    MistakeRules,
    QualityRules,
)
from rollout.decision.rules import Plan, Stage

WINDOWS = 240
"""Of 10 s: a rollout is watched for 40 minutes."""
RAMP = (0.01, 0.05, 0.25, 0.5)
EVERY_WINDOWS = 240.0


USUAL = Release()


class Truth(Enum):
    """What the candidate is, so what a method should do."""

    GOOD = "good"
    BAD = "bad"


@dataclass(frozen=True, slots=True)
class Cell:
    """One kind of traffic. `others` says whether other methods meet it too; they follow `ramp` by time."""

    name: str
    truth: Truth
    plan: Plan
    candidate: Release = USUAL
    happen: Happen = nothing
    rate_per_s: float = 50.0
    ramp: tuple[float, ...] = RAMP
    others: bool = True
    windows: int = WINDOWS

    def ramp_weight(self, number: int) -> float:
        """The weight of the ramp by time in this window."""
        return self.ramp[min(len(self.ramp) - 1, number * len(self.ramp) // self.windows)]


OFF = Guards(ErrorRules(enabled=False), LatencyRules(enabled=False), quality=QualityRules(enabled=False))
ERRORS = replace(OFF, errors=ErrorRules(alpha_share=1.0))
LATENCY = replace(OFF, latency=LatencyRules(alpha_share=1.0))
BOTH = replace(OFF, errors=ErrorRules(alpha_share=0.5), latency=LatencyRules(alpha_share=0.5))


def ramped(guards: Guards, error: float, ramp: tuple[float, ...] = RAMP, warmup_s: float = 0.0) -> Plan:
    """A plan whose stages last as long as those of the ramp by time."""
    soak_s = 10.0 * WINDOWS / len(ramp)
    stages = tuple(Stage(weight, soak_s=soak_s, min_requests=1) for weight in ramp)
    return Plan(stages, guards, alpha=error, beta=error, warmup_s=warmup_s, longest_s=1e6)


NULL = ramped(BOTH, 0.01)
NULLS = (
    Cell("aa", Truth.GOOD, NULL),
    Cell("diurnal", Truth.GOOD, NULL, happen=diurnal(0.0)),
    Cell("diurnal_opposite", Truth.GOOD, NULL, happen=diurnal(math.pi)),
    Cell("common_bursts", Truth.GOOD, NULL, happen=bursts(3.0, 30.0, is_common=True)),
    Cell("arm_bursts_1", Truth.GOOD, NULL, happen=bursts(1.0, EVERY_WINDOWS, is_common=False)),
    Cell("arm_bursts_3", Truth.GOOD, NULL, happen=bursts(3.0, EVERY_WINDOWS, is_common=False)),
    Cell("autocorrelated", Truth.GOOD, NULL, happen=autocorrelated),
    Cell("cold_start", Truth.GOOD, ramped(BOTH, 0.01, warmup_s=60.0), happen=cold_start),
    Cell("shared_host", Truth.GOOD, NULL, happen=shared_host),
    Cell("split_change", Truth.GOOD, ramped(BOTH, 0.01, (0.01, 0.5)), happen=worse_later, ramp=(0.01, 0.5)),
    Cell("low_traffic", Truth.GOOD, NULL, rate_per_s=1.0),
)
"""Nothing is wrong with the candidate: whoever takes it back is wrong."""

CAPS = ((60.0, 3), (180.0, 3), (180.0, 5), (300.0, 3), (300.0, 4), (600.0, 3))
"""Seconds of a block, and how many blocks must show harm at least; the first pair is the default plan's."""


def _capped(plan: Plan, block_s: float, blocks: int) -> Plan:
    return replace(plan, block_s=block_s, cap_blocks=blocks)


LONG_BURSTS = tuple(
    Cell(f"arm_bursts_10.{blocks}x{block_s:g}s", Truth.GOOD, _capped(NULL, block_s, blocks),
         happen=bursts(10.0, EVERY_WINDOWS, is_common=False), others=(block_s, blocks) == CAPS[0])
    for block_s, blocks in CAPS
)  # fmt: skip
"""Bursts of 100 s on average: longer than a block of the default plan. Told, without a bar."""
LONG_BLOCKS = tuple(
    Cell(f"errors_2pct.{blocks}x{block_s:g}s", Truth.BAD, _capped(ramped(ERRORS, 0.05), block_s, blocks),
         Release(0.02), others=False)
    for block_s, blocks in CAPS[1:]
)  # fmt: skip
"""What longer blocks, or more of them, cost."""

FIXED = (0.05,)
HARMS = (
    Cell("errors_2pct", Truth.BAD, ramped(ERRORS, 0.05), Release(0.02)),
    Cell("slower_1.5", Truth.BAD, ramped(LATENCY, 0.05, FIXED), Release(slower=1.5), ramp=FIXED),
    Cell("slower_1.1", Truth.BAD, ramped(LATENCY, 0.05, FIXED), Release(slower=1.1), ramp=FIXED),
    Cell("both_good_5pct", Truth.GOOD, ramped(BOTH, 0.05)),
)
"""Alpha 5 %. The slow ones get 5 % of the traffic throughout."""

GOOD_PLAN = Plan(
    stages=(Stage(0.05), Stage(0.25), Stage(0.5)),
    guards=replace(Guards(), quality=QualityRules(enabled=False)),
    longest_s=2400.0,
)
"""The default plan without copies and labels, and with patience for 40 minutes."""
GOOD = Cell("good_model", Truth.GOOD, GOOD_PLAN, others=False)


def _beyond(boundary: float, usual: float) -> float:
    """Twice as far from the usual as the boundary."""
    return usual + 2 * (boundary - usual)


_FAILING = USUAL.failing
BEYOND_ERRORS = _beyond(1.25 * (_FAILING + 0.002 * (1 - _FAILING)), _FAILING)
BEYOND_SLOWER = 2.0 ** (2 * LatencyRules().clear_buckets / 32)


def promoting(guards: Guards, shadow_share: float = 0.0) -> Plan:
    """A plan that would promote as soon as it may, at beta 1 %."""
    shadow = (Stage(0.0, shadow_share, soak_s=60.0),) if shadow_share else ()
    stages = (*shadow, *(Stage(weight, shadow_share, soak_s=60.0) for weight in (0.05, 0.5)))
    return Plan(stages, guards, alpha=0.01, beta=0.01, bake_s=60.0, warmup_s=0.0, longest_s=1e6)


BEYOND_CLEAR = (
    Cell("beyond_clear.errors", Truth.BAD, promoting(ERRORS), Release(BEYOND_ERRORS), others=False),
    Cell("beyond_clear.latency", Truth.BAD, promoting(LATENCY), Release(slower=BEYOND_SLOWER), others=False),
)
"""Candidates twice outside a clear margin, seen in live traffic. Those seen in copies and labels stand in `pairs`."""

AGREEMENT = replace(OFF, agreement=AgreementRules(enabled=True, alpha_share=1.0))
DIFFERENCE = replace(OFF, difference=DifferenceRules(enabled=True, alpha_share=1.0))
QUALITY = replace(OFF, quality=QualityRules(alpha_share=1.0))
MISTAKES = replace(OFF, mistakes=MistakeRules(enabled=True, alpha_share=1.0))

CELLS: Mapping[str, Cell] = {
    cell.name: cell for cell in (*NULLS, *LONG_BURSTS, *LONG_BLOCKS, *HARMS, GOOD, *BEYOND_CLEAR)
}
