"""The two data checks, exactly: how requests were divided, and whether both releases answer alike."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from rollout.decision.counts import ANSWER_BINS_MOST, AnswerComparison, ArmCounts, Comparison
from rollout.decision.mixture import log_mean_exp
from rollout.decision.odds import RATE_GRID
from rollout.decision.rules import Checks, Drift, Plan
from rollout.decision.share import PRIOR, DriftCheck, ShareCheck

ROUNDING = 1e-9

weights = st.floats(0.001, 0.999)
tolerances = st.floats(0.001, 2.0)
requests = st.integers(0, 500)
parts_of_requests = st.lists(st.tuples(requests, requests), max_size=5)
bins = st.lists(st.integers(0, 60), min_size=1, max_size=ANSWER_BINS_MOST)


def tolerating(tolerance: float) -> Plan:
    return Plan(checks=Checks(share_tolerance=tolerance, drift=Drift.HOLD))


def divided(weight: float, candidate: int, stable: int) -> Comparison:
    arms = (ArmCounts(number, 0, {100: number} if number else {}) for number in (stable, candidate))
    return Comparison(weight, *arms)


def share_growth(check: ShareCheck, weight: float, share: float) -> float:
    """E of the factor that one more request brings, when this share of them goes to the candidate."""
    ours, theirs = check.add(divided(weight, 1, 0)).log_e, check.add(divided(weight, 0, 1)).log_e
    return share * math.exp(ours - check.log_e) + (1 - share) * math.exp(theirs - check.log_e)


def share_at(weight: float, odds_ratio: float) -> float:
    return weight * odds_ratio / (1 - weight + weight * odds_ratio)


@given(weights, tolerances, st.floats(-1.0, 1.0), requests, requests)
def test_a_share_within_the_tolerance_does_not_let_the_evidence_grow(weight, tolerance, place, ours, theirs):
    """The tolerance is one of odds: to either side, and for the mixture of both sides."""
    share = share_at(weight, (1 + tolerance) ** place)
    check = ShareCheck.begin(tolerating(tolerance)).add(divided(weight, ours, theirs))
    assert share_growth(check, weight, share) <= 1 + ROUNDING


@given(weights, st.sampled_from((-1.0, 1.0)))
def test_each_side_is_exactly_fair_at_the_end_of_its_tolerance(weight, side):
    check = ShareCheck.begin(tolerating(0.05))
    one = check.over if side > 0 else check.under
    share, unit = share_at(weight, 1.05**side), ((1, 0), (0, 1))
    after = [getattr(check.add(divided(weight, *arms)), "over" if side > 0 else "under").log_e for arms in unit]
    assert share * math.exp(after[0]) + (1 - share) * math.exp(after[1]) == pytest.approx(math.exp(one.log_e))


@given(st.floats(0.05, 0.95))
def test_a_share_far_outside_the_tolerance_is_found(weight):
    """Divided by sticky keys that few clients share, say; so the tests above can fail."""
    plan = tolerating(0.05)
    for odds_ratio in (0.5, 2.0):
        taken = round(10_000 * share_at(weight, odds_ratio))
        check = ShareCheck.begin(plan).add(divided(weight, taken, 10_000 - taken))
        assert check.is_broken(plan)
        assert share_growth(check, weight, share_at(weight, odds_ratio)) > 1
    fair = round(10_000 * weight)
    assert not ShareCheck.begin(plan).add(divided(weight, fair, 10_000 - fair)).is_broken(plan)


@given(weights, parts_of_requests)
def test_merged_requests_give_what_the_stream_gives(weight, parts):
    stream = ShareCheck.begin(Plan())
    for arms in parts:
        stream = stream.add(divided(weight, *arms))
    ours, theirs = sum(c for c, _ in parts), sum(s for _, s in parts)
    merged = ShareCheck.begin(Plan()).add(divided(weight, ours, theirs))
    assert stream.log_e == pytest.approx(merged.log_e, rel=1e-9, abs=1e-9)
    assert (stream.requests, stream.all_requests) == (ours, ours + theirs)
    assert stream.expected == pytest.approx(weight * (ours + theirs))


@given(st.floats(0.01, 0.99), st.integers(0, 2000), st.integers(0, 2000))
def test_the_share_is_scipys_mixture_of_binomials(weight, ours, theirs):
    total, check = ours + theirs, ShareCheck.begin(Plan()).add(divided(weight, ours, theirs))
    for process, ratio, sign in ((check.over, 1.05, 1), (check.under, 1 / 1.05, -1)):
        null = stats.binom.logpmf(ours, total, share_at(weight, ratio))
        others = [stats.binom.logpmf(ours, total, share_at(weight, ratio * step**sign)) for step in RATE_GRID]
        assert process.log_e == pytest.approx(log_mean_exp([float(o - null) for o in others]), rel=1e-7, abs=1e-6)


def test_what_says_nothing_of_a_release_was_assigned_by_chance_too():
    """Requests whose client went away count for the share: a candidate that drives clients away keeps its own."""
    arms = ArmCounts(500, 0, {100: 500}), ArmCounts(100, 0, {100: 100}, uncharged=400)
    assert not ShareCheck.begin(Plan()).add(Comparison(0.5, *arms)).is_broken(Plan())
    lost = Comparison(0.5, arms[0], ArmCounts(100, 0, {100: 100}))
    assert ShareCheck.begin(Plan()).add(lost).is_broken(Plan())


def drift_growth(check: DriftCheck, weight: float, stable: list[float], candidate: list[float]) -> float:
    """E of the factor that one more answer brings, under these shares of the bins."""
    none, before, total = (0,) * len(stable), check.log_e, 0.0
    for one in range(len(stable)):
        unit = tuple(int(place == one) for place in range(len(stable)))
        ours = check.add(AnswerComparison(weight, none, unit)).log_e
        theirs = check.add(AnswerComparison(weight, unit, none)).log_e
        total += weight * candidate[one] * math.exp(ours - before) + (1 - weight) * stable[one] * math.exp(
            theirs - before
        )
    return total


masses = st.lists(st.floats(0.0, 1.0), min_size=2, max_size=8).filter(lambda found: sum(found) > 0.1)


@given(weights, weights, masses, st.data())
def test_answers_alike_are_exactly_fair_whatever_they_are(weight, earlier, found, data):
    """After anything seen before, under this weight or another one."""
    arms = st.lists(st.integers(0, 40), min_size=len(found), max_size=len(found)).map(tuple)
    check = DriftCheck()
    for at in (weight, earlier):
        check = check.add(AnswerComparison(at, data.draw(arms), data.draw(arms)))
    shares = [mass / sum(found) for mass in found]
    assert drift_growth(check, weight, shares, shares) == pytest.approx(1, abs=1e-7)


def test_answers_that_differ_let_the_evidence_grow():
    check = DriftCheck().add(AnswerComparison(0.5, (300, 700), (400, 600)))
    assert drift_growth(check, 0.5, [0.3, 0.7], [0.4, 0.6]) > 1


@given(st.floats(0.01, 0.99), bins, st.data())
def test_drift_is_scipys_beta_binomial_against_the_binomial(weight, stable, data):
    candidate = data.draw(st.lists(st.integers(0, 60), min_size=len(stable), max_size=len(stable)))
    check = DriftCheck().add(AnswerComparison(weight, tuple(stable), tuple(candidate)))
    theirs = 0.0
    for ours, other in zip(candidate, stable, strict=True):
        mixture = stats.betabinom(ours + other, PRIOR * weight, PRIOR * (1 - weight))
        theirs += float(mixture.logpmf(ours) - stats.binom.logpmf(ours, ours + other, weight))
    assert check.log_e == pytest.approx(theirs, rel=1e-7, abs=1e-7)


@given(st.floats(0.01, 0.99), st.floats(0.001, 0.5), st.floats(-1.0, 1.0), bins, st.data())
def test_no_share_within_the_tolerance_has_less_evidence_against_it(weight, tolerance, place, stable, data):
    """Against each of them the evidence is an e-value (SciPy's mixture beside that share's binomial): this is less."""
    candidate = data.draw(st.lists(st.integers(0, 60), min_size=len(stable), max_size=len(stable)))
    check = DriftCheck().add(AnswerComparison(weight, tuple(stable), tuple(candidate)))
    share = share_at(weight, (1 + tolerance) ** place)
    against = 0.0
    for ours, other in zip(candidate, stable, strict=True):
        mixture = stats.betabinom(ours + other, PRIOR * weight, PRIOR * (1 - weight))
        against += float(mixture.logpmf(ours) - stats.binom.logpmf(ours, ours + other, share))
    assert check.log_e_within(tolerance) <= against + 1e-6
    assert check.log_e_within(0.0) == pytest.approx(check.log_e)


def test_drift_within_a_tolerated_share_is_still_found():
    plan = tolerating(0.05)
    check = DriftCheck().add(AnswerComparison(0.5, (600, 400), (400, 600)))
    assert check.is_shown(plan)
    assert not DriftCheck().add(AnswerComparison(0.5, (51_000, 51_000), (49_000, 49_000))).is_shown(plan)


@given(weights, st.lists(st.tuples(bins, bins), max_size=5))
def test_merged_answers_give_what_the_stream_gives(weight, parts):
    """Of intervals that know of more bins and of fewer: a bin that is not given is empty."""
    stream, total = DriftCheck(), ([0] * ANSWER_BINS_MOST, [0] * ANSWER_BINS_MOST)
    for stable, candidate in parts:
        size = min(len(stable), len(candidate))
        stream = stream.add(AnswerComparison(weight, tuple(stable[:size]), tuple(candidate[:size])))
        for known, new in zip(total, (stable, candidate), strict=True):
            known[:size] = map(int.__add__, known[:size], new[:size])
    merged = DriftCheck().add(AnswerComparison(weight, *map(tuple, total)))
    assert stream.log_e == pytest.approx(merged.log_e, rel=1e-9, abs=1e-9)
    assert stream.requests == merged.requests == sum(total[1])


def test_drift_is_told_where_it_is_widest_on_average_over_the_weights():
    check = DriftCheck().add(AnswerComparison(0.5, (50, 50), (50, 50)))
    check = check.add(AnswerComparison(0.25, (60, 40), (20, 80)))
    widest, stable, candidate = check.widest
    assert widest in (0, 1)
    assert abs(stable - candidate) == pytest.approx(0.2)
    assert DriftCheck().widest == (0, 0.0, 0.0)
    assert DriftCheck().add(AnswerComparison(0.5, (0, 0), (3, 4))).widest == (0, 0.0, 0.0)
