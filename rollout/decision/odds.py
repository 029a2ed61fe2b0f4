"""Margin-odds e-process: is one arm's event rate above (or below) a multiple of the other's?

Knows two-armed counts and the assignment probability. Knows nothing of what an event is, nor of time.

Method: Lindon & Malek, "Anytime-Valid Inference for Multinomial Count Data" (NeurIPS 2022), with a margin, a floor and
one side; `facts/statistics.md` 1.1. Given that an event happened, whose was it? With ratio r of the rates, the
candidate's with probability theta(r) = w r / (1 - w + w r), whatever the rates themselves are.

    boundary     pC = ratio * (pS + floor * (1 - pS))
    per request  fC = theta(r1)/theta(ratio)            an event of the candidate
                 fS = (1-theta(r1))/(1-theta(ratio))    an event of stable
                 1 + floor * (fS - 1)                   stable's request without one (a fake event with chance `floor`)
    harm: H0 pC <= boundary, r1 above the ratio;  clear: H0 pC >= boundary, r1 below it

On the boundary each factor's expectation is 1 for every pS, which may drift; inside the null it is at most 1. So E is a
test supermartingale, and P(E ever reaches 1/alpha) <= alpha. Assumes that `weight` was the true assignment
probability, was fixed before the interval began, and that requests are judged one by one.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import lru_cache

from rollout.decision.counts import Tally
from rollout.decision.mixture import log_mean_exp, log_mix

RATE_GRID = (1.05, 1.1, 1.2, 1.4, 1.8, 2.6, 4.2, 7.4, 13.8)
"""How many times worse (or better) than the boundary an error rate may be: twice as far from it at each step."""
SHARED = 0.01
"""The part of the evidence that the alternatives share anew in each block."""


@dataclass(frozen=True, slots=True)
class OddsTest:
    """What is tested: the boundary (`ratio`, and `floor` as a probability) and the alternative ratios r1."""

    ratio: float
    floor: float
    alternatives: tuple[float, ...]

    @staticmethod
    def of_harm(ratio: float, floor: float, grid: tuple[float, ...] = RATE_GRID) -> "OddsTest":
        """H0: the candidate's rate is at most the boundary."""
        return OddsTest(ratio, floor, tuple(ratio * step for step in grid))

    @staticmethod
    def of_clear(ratio: float, floor: float, grid: tuple[float, ...] = RATE_GRID) -> "OddsTest":
        """H0: the candidate's rate is at least the boundary."""
        return OddsTest(ratio, floor, tuple(ratio / step for step in grid))

    def log_factors(self, weight: float, candidate: Tally, stable: Tally) -> tuple[float, ...]:
        """ln of the likelihood ratio of these counts, for each alternative. `weight` in (0, 1)."""
        ours, theirs, quiet = candidate.events, stable.events, stable.requests - stable.events
        return tuple([ours * c + theirs * s + quiet * q for c, s, q in _log_factors(self, weight)])

    def log_factors_of_part(self, weight: float, part: float, requests: int) -> tuple[float, ...]:
        """The same for requests of stable each of which is an event with chance `part`: the mean of both factors."""
        return tuple([requests * math.log1p(part * math.expm1(s)) for _, s, _ in _log_factors(self, weight)])


@lru_cache(maxsize=1024)
def _log_factors(test: OddsTest, weight: float) -> tuple[tuple[float, float, float], ...]:
    """For each alternative, ln of what multiplies the evidence with each event of the candidate, with each event of
    stable, and with each of stable's requests without one."""
    theta0 = _theta(test.ratio, weight)
    factors = []
    for alternative in test.alternatives:
        theta1 = _theta(alternative, weight)
        stable_factor = (1 - theta1) / (1 - theta0)
        quiet_factor = 1 + test.floor * (stable_factor - 1)
        factors.append((math.log(theta1 / theta0), math.log(stable_factor), math.log(quiet_factor)))
    return tuple(factors)


def _theta(ratio: float, weight: float) -> float:
    return weight * ratio / (1 - weight + weight * ratio)


@dataclass(frozen=True, slots=True)
class OddsProcess:
    """The running evidence against a test's null: one log likelihood ratio an alternative."""

    test: OddsTest
    logs: tuple[float, ...]

    @staticmethod
    def begin(test: OddsTest) -> "OddsProcess":
        return OddsProcess(test, (0.0,) * len(test.alternatives))

    def add(self, weight: float, candidate: Tally, stable: Tally) -> "OddsProcess":
        """The evidence after these counts too. Merged counts of one weight give what the stream gives."""
        return self._plus(self.test.log_factors(weight, candidate, stable))

    def add_part(self, weight: float, part: float, requests: int) -> "OddsProcess":
        """The evidence after requests of stable that are events in part (a test without a floor)."""
        return self._plus(self.test.log_factors_of_part(weight, part, requests))

    def _plus(self, factors: Sequence[float]) -> "OddsProcess":
        return OddsProcess(self.test, tuple(map(float.__add__, self.logs, factors)))

    def shared(self) -> "OddsProcess":
        """The same e-value, with a little of it given to every alternative alike (fixed share).

        Asked for between blocks. After a burst the alternatives that it refuted can count again, at a price of at most
        ln(1 - SHARED) a block.
        """
        mean = self.log_e
        return replace(self, logs=tuple([log_mix(SHARED, mean, log) for log in self.logs]))

    @property
    def log_e(self) -> float:
        """ln of the e-value: the mean over the alternatives."""
        return log_mean_exp(self.logs)

    def to_json(self) -> list[float]:
        return list(self.logs)

    @staticmethod
    def from_json(test: OddsTest, data: Sequence[float]) -> "OddsProcess":
        """Read evidence of this test. Raises ValueError when it was gathered with another grid."""
        if len(data) != len(test.alternatives):
            raise ValueError(f"evidence of {len(data)} alternatives where the test has {len(test.alternatives)}")
        return OddsProcess(test, tuple(map(float, data)))
