"""A candidate that fails every request: how soon it is gone, and how many requests met it.

Requests come one by one at 50/s, of which the default plan's first live stage sends 5 % to the candidate. The gateway's
own breaker (`gateway.lanes.Breaker`) stands before it: it opens after OPENS_UNPROVEN_AFTER failures of a release that
never answered well, and what it diverts is answered by stable and charged all the same. The engine hears of it once a
second. That no client sees a failure is tested with a real gateway (`tests/gateway/test_gateway_overload.py`).
"""

from dataclasses import dataclass

import numpy as np

from gateway.lanes import Breaker
from loadtests.deciding.ours import Engine
from rollout.decision.counts import ArmCounts, Comparison
from rollout.decision.events import Observed
from rollout.decision.guards import Guards, QualityRules
from rollout.decision.rules import Plan, Stage
from rollout.decision.state import Status

RATE_PER_S, WEIGHT = 50.0, 0.05
LONGEST_S = 120
PLAN = Plan((Stage(WEIGHT, soak_s=600.0), Stage(0.5)), Guards(quality=QualityRules(enabled=False)))


@dataclass(frozen=True, slots=True)
class Outage:
    """`attempts` reached the candidate; `opened_s` runs from the first of them to the one that opened the breaker
    (None when it did not), `seconds` from the first traffic to the rollback."""

    attempts: int
    opened_s: float | None
    seconds: float


def outage(seed: int) -> Outage:
    dice, engine, breaker = np.random.default_rng(seed), Engine.begin(PLAN), Breaker()
    attempted: list[float] = []
    opened_s = None
    for second in range(LONGEST_S):
        count = int(dice.poisson(RATE_PER_S))
        times = np.sort(dice.random(count)) + second
        to_candidate = dice.random(count) < WEIGHT
        for now in times[to_candidate].tolist():
            if breaker.lets_pass(now):
                attempted.append(now)
                if breaker.failed(now):
                    opened_s = now - attempted[0]
        ours = int(to_candidate.sum())
        counts = Comparison(WEIGHT, ArmCounts(count - ours, 0, {200: count - ours}), ArmCounts(ours, ours))
        if engine.tell(Observed((counts,)), second + 1.0) == Status.ROLLED_BACK.value:
            return Outage(len(attempted), opened_s, second + 1.0)
    return Outage(len(attempted), opened_s, float(LONGEST_S))
