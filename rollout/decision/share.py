"""Were requests divided as they were meant to be, and do both releases answer alike? The two data checks.

Knows counts of both arms and the weight. Knows nothing of guards: a check says whether there is anything to compare, or
that people should look; it never takes a candidate back.

Sample ratio: every request counts as an event of the odds test (`odds`), so its ratio is that of the candidate's share
to the one it was assigned. H0: within a factor of 1 + tolerance, to either side; the mean of both e-processes. Requests
that are not assigned one by one (few sticky users who send many) break it, and with it every other test.

Answers (`facts/statistics.md` 1.5): given that an answer fell into bin j, whose was it? Where both releases answer
alike, the candidate's with probability w, however the requests change. With a_j of the candidate and b_j of stable, and
a beta mixture of weight k around w,

    log E = sum_j [ ln B(k w + a_j, k (1-w) + b_j) - ln B(k w, k (1-w)) - a_j ln w - b_j ln(1-w) ]

and weights multiply. Where the share of the answers may be off from the weight by a tolerance, the likeliest share
within it stands for w in the null, which makes the evidence smaller, and valid for all of them. It has no margin:
sooner or later any difference is found, so it holds or warns.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from rollout.decision.agreement import log_beta
from rollout.decision.counts import ANSWER_BINS_MOST, AnswerComparison, Comparison, Tally
from rollout.decision.mixture import log_mean_exp
from rollout.decision.odds import OddsProcess, OddsTest
from rollout.decision.rules import Plan

PRIOR = 100.0


@dataclass(frozen=True, slots=True)
class ShareCheck:
    """`requests` of `all_requests` went to the candidate, where `expected` of them should have gone."""

    over: OddsProcess
    under: OddsProcess
    requests: int = 0
    expected: float = 0.0
    all_requests: int = 0

    @staticmethod
    def begin(plan: Plan) -> "ShareCheck":
        most = 1 + plan.checks.share_tolerance
        return ShareCheck(
            OddsProcess.begin(OddsTest.of_harm(most, 0.0)), OddsProcess.begin(OddsTest.of_clear(1 / most, 0.0))
        )

    def add(self, comparison: Comparison) -> "ShareCheck":
        ours, theirs = comparison.candidate.assigned, comparison.stable.assigned
        arms = Tally(ours, ours), Tally(theirs, theirs)
        return ShareCheck(
            self.over.add(comparison.weight, *arms),
            self.under.add(comparison.weight, *arms),
            self.requests + ours,
            self.expected + comparison.weight * (ours + theirs),
            self.all_requests + ours + theirs,
        )

    @property
    def log_e(self) -> float:
        return log_mean_exp((self.over.log_e, self.under.log_e))

    def is_broken(self, plan: Plan) -> bool:
        return self.log_e >= -math.log(plan.checks.share_alpha)

    def to_json(self) -> dict[str, Any]:
        return {
            "over": self.over.to_json(), "under": self.under.to_json(), "requests": self.requests,
            "expected": self.expected, "all_requests": self.all_requests,
        }  # fmt: skip

    def restored(self, data: Mapping[str, Any]) -> "ShareCheck":
        return ShareCheck(
            OddsProcess.from_json(self.over.test, data["over"]),
            OddsProcess.from_json(self.under.test, data["under"]),
            int(data["requests"]),
            float(data["expected"]),
            int(data["all_requests"]),
        )


_NO_ANSWERS = (0,) * ANSWER_BINS_MOST
Bins = tuple[tuple[int, ...], tuple[int, ...]]
"""Answers by bin: stable's and the candidate's."""


@dataclass(frozen=True, slots=True)
class DriftCheck:
    """What both releases answered, by weight: counts are all there is to know."""

    seen: Mapping[float, Bins] = field(default_factory=dict)

    def add(self, answers: AnswerComparison) -> "DriftCheck":
        stable, candidate = self.seen.get(answers.weight, (_NO_ANSWERS, _NO_ANSWERS))
        bins = _sum(stable, answers.stable), _sum(candidate, answers.candidate)
        return replace(self, seen={**self.seen, answers.weight: bins})

    @property
    def log_e(self) -> float:
        return sum(_log_e(weight, *bins) for weight, bins in self.seen.items())

    @property
    def requests(self) -> int:
        """How many of the candidate's answers were compared."""
        return sum(sum(candidate) for _, candidate in self.seen.values())

    def log_e_within(self, tolerance: float) -> float:
        """Evidence against any share of the answers that lies within the tolerance of the weight."""
        return sum(_log_e(weight, *bins, tolerance) for weight, bins in self.seen.items())

    def is_shown(self, plan: Plan) -> bool:
        return self.log_e_within(plan.checks.share_tolerance) >= -math.log(plan.checks.drift_alpha)

    @property
    def widest(self) -> tuple[int, float, float]:
        """The bin in which the shares lie farthest apart, stable's share of it and the candidate's."""
        both = [
            _shares(column)
            for column in zip(*(bins for bins in self.seen.values() if all(map(sum, bins))), strict=True)
        ]
        if not both:
            return 0, 0.0, 0.0
        stable, candidate = both
        widest = max(range(len(stable)), key=lambda b: abs(stable[b] - candidate[b]))
        return widest, stable[widest], candidate[widest]

    def to_json(self) -> list[list[Any]]:
        return [[weight, list(stable), list(candidate)] for weight, (stable, candidate) in self.seen.items()]

    @staticmethod
    def from_json(data: Sequence[Sequence[Any]]) -> "DriftCheck":
        return DriftCheck({float(weight): (tuple(stable), tuple(candidate)) for weight, stable, candidate in data})


def _log_e(weight: float, stable: Sequence[int], candidate: Sequence[int], tolerance: float = 0.0) -> float:
    a, b = PRIOR * weight, PRIOR * (1 - weight)
    share = _likeliest(weight, sum(stable), sum(candidate), tolerance)
    return sum(
        log_beta(a + ours, b + theirs) - log_beta(a, b) - ours * math.log(share) - theirs * math.log1p(-share)
        for ours, theirs in zip(candidate, stable, strict=True)
    )


def _likeliest(weight: float, stable: int, candidate: int, tolerance: float) -> float:
    """The share within the tolerance under which these counts are likeliest: against it the evidence is least."""
    low, high = (weight * ratio / (1 - weight + weight * ratio) for ratio in (1 / (1 + tolerance), 1 + tolerance))
    return min(max(candidate / max(1, stable + candidate), low), high)


def _sum(known: Sequence[int], new: Sequence[int]) -> tuple[int, ...]:
    """Bins that are not given are empty."""
    return tuple(a + b for a, b in zip(known, (*new, *_NO_ANSWERS[len(new) :]), strict=True))


def _shares(bins_by_weight: Sequence[Sequence[int]]) -> list[float]:
    """Each bin's share of the answers, on average over the weights."""
    return [sum(shares) / len(bins_by_weight) for shares in zip(*map(_share, bins_by_weight), strict=True)]


def _share(bins: Sequence[int]) -> list[float]:
    return [count / sum(bins) for count in bins]
