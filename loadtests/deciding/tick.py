"""What a tick of the controller's deciding costs: a second's windows of all gateways to facts, and facts to decisions.

Reading them from the database is not in it; the windows are as `gateway.windows` reads them from JSON.
"""

import random
import time

from gateway.windows import Outcome, Role, Window, bucket_of
from rollout.decision import engine
from rollout.decision.events import PoolBecameReady, RolloutStarted
from rollout.decision.guards import Guards, QualityRules
from rollout.decision.rules import Plan, Stage
from rollout.decision.state import Rollout
from rollout.observing import observed

GATEWAYS = 100
WEIGHT = 0.05
STABLE_REQUESTS, CANDIDATE_REQUESTS = 4, 1
"""Of a model at one gateway in a second."""
TICKS = 5
PLAN = Plan((Stage(WEIGHT, soak_s=1e6),), Guards(quality=QualityRules(enabled=False)), longest_s=1e9)


def tick_ms(models: int, ticks: int = TICKS) -> list[float]:
    """CPU time of some ticks with so many models rolling out, in ms."""
    dice = random.Random(models)
    states = [_begun(f"model{number}") for number in range(models)]
    found = []
    for second in range(ticks):
        windows = [[*_windows(dice, state.model, second)] for state in states]
        began = time.process_time()
        facts = [observed(state, seen, (), ()) for state, seen in zip(states, windows, strict=True)]
        now = 1000.0 + second
        states = [engine.handle(state, fact, now)[0] for state, fact in zip(states, facts, strict=True)]
        found.append(1000 * (time.process_time() - began))
    return found


def _begun(model: str) -> Rollout:
    state = engine.start(model, 2, 1, PLAN, "salt")
    state, _ = engine.handle(state, RolloutStarted(), 0.0)
    return engine.handle(state, PoolBecameReady(2), 0.0)[0]


def _windows(dice: random.Random, model: str, second: int) -> list[Window]:
    return [
        _window(dice, model, gateway, second, release, requests)
        for gateway in range(GATEWAYS)
        for release, requests in ((1, STABLE_REQUESTS), (2, CANDIDATE_REQUESTS))
    ]


def _window(dice: random.Random, model: str, gateway: int, second: int, release: int, requests: int) -> Window:
    histogram: dict[int, int] = {}
    for _ in range(requests):
        bucket = bucket_of(dice.lognormvariate(8.3, 0.5))
        histogram[bucket] = histogram.get(bucket, 0) + 1
    return Window(
        f"gateway{gateway}", "boot", second, 5, model, release, Role.ANSWERED, WEIGHT, 1000.0 + second, 1.0,
        {Outcome.OK: requests}, histogram,
    )  # fmt: skip
