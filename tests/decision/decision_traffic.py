"""Simulated traffic at count level: two releases, seeded, one observation a second.

Knows what true rates the releases have. Knows nothing of the engine's inside: it reads the route that the engine asked
for and answers with counts.
"""

import math
from dataclasses import dataclass, field

import numpy as np

from gateway.windows import BUCKETS_PER_OCTAVE, FIRST_EDGE_US, LAST_BUCKET
from rollout.decision.counts import ArmCounts, Comparison, PairedLabels
from rollout.decision.engine import handle, start
from rollout.decision.events import Observed, PoolBecameReady, RolloutStarted
from rollout.decision.instructions import Instruction, ReplaceRoute
from rollout.decision.rules import Plan
from rollout.decision.state import Rollout


@dataclass(frozen=True)
class Behaviour:
    """A release's true rates. Latency is lognormal: `median_us`, and `spread` in logs."""

    failing: float = 0.0
    median_us: float = 4000.0
    spread: float = 0.5


@dataclass
class World:
    """Traffic of `rate` requests/s. On `better` of the copies only the candidate is right, on `worse` only stable.

    `host_spread` slows both releases alike, anew each second (in logs). In the seconds of `burst` the candidate alone
    is eight times slower; from the second `crash` on it fails everything.
    """

    seed: int
    stable: Behaviour = Behaviour()
    candidate: Behaviour = Behaviour()
    better: float = 0.02
    worse: float = 0.02
    rate: float = 300.0
    labelled: float = 0.85
    host_spread: float = 0.0
    burst: range = range(0)
    crash: int | None = None
    dice: np.random.Generator = field(init=False)
    host: float = field(init=False, default=1.0)
    now: int = field(init=False, default=0)

    def __post_init__(self) -> None:
        self.dice = np.random.default_rng(self.seed)

    def second(self, route: ReplaceRoute) -> Observed:
        """What the gateways count in one second under this route."""
        weight = route.candidate.weight if route.candidate else 0.0
        self.now += 1
        if self.now == self.crash:
            self.candidate = Behaviour(failing=1.0)
        self.host = float(np.exp(self.dice.normal(0.0, self.host_spread)))
        requests = int(self.dice.poisson(self.rate))
        taken = int(self.dice.binomial(requests, weight))
        stable, candidate = self.arm(self.stable, requests - taken), self.arm(self.candidate, taken)
        copies = int(self.dice.binomial(requests - taken, route.shadow.share)) if route.shadow else 0
        mirrored = self.arm(self.candidate, copies)
        return Observed(
            (Comparison(weight, stable, candidate),),
            mirrored,
            quality=self.labels(mirrored.requests - mirrored.failures),
        )

    def arm(self, behaviour: Behaviour, requests: int) -> ArmCounts:
        failures = int(self.dice.binomial(requests, behaviour.failing))
        slowdown = self.host * (8.0 if self.now in self.burst and behaviour is self.candidate else 1.0)
        logs = self.dice.normal(math.log(behaviour.median_us * slowdown), behaviour.spread, requests - failures)
        return ArmCounts(requests, failures, histogram_of(np.exp(logs)))

    def labels(self, pairs: int) -> PairedLabels:
        labelled = int(self.dice.binomial(pairs, self.labelled))
        better, worse, equal = self.dice.multinomial(labelled, (self.better, self.worse, 1 - self.better - self.worse))
        return PairedLabels(int(better), int(equal), int(worse))


def histogram_of(latencies_us: np.ndarray) -> dict[int, int]:
    """Latencies by bucket, as `bucket_of` sorts them, all at once."""
    octaves = np.log2(np.maximum(latencies_us, FIRST_EDGE_US) / FIRST_EDGE_US)
    buckets = np.minimum(np.ceil(BUCKETS_PER_OCTAVE * octaves), LAST_BUCKET).astype(int)
    found, counts = np.unique(buckets, return_counts=True)
    return dict(zip(found.tolist(), counts.tolist(), strict=True))


def routed(instructions: tuple[Instruction, ...], before: ReplaceRoute) -> ReplaceRoute:
    """The route after these instructions."""
    for instruction in instructions:
        if isinstance(instruction, ReplaceRoute):
            before = instruction
    return before


def roll_out(plan: Plan, world: World, seconds: int = 180) -> tuple[Rollout, list[Rollout]]:
    """A rollout of release 2 over release 1 in this world, until it ends; with the states on its way."""
    state = start("digits", 2, 1, plan, "salt")
    state, _ = handle(state, RolloutStarted(), 0.0)
    state, instructions = handle(state, PoolBecameReady(2), 1.0)
    route = routed(instructions, ReplaceRoute(1))
    trail = [state]
    for second in range(2, seconds):
        state, instructions = handle(state, world.second(route), float(second))
        route = routed(instructions, route)
        trail.append(state)
        if state.has_ended:
            break
    return state, trail
