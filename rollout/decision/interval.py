"""Estimates with their intervals, for people: how much worse, and between which bounds.

Knows counts of both arms by weight. Decides nothing: no cap for bursts is on it, and it is asked only when somebody
looks.

A confidence sequence is an e-process turned around: it holds every null that the evidence does not reject. The e-values
are those of the guards, two-sided and without margins or floors (`odds`, `betting`, `agreement`), so an interval may be
looked at as often as one likes: over all looks together the truth leaves it with a chance of at most 5 %. Robust to
rates that drift for both arms alike.
"""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from rollout.decision.agreement import log_beta
from rollout.decision.betting import BettingProcess, Side
from rollout.decision.counts import Agreement, Comparison, PairedLabels, Tally
from rollout.decision.mixture import log_mean_exp
from rollout.decision.odds import OddsTest

MISSED = 0.05
"""The chance that the truth ever leaves an interval."""
_NEEDED = -math.log(MISSED)
_RATIOS = (1.1, 1.25, 1.5, 2.0, 4.0)
"""How far from the truth a ratio is tried, to either side."""
WIDEST = 1e3
"""Ratios are not told apart beyond it."""
_HALVINGS = 40


@dataclass(frozen=True, slots=True)
class Interval:
    """An estimate between its bounds; `low` is 0 and `high` None where nothing bounds it yet."""

    value: float
    low: float
    high: float | None


Arms = tuple[Tally, Tally]
"""The candidate's requests and events, and stable's."""


@dataclass(frozen=True, slots=True)
class ArmSums:
    """Requests and events of both arms, by weight."""

    arms: Mapping[float, Arms] = field(default_factory=dict)

    def add(self, weight: float, candidate: Tally, stable: Tally) -> "ArmSums":
        ours, theirs = self.arms.get(weight, (Tally(), Tally()))
        return ArmSums({**self.arms, weight: (_plus(ours, candidate), _plus(theirs, stable))})

    def ratio(self) -> Interval | None:
        """The candidate's rate of events as a multiple of stable's; None while neither had one."""
        ours = sum(candidate.events for candidate, _ in self.arms.values())
        expected = sum(
            stable.events * candidate.requests / stable.requests
            for candidate, stable in self.arms.values()
            if stable.requests
        )
        if not ours and not expected:
            return None
        value = min(ours / expected, WIDEST) if expected else WIDEST
        around = max(value, 1 / WIDEST)
        low = _bound(self._log_e, around, 1 / WIDEST) if value > 1 / WIDEST else None
        high = _bound(self._log_e, around, WIDEST) if value < WIDEST else None
        return Interval(value, 0.0 if low is None else low, high)

    def _log_e(self, ratio: float) -> float:
        """Evidence against this ratio of the rates."""
        test = OddsTest(ratio, 0.0, tuple(ratio * r for r in (*_RATIOS, *(1 / r for r in _RATIOS))))
        logs = [0.0] * len(test.alternatives)
        for weight, arms in self.arms.items():
            logs = [log + more for log, more in zip(logs, test.log_factors(weight, *arms), strict=True)]
        return log_mean_exp(logs)

    def to_json(self) -> list[list[float]]:
        return [[w, c.requests, c.events, s.requests, s.events] for w, (c, s) in self.arms.items()]

    @staticmethod
    def from_json(data: list[list[Any]]) -> "ArmSums":
        return ArmSums({float(w): (Tally(nc, ec), Tally(ns, es)) for w, nc, ec, ns, es in data})


def _plus(one: Tally, other: Tally) -> Tally:
    return Tally(one.requests + other.requests, one.events + other.events)


def _bound(log_e: Callable[[float], float], inside: float, outside: float) -> float | None:
    """Where the evidence against a value reaches what is needed, between two positive values; None if nowhere."""
    if log_e(outside) < _NEEDED:
        return None
    for _ in range(_HALVINGS):
        middle = math.sqrt(inside * outside)
        inside, outside = (inside, middle) if log_e(middle) >= _NEEDED else (middle, outside)
    return outside


SHIFTS = (-64, -48, -32, -24, -16, -12, -8, -6, -4, -3, -2, -1, 0, 1, 2, 3, 4, 6, 8, 10, 12, 16, 20, 24, 32, 48, 64, 96)
"""How many buckets the candidate's latency may lie above stable's: from a quarter to eight times."""


@dataclass(frozen=True, slots=True)
class ShiftSums:
    """How often the candidate took longer than stable's quantile times 2^(shift/32), for each shift, by weight."""

    arms: Mapping[float, tuple[int, tuple[int, ...], Tally]] = field(default_factory=dict)
    """The candidate's requests, its events for each shift, and stable's tally."""

    def add(self, threshold: int, comparison: Comparison) -> "ShiftSums":
        """`threshold` is the bucket of stable's quantile, fixed before."""
        candidate, stable = comparison.candidate, comparison.stable
        requests, events, theirs = self.arms.get(comparison.weight, (0, _NO_EVENTS, Tally()))
        slower = candidate.slower_than_each([threshold + shift for shift in SHIFTS])
        events = tuple(map(int.__add__, events, slower))
        theirs = _plus(theirs, Tally(stable.requests, stable.slower_than(threshold)))
        return ShiftSums({**self.arms, comparison.weight: (requests + candidate.requests, events, theirs)})

    def ratio(self) -> Interval | None:
        """The candidate's latency as a multiple of stable's at this quantile; None before there is one."""
        expected = sum(
            theirs.events * requests / theirs.requests for requests, _, theirs in self.arms.values() if theirs.requests
        )
        if not expected:
            return None
        counts = [sum(events[place] for _, events, _ in self.arms.values()) for place in range(len(SHIFTS))]
        rejected = [self._log_e(place) >= _NEEDED for place in range(len(SHIFTS))]
        value = _crossing(counts, expected)
        below = [shift for shift, out in zip(SHIFTS, rejected, strict=True) if out and shift <= value]
        above = [shift for shift, out in zip(SHIFTS, rejected, strict=True) if out and shift > value]
        return Interval(_factor(value), _factor(max(below)) if below else 0.0, _factor(min(above)) if above else None)

    def _log_e(self, place: int) -> float:
        sums = ArmSums(
            {w: (Tally(requests, events[place]), theirs) for w, (requests, events, theirs) in self.arms.items()}
        )
        return sums._log_e(1.0)

    def to_json(self) -> list[list[Any]]:
        return [[w, n, list(events), s.requests, s.events] for w, (n, events, s) in self.arms.items()]

    @staticmethod
    def from_json(data: list[list[Any]]) -> "ShiftSums":
        return ShiftSums({float(w): (n, tuple(events), Tally(ns, es)) for w, n, events, ns, es in data})


_NO_EVENTS = (0,) * len(SHIFTS)


def _crossing(counts: list[int], expected: float) -> float:
    """The first shift, between two of the grid, at which the candidate is as seldom slower as stable."""
    for place in range(len(SHIFTS) - 1):
        one, other = counts[place], counts[place + 1]
        if one > expected >= other:
            part = (one - expected) / (one - other)
            return SHIFTS[place] + part * (SHIFTS[place + 1] - SHIFTS[place])
    return float(SHIFTS[0] if counts[0] <= expected else SHIFTS[-1])


def _factor(shift: float) -> float:
    return float(2.0 ** (shift / 32))


def share_of(seen: Agreement) -> Interval | None:
    """The share of mirrored requests with different answers: Robbins' beta-binomial mixture on both sides."""
    differing, agreeing = seen.disagreed, seen.agreed
    if not seen.total:
        return None

    def log_e(share: float) -> float:
        return log_beta(1 + differing, 1 + agreeing) - differing * math.log(share) - agreeing * math.log1p(-share)

    value = differing / seen.total
    inside = min(max(value, 1e-9), 1 - 1e-9)
    low, high = _bound(log_e, inside, 1e-12), _bound(log_e, inside, 1 - 1e-12)
    return Interval(value, 0.0 if low is None else low, 1.0 if high is None else high)


def accuracy_lost(seen: PairedLabels) -> Interval | None:
    """Stable's accuracy less the candidate's, by bets on both sides; None without a label."""
    if not seen.total:
        return None
    value = (seen.worse - seen.better) / seen.total

    def beyond(side: Side, edge: float) -> float:
        """Halve between the estimate and an edge of [-1, 1]."""
        inside, outside = value, edge
        for _ in range(_HALVINGS):
            middle = (inside + outside) / 2
            is_out = BettingProcess(side, middle, seen).log_e >= _NEEDED + math.log(2)
            inside, outside = (inside, middle) if is_out else (middle, outside)
        return outside

    return Interval(value, beyond(Side.HARM, -1.0), beyond(Side.CLEAR, 1.0))
