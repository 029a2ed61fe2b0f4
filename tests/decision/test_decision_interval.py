"""Intervals for people: they hold the truth as often as they say, and the estimate always.

An interval may be looked at after every request, so what counts is whether the truth ever leaves it. On small cases
that chance is computed exactly, over all ways the counts can take; on larger ones by simulation with fixed seeds.
"""

from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import assume, example, given
from hypothesis import strategies as st

from rollout.decision.counts import Agreement, ArmCounts, Comparison, PairedLabels, Tally
from rollout.decision.exceedance import RecentLatency, threshold_at
from rollout.decision.guards import Guard
from rollout.decision.interval import (
    MISSED,
    SHIFTS,
    WIDEST,
    ArmSums,
    Interval,
    ShiftSums,
    accuracy_lost,
    share_of,
)
from rollout.decision.live import RateEvidence
from rollout.decision.rules import Plan
from rollout.decision.words import estimate

weights = st.floats(0.01, 0.99)
counts = st.integers(0, 2000)


def holds(interval: Interval | None, truth: float) -> bool:
    if interval is None:
        return True
    return interval.low <= truth <= (np.inf if interval.high is None else interval.high)


def ever_missed(chance: float, looks: int, interval: Callable[[int, int], Interval | None], truth: float) -> float:
    """The chance that the truth ever leaves the interval, in so many throws of which each counts with this chance.

    Exact: the chances of all counts that have not missed yet, look by look.
    """
    alive = np.array([1.0])
    for thrown in range(1, looks + 1):
        alive = np.convolve(alive, [1 - chance, chance])
        held = [holds(interval(hits, thrown - hits), truth) for hits in range(thrown + 1)]
        alive = alive * np.array(held, dtype=float)
    return 1.0 - float(alive.sum())


@pytest.mark.parametrize("share", [0.02, 0.3])
def test_a_share_leaves_its_interval_as_seldom_as_said(share):
    missed = ever_missed(share, 90, lambda differing, same: share_of(Agreement(same, differing)), share)
    assert 0 < missed <= MISSED


@pytest.mark.parametrize(("weight", "ratio"), [(0.5, 1.0), (0.2, 1.0), (0.3, 2.0)])
def test_a_ratio_leaves_its_interval_as_seldom_as_said(weight, ratio):
    """Events alone decide: each is the candidate's with the chance that weight and ratio give it."""
    chance = weight * ratio / (1 - weight + weight * ratio)

    def interval(ours: int, theirs: int) -> Interval | None:
        # As many requests as the weight says, so that the estimate is the events' ratio.
        requests = 10_000 * (ours + theirs)
        candidate = Tally(max(ours, round(weight * requests)), ours)
        return ArmSums().add(weight, candidate, Tally(requests - candidate.requests, theirs)).ratio()

    assert 0 < ever_missed(chance, 36, interval, ratio) <= MISSED


GROWING = (20, 30, 50, 100, 200, 400, 800, 1600)
PATHS = 150


def share_missed(missed: int, paths: int = PATHS) -> bool:
    """Is it at most what is allowed, plus two standard errors?"""
    return missed / paths <= MISSED + 2 * (MISSED * (1 - MISSED) / paths) ** 0.5


def test_accuracy_lost_leaves_its_interval_as_seldom_as_said():
    dice = np.random.default_rng(11)
    chances = (0.02, 0.93, 0.05)
    paths = np.stack([dice.multinomial(step, chances, PATHS) for step in GROWING], axis=1).cumsum(axis=1)
    missed = sum(any(not holds(accuracy_lost(PairedLabels(*map(int, seen))), 0.03) for seen in path) for path in paths)
    assert share_missed(missed)


def test_a_ratio_of_rates_that_change_for_both_alike_leaves_its_interval_as_seldom_as_said():
    """The rate grows tenfold and falls again, and the weight grows: the ratio stays."""
    dice, truth, missed = np.random.default_rng(12), 1.5, 0
    for _ in range(PATHS):
        sums, has_missed = ArmSums(), False
        for step, (rate, weight) in enumerate(((0.02, 0.05), (0.2, 0.05), (0.05, 0.25), (0.02, 0.5), (0.1, 0.5))):
            taken = int(dice.binomial(400 * (step + 1), weight))
            others = 400 * (step + 1) - taken
            ours, theirs = int(dice.binomial(taken, truth * rate)), int(dice.binomial(others, rate))
            sums = sums.add(weight, Tally(taken, ours), Tally(others, theirs))
            has_missed |= not holds(sums.ratio(), truth)
        missed += has_missed
    assert share_missed(missed)


def histogram(dice: np.random.Generator, requests: int, shift: int) -> ArmCounts:
    found, numbers = np.unique(np.rint(dice.normal(200, 20, requests)).astype(int) + shift, return_counts=True)
    return ArmCounts(requests, 0, dict(zip(map(int, found), map(int, numbers), strict=True)))


@pytest.mark.parametrize("shift", [0, 10])
def test_latency_leaves_its_interval_as_seldom_as_said(shift):
    dice, missed, truth = np.random.default_rng(13), 0, 2 ** (shift / 32)
    for _ in range(PATHS):
        sums, has_missed = ShiftSums(), False
        for step in (40, 80, 160, 320):
            arms = histogram(dice, step, 0), histogram(dice, step, shift)
            sums = sums.add(215, Comparison(0.5, *arms))
            has_missed |= not holds(sums.ratio(), truth)
        missed += has_missed
    assert share_missed(missed)


def ordered(interval: Interval | None) -> bool:
    return interval is None or holds(interval, interval.value)


@given(weights, counts, counts, counts, counts)
def test_a_ratios_interval_holds_its_estimate(weight, quiet_c, bad_c, quiet_s, bad_s):
    assume(bad_c and bad_s and quiet_c and quiet_s)
    sums = ArmSums().add(weight, Tally(quiet_c + bad_c, bad_c), Tally(quiet_s + bad_s, bad_s))
    share = (quiet_c + bad_c) / (quiet_c + bad_c + quiet_s + bad_s)
    if 0.8 < share / weight < 1.25 and 0.8 < (1 - share) / (1 - weight) < 1.25:
        assert ordered(sums.ratio())


@given(st.integers(0, 5000), st.integers(0, 5000), st.integers(0, 5000))
def test_the_intervals_of_pairs_hold_their_estimates(one, two, three):
    share, lost = share_of(Agreement(one, two)), accuracy_lost(PairedLabels(one, two, three))
    assert ordered(share) and ordered(lost)
    assert share is None or (share.low >= 0 and share.high is not None and share.high <= 1)
    assert lost is None or (lost.low >= -1 and lost.high is not None and lost.high <= 1)


@given(st.integers(1, 300), st.integers(0, 300), st.integers(1, 2000), st.integers(-60, 90))
def test_latencys_interval_holds_its_estimate(fast, slow, size, shift):
    stable = ArmCounts(fast + slow, 0, {190: fast, 210: slow} if slow else {190: fast})
    candidate = ArmCounts(size, 0, {190 + shift: size})
    assert ordered(ShiftSums().add(195, Comparison(0.5, stable, candidate)).ratio())


@given(st.dictionaries(st.integers(0, 300), st.integers(1, 50), min_size=1, max_size=8), st.sampled_from((0.5, 0.95)))
@example({100: 80, 200: 20}, 0.5)
@example({150: 95, 240: 5}, 0.95)
def test_releases_that_are_equally_fast_are_told_as_such(histogram, p):
    """Where gaps between humps leave the quantile open, nothing but 1x may be told of equal counts."""
    same = ArmCounts(sum(histogram.values()), 0, histogram)
    ratio = ShiftSums().add(threshold_at(RecentLatency(0, histogram), p).bucket, Comparison(0.5, same, same)).ratio()
    assert ratio is None or ratio.value == 1.0


def test_a_candidate_without_any_failure_is_told_as_none():
    """Stable fails 5 %: the ratio is 0, and a bound of 0.001 from below would be wrong."""
    ratio = ArmSums().add(0.5, Tally(200_000, 0), Tally(200_000, 10_000)).ratio()
    assert ratio is not None
    assert (ratio.value, ratio.low) == (0.0, 0.0)
    assert ratio.high is not None and ratio.high < 0.01


def test_a_stable_release_without_any_failure_bounds_nothing_from_above():
    ratio = ArmSums().add(0.5, Tally(1_000_000, 100_000), Tally(1_000_000, 0)).ratio()
    assert ratio is not None
    assert (ratio.value, ratio.high) == (WIDEST, None)
    assert ratio.low > 100


def test_ratios_beyond_what_is_told_apart_are_open_to_that_side():
    """Far more, and far less, than a thousand times: the bound at a thousand would leave the truth out."""
    far_more = ArmSums().add(0.5, Tally(10**6, 900_000), Tally(10**6, 100)).ratio()
    far_less = ArmSums().add(0.5, Tally(10**6, 100), Tally(10**6, 900_000)).ratio()
    assert far_more is not None and far_less is not None
    assert (far_more.value, far_more.high) == (WIDEST, None)
    assert far_less.low <= far_less.value < 1 / WIDEST


def test_what_bounds_latency_nowhere_is_none_and_not_infinite():
    few = ArmCounts(3, 0, {200: 3})
    ratio = ShiftSums().add(199, Comparison(0.5, few, few)).ratio()
    assert ratio is not None
    assert (ratio.low, ratio.high) == (0.0, None)


def test_latency_beyond_the_grid_has_a_lower_bound_only():
    stable = ArmCounts(1000, 0, {190: 900, 210: 100})
    slower = ArmCounts(1000, 0, {190 + SHIFTS[-1] + 20: 1000})
    ratio = ShiftSums().add(200, Comparison(0.5, stable, slower)).ratio()
    assert ratio is not None
    assert ratio.value == ratio.low == 2 ** (SHIFTS[-1] / 32) and ratio.high is None


def test_without_events_there_is_nothing_to_tell():
    assert ArmSums().ratio() is ShiftSums().ratio() is share_of(Agreement()) is accuracy_lost(PairedLabels()) is None
    assert ArmSums().add(0.5, Tally(100, 0), Tally(100, 0)).ratio() is None


def width(interval: Interval | None) -> float:
    assert interval is not None and interval.high is not None
    return interval.high - interval.low


def test_ten_times_the_data_tightens_every_interval():
    def ratio(times: int) -> Interval | None:
        return ArmSums().add(0.3, Tally(300 * times, 30 * times), Tally(700 * times, 35 * times)).ratio()

    def latency(times: int) -> Interval | None:
        stable = ArmCounts(100 * times, 0, dict.fromkeys(range(150, 250), times))
        candidate = ArmCounts(100 * times, 0, dict.fromkeys(range(156, 256), times))
        return ShiftSums().add(199, Comparison(0.5, stable, candidate)).ratio()

    for interval, truth in (
        (ratio, 2.0),
        (latency, 2 ** (6 / 32)),
        (lambda times: share_of(Agreement(97 * times, 3 * times)), 0.03),
        (lambda times: accuracy_lost(PairedLabels(2 * times, 93 * times, 5 * times)), 0.03),
    ):
        before, after = interval(5), interval(50)
        assert width(after) < 0.6 * width(before)
        assert holds(before, truth) and holds(after, truth)


def test_open_ends_are_told_as_such():
    evidence = RateEvidence.begin(Plan(), Guard.ERRORS)
    few = evidence.add(0, 0.5, Tally(10, 1), Tally(10, 1))
    none_of_stable = evidence.add(0, 0.5, Tally(1000, 40), Tally(1000, 0))
    assert estimate(Guard.ERRORS, evidence) == "no request was compared yet"
    assert "1x stable's, too few to say how surely" in estimate(Guard.ERRORS, few)
    told = estimate(Guard.ERRORS, none_of_stable)
    assert "far more than stable's [" in told and ", no upper bound yet]" in told


@given(weights, st.lists(st.tuples(counts, counts, counts, counts), max_size=5))
def test_merged_sums_are_the_streams(weight, parts):
    stream, merged = ArmSums(), ArmSums()
    for quiet_c, bad_c, quiet_s, bad_s in parts:
        stream = stream.add(weight, Tally(quiet_c + bad_c, bad_c), Tally(quiet_s + bad_s, bad_s))
    quiet_c, bad_c, quiet_s, bad_s = (sum(column) for column in zip(*parts, strict=True)) if parts else (0, 0, 0, 0)
    merged = merged.add(weight, Tally(quiet_c + bad_c, bad_c), Tally(quiet_s + bad_s, bad_s))
    assert not parts or stream == merged
    assert ArmSums.from_json(stream.to_json()) == stream


def test_sums_of_latency_survive_storage_and_keep_weights_apart():
    stable, candidate = ArmCounts(10, 1, {200: 9}), ArmCounts(5, 0, {210: 5})
    sums = ShiftSums().add(199, Comparison(0.25, stable, candidate)).add(180, Comparison(0.5, stable, candidate))
    assert ShiftSums.from_json(sums.to_json()) == sums
    assert set(sums.arms) == {0.25, 0.5}
