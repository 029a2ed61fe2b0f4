"""Forecasts: what this plan would decide, and when, at today's traffic.

Knows the engine and expected counts. There is no chance in it: every interval brings what is expected on average (the
fractions are carried on), so the evidence grows as it grows on average. Real rollouts take more or less than that.

People and hours are left out: a forecast says how long the evidence takes.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from itertools import accumulate, pairwise

from rollout.decision import engine
from rollout.decision.counts import ArmCounts, Comparison, LabelComparison, PairedLabels, Tally
from rollout.decision.events import Observed, PoolBecameReady, RolloutStarted
from rollout.decision.guards import Guard
from rollout.decision.instructions import ReplaceRoute
from rollout.decision.rules import Approvals, Plan
from rollout.decision.state import Rollout, Status
from rollout.decision.verdict import waiting_for

DISCORDANT = 0.04
"""Of the labelled requests, those on which only one of two equally good releases is right: a usual share."""
STEPS_A_BLOCK = 6
_STABLE, _CANDIDATE = 1, 2


@dataclass(frozen=True, slots=True)
class Traffic:
    """Stable's traffic of a model: requests a second, the share that fails, latencies as shares by bucket."""

    rate: float
    failing: float
    latency: Mapping[int, float]


@dataclass(frozen=True, slots=True)
class Candidate:
    """How a candidate differs from stable: points of errors and of mistakes, buckets of latency."""

    failing: float = 0.0
    mistaken: float = 0.0
    slower: int = 0


GOOD = Candidate()


@dataclass(frozen=True, slots=True)
class Forecast:
    """Where the rollout stands after `seconds` since its first traffic: at its end, or when patience ended.

    `requests` of them the candidate answered, copies too; `bad` is how many more of these went wrong than with stable.
    """

    status: Status
    by: str
    seconds: float
    requests: int
    bad: float
    waiting_for: tuple[str, ...]


def forecast(plan: Plan, traffic: Traffic, candidate: Candidate = GOOD) -> Forecast:
    """What the plan would make of this candidate under this traffic."""
    plan = replace(plan, approvals=Approvals(), hours=())
    state = engine.start("forecast", _CANDIDATE, _STABLE, plan, "")
    state, _ = engine.handle(state, RolloutStarted(), 0.0)
    state, instructions = engine.handle(state, PoolBecameReady(_CANDIDATE), 0.0)
    route = next(one for one in instructions if isinstance(one, ReplaceRoute))
    world, step_s = _World(traffic, candidate, plan), max(1.0, plan.block_s / STEPS_A_BLOCK)
    now = 0.0
    while not state.has_ended and state.status is not Status.HELD and now < 2 * plan.longest_s + plan.block_s:
        now += step_s
        state, instructions = engine.handle(state, world.interval(route, step_s), now)
        route = next((one for one in instructions if isinstance(one, ReplaceRoute)), route)
    return Forecast(state.status, _decided_by(state), now, state.requests, world.bad, waiting_for(state.unheld()))


def clearly_bad(plan: Plan, guard: Guard, traffic: Traffic) -> Candidate | None:
    """A candidate twice outside a guard's clear margin; None for guards whose counts are not forecast."""
    guards = plan.guards
    match guard:
        case Guard.ERRORS:
            rules = guards.errors
            return Candidate(failing=2 * (rules.clear_ratio * (traffic.failing + rules.clear_floor) - traffic.failing))
        case Guard.LATENCY:
            return Candidate(slower=2 * guards.latency.clear_buckets)
        case Guard.QUALITY:
            return Candidate(mistaken=2 * guards.quality.clear)
        case Guard.MISTAKES:
            return Candidate(mistaken=2 * guards.mistakes.clear_floor)
        case Guard.AGREEMENT | Guard.DIFFERENCE:
            return None


def _decided_by(state: Rollout) -> str:
    return state.decision.by if state.decision else ""


@dataclass(slots=True)
class _Carry:
    """Expected counts as whole numbers: what is left over is carried on, so that nothing is lost in the long run."""

    left: float = 0.0

    def take(self, expected: float) -> int:
        self.left += expected
        whole = int(self.left + 1e-9)
        self.left -= whole
        return whole


GOLDEN = (math.sqrt(5) - 1) / 2


@dataclass(slots=True)
class _Arm:
    """A release as expected counts: failures, then latencies of the rest."""

    failing: float
    latency: Mapping[int, float]
    offset: float = 0.0
    requests: _Carry = field(default_factory=_Carry)
    failures: _Carry = field(default_factory=_Carry)

    def counts(self, expected: float) -> ArmCounts:
        requests = self.requests.take(expected)
        failures = min(requests, self.failures.take(requests * self.failing))
        return ArmCounts(requests, failures, self._histogram(requests - failures))

    def _histogram(self, successes: int) -> dict[int, int]:
        """Every success has one latency: n points at even distances along the distribution, from an offset that moves
        on by the golden ratio each time, so that rare buckets are met as evenly as can be."""
        self.offset = (self.offset + GOLDEN) % 1.0
        up_to = [int(successes * share + self.offset) for share in accumulate(self.latency.values(), initial=0.0)]
        up_to[-1] = successes
        counts = zip(sorted(self.latency), pairwise(up_to), strict=True)
        return {bucket: after - before for bucket, (before, after) in counts if after > before}


class _World:
    """What the gateways would count, interval by interval."""

    def __init__(self, traffic: Traffic, candidate: Candidate, plan: Plan) -> None:
        self._traffic, self._candidate, self._labels = traffic, candidate, plan.labels
        usual = dict(sorted(traffic.latency.items()))
        slower = {bucket + candidate.slower: share for bucket, share in usual.items()}
        failing = min(1.0, traffic.failing + candidate.failing)
        self._stable, self._mirrored = _Arm(traffic.failing, usual), _Arm(failing, slower)
        self._answered = _Arm(failing, slower, 0.5)
        self._pending: list[tuple[float, float, float, float]] = []
        self._now = 0.0
        self._carries = [_Carry() for _ in range(7)]
        self.bad = 0.0

    def interval(self, route: ReplaceRoute, seconds: float) -> Observed:
        """What is counted in the next seconds under this route; labels come with their delay."""
        self._now += seconds
        weight = route.candidate.weight if route.candidate else 0.0
        requests = self._traffic.rate * seconds
        copies = requests * (1 - weight) * (route.shadow.share if route.shadow else 0.0)
        self._pending.append((self._now + self._labels.delay_s, weight, requests, copies))
        comparison = Comparison(
            weight, self._stable.counts(requests * (1 - weight)), self._answered.counts(requests * weight)
        )
        self.bad += requests * weight * (self._candidate.failing + self._candidate.mistaken)
        paired, labelled = self._arrived()
        mirrored = self._mirrored.counts(copies)
        return Observed((comparison,), mirrored, quality=paired, labelled=labelled)

    def _arrived(self) -> tuple[PairedLabels, tuple[LabelComparison, ...]]:
        """The labels that are due."""
        due = [one for one in self._pending if one[0] <= self._now]
        self._pending = self._pending[len(due) :]
        pairs = sum(copies for *_, copies in due) * self._labels.expected_share
        better, equal, worse = (carry.take for carry in self._carries[:3])
        half, lost = DISCORDANT / 2, self._candidate.mistaken
        paired = PairedLabels(
            better(pairs * half), equal(pairs * (1 - DISCORDANT - lost)), worse(pairs * (half + lost))
        )
        return paired, tuple(self._comparison(weight, requests) for _, weight, requests, _ in due if 0 < weight < 1)

    def _comparison(self, weight: float, requests: float) -> LabelComparison:
        labels, wrong = requests * self._labels.expected_share, self._carries[3:]
        stable, candidate = wrong[0].take(labels * (1 - weight)), wrong[1].take(labels * weight)
        return LabelComparison(
            weight,
            Tally(stable, min(stable, wrong[2].take(stable * MISTAKEN))),
            Tally(candidate, min(candidate, wrong[3].take(candidate * (MISTAKEN + self._candidate.mistaken)))),
        )


MISTAKEN = 0.1
"""Of stable's labelled answers, those taken to be wrong."""
