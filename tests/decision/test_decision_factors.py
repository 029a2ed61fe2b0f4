"""The laws of the evidence, exactly: each one-step factor's expectation, by enumerating what one request can do."""

import math
import sys
from itertools import pairwise

import pytest
from hypothesis import assume, example, given
from hypothesis import strategies as st
from scipy import special, stats

from gateway.windows import LAST_BUCKET
from rollout.decision.agreement import AgreementProcess, log_beta, log_incomplete_beta
from rollout.decision.betting import BettingProcess, Side
from rollout.decision.breaker import BROKEN, TOLERATED, Breaker
from rollout.decision.cap import RESERVE, CappedEvidence
from rollout.decision.counts import Agreement, ArmCounts, Comparison, PairedLabels
from rollout.decision.exceedance import ExceedanceProcess, RecentLatency, Threshold, threshold_at
from rollout.decision.mixture import log_mean_exp, log_spaced
from rollout.decision.odds import SHARED, OddsProcess, OddsTest, Tally

ROUNDING = 1e-9

shares = st.floats(0.0, 1.0)
weights = st.floats(0.001, 0.999)
ratios = st.floats(1.0, 3.0)
floors = st.floats(0.0001, 0.05)
margins = st.floats(0.001, 0.3)
counts = st.integers(0, 400)


def expected_odds(process: OddsProcess, weight: float, candidate_rate: float, stable_rate: float) -> float:
    """E of the e-value after one request, over its four outcomes."""
    none = Tally(0, 0)
    outcomes = (
        (weight * candidate_rate, Tally(1, 1), none),
        (weight * (1 - candidate_rate), Tally(1, 0), none),
        ((1 - weight) * stable_rate, none, Tally(1, 1)),
        ((1 - weight) * (1 - stable_rate), none, Tally(1, 0)),
    )
    return sum(chance * math.exp(process.add(weight, *arms).log_e) for chance, *arms in outcomes)


@given(weights, ratios, floors, shares, shares)
def test_evidence_of_harm_does_not_grow_while_the_candidate_is_within_the_boundary(w, ratio, floor, stable, inside):
    boundary = min(1.0, ratio * (stable + floor * (1 - stable)))
    process = OddsProcess.begin(OddsTest.of_harm(ratio, floor))
    assert expected_odds(process, w, inside * boundary, stable) <= 1 + ROUNDING


@given(weights, ratios, floors, shares, shares)
def test_evidence_of_being_clear_does_not_grow_while_the_candidate_is_beyond_the_boundary(w, ratio, floor, share, out):
    boundary = ratio * floor + share * (1 - ratio * floor)
    stable = max(0.0, (boundary / ratio - floor) / (1 - floor))
    process = OddsProcess.begin(OddsTest.of_clear(ratio, floor))
    assert expected_odds(process, w, boundary + out * (1 - boundary), stable) <= 1 + ROUNDING


@given(weights, ratios, floors, st.floats(0.0, 0.2))
def test_on_the_boundary_the_expectation_is_exactly_one(w, ratio, floor, stable):
    boundary = ratio * (stable + floor * (1 - stable))
    for test in (OddsTest.of_harm(ratio, floor), OddsTest.of_clear(ratio, floor)):
        assert expected_odds(OddsProcess.begin(test), w, boundary, stable) == pytest.approx(1, abs=1e-9)


@given(weights, st.lists(st.tuples(counts, counts, counts, counts), min_size=1, max_size=8))
def test_merged_counts_give_what_the_stream_gives(w, parts):
    test = OddsTest.of_harm(1.0, 0.001)
    stream = OddsProcess.begin(test)
    for ok_c, bad_c, ok_s, bad_s in parts:
        stream = stream.add(w, Tally(ok_c + bad_c, bad_c), Tally(ok_s + bad_s, bad_s))
    ok_c, bad_c, ok_s, bad_s = (sum(column) for column in zip(*parts, strict=True))
    merged = OddsProcess.begin(test).add(w, Tally(ok_c + bad_c, bad_c), Tally(ok_s + bad_s, bad_s))
    assert stream.log_e == pytest.approx(merged.log_e, rel=1e-9, abs=1e-9)


@given(st.sampled_from(Side), margins, st.floats(0, 1), st.floats(0, 1))
def test_a_bet_on_quality_is_fair_at_its_margin_and_loses_inside_the_null(side, margin, discordant, place):
    mean = margin * place if side is Side.HARM else margin + place * (1 - margin)
    discordant = max(discordant, mean)
    worse, better = (discordant + mean) / 2, (discordant - mean) / 2
    process = BettingProcess(side, margin)
    expectation = (
        worse * math.exp(process.add(PairedLabels(worse=1)).log_e)
        + better * math.exp(process.add(PairedLabels(better=1)).log_e)
        + (1 - worse - better) * math.exp(process.add(PairedLabels(equal=1)).log_e)
    )
    assert expectation <= 1 + ROUNDING
    if place == (1.0 if side is Side.HARM else 0.0):
        assert expectation == pytest.approx(1)


@given(st.sampled_from(Side), margins, st.integers(0, 60), st.integers(0, 60), shares)
def test_one_more_mirrored_answer_does_not_raise_the_evidence_inside_the_null(side, margin, agreed, disagreed, place):
    rate = margin * place if side is Side.HARM else margin + place * (1 - margin)
    process = AgreementProcess(side, margin, Agreement(agreed, disagreed))
    differs, agrees = process.add(Agreement(0, 1)).log_e, process.add(Agreement(1, 0)).log_e
    growth = rate * math.exp(differs - process.log_e) + (1 - rate) * math.exp(agrees - process.log_e)
    assert growth <= 1 + 1e-7


@given(st.floats(0.5, 5000), st.floats(0.5, 5000), st.floats(0.001, 0.999))
def test_the_incomplete_beta_function_is_scipys(a, b, x):
    theirs = special.betainc(a, b, x)
    if theirs > 1e-280:
        assert log_incomplete_beta(a, b, x) == pytest.approx(math.log(theirs), rel=1e-8, abs=1e-8)
    assert log_beta(a, b) == pytest.approx(special.betaln(a, b), rel=1e-9, abs=1e-9)


LEAST_EXACT_LOG = math.log(sys.float_info.min)
"""Below this SciPy takes the logarithm of a denormal number, and loses digits that we keep."""


@given(st.integers(0, 3000), st.integers(0, 300), margins)
def test_agreement_is_scipys_beta_binomial_mixture(agreed, disagreed, margin):
    total = agreed + disagreed
    null = disagreed * math.log(margin) + agreed * math.log1p(-margin)
    posterior = stats.beta(1 + disagreed, 1 + agreed)
    mass = special.betaln(1 + disagreed, 1 + agreed) - null
    seen = Agreement(agreed, disagreed)
    harm = (posterior.logsf(margin), math.log1p(-margin))
    clear = (posterior.logcdf(margin), math.log(margin))
    for side, (log_tail, log_prior) in ((Side.HARM, harm), (Side.CLEAR, clear)):
        if log_tail > LEAST_EXACT_LOG:
            theirs = mass + log_tail - log_prior
            assert AgreementProcess(side, margin, seen).log_e == pytest.approx(
                theirs, rel=1e-7, abs=1e-6 + 1e-9 * total
            )


@pytest.mark.parametrize("failing", [0.0, 0.1, 0.2, TOLERATED])
def test_the_breakers_factor_is_at_most_one_for_a_candidate_that_mostly_works(failing):
    failure, success = (math.exp(Breaker().add(1, n).log_e) for n in (1, 0))
    assert failing * failure + (1 - failing) * success <= 1 + ROUNDING
    assert BROKEN * math.log(failure) + (1 - BROKEN) * math.log(success) > 0


def test_seven_failures_trip_the_breaker_even_after_an_hour_of_success():
    healthy = Breaker()
    for _ in range(3600):
        healthy = healthy.add(300, 1)
    assert not healthy.add(6, 6).is_tripped
    assert healthy.add(7, 7).is_tripped


@given(st.lists(st.tuples(st.integers(0, 6), st.floats(-30, 30)), max_size=30), st.integers(1, 5))
def test_a_block_adds_no_more_than_its_share_and_takes_no_more_than_it_risked(steps, blocks):
    cap, before, raw = CappedEvidence.needing(blocks, 0.01), 0.0, 0.0
    for block, change in sorted(steps, key=lambda step: step[0]):
        if block > cap.block:
            before = cap.log_e
        raw += change
        cap = cap.add(block, raw)
        assert cap.log_e <= before + math.log(100) / blocks + ROUNDING
        assert cap.log_e >= before + math.log(RESERVE) - ROUNDING


def one_step(
    process: ExceedanceProcess, at: Threshold, weight: float, stable: list[int], candidate: list[int]
) -> float:
    """E of the e-value after one request, for latencies that fall into each bucket as often as these weights say."""
    none, total = ArmCounts(), 0.0
    for masses, is_candidate in ((stable, False), (candidate, True)):
        for bucket, mass in enumerate(masses):
            one = ArmCounts(1, 0, {bucket: 1})
            comparison = Comparison(weight, none, one) if is_candidate else Comparison(weight, one, none)
            chance = (weight if is_candidate else 1 - weight) * mass / sum(masses)
            total += chance * math.exp(process.add(at, comparison).log_e)
    return total


distributions = st.lists(st.integers(0, 100), min_size=30, max_size=30).filter(any)


@given(weights, distributions, distributions, st.integers(0, 8), st.sampled_from((0.5, 0.95, 0.99)))
@example(0.5, [80, *[0] * 9, 20, *[0] * 19], [85, *[0] * 27, 15, 0], 8, 0.95)
@example(0.5, [*[0] * 10, 100, *[0] * 19], [*[0] * 10, 90, *[0] * 17, 10, 0], 8, 0.95)
def test_a_candidate_whose_quantile_is_beyond_the_margin_is_not_cleared(weight, stable, candidate, margin, p):
    """Whatever the shapes: two humps (a cache's hits and misses), or all of stable's requests in one bucket."""
    recent = RecentLatency(0, dict(enumerate(stable)))
    quantile = RecentLatency(0, dict(enumerate(candidate))).quantile_bucket(p)
    if quantile > recent.quantile_bucket(p) + margin:
        process = ExceedanceProcess.begin(Side.CLEAR, margin)
        assert one_step(process, threshold_at(recent, p), weight, stable, candidate) <= 1 + ROUNDING


ONE_BUCKET = {200: 20_000}
TWO_HUMPS = {100: 16_000, 200: 4_000}
RARE_FAR_TAIL = {198: 6_000, 200: 10_000, 202: 3_860, 300: 140}


@pytest.mark.parametrize("p", [0.5, 0.95, 0.99])
@pytest.mark.parametrize("shape", [ONE_BUCKET, TWO_HUMPS, RARE_FAR_TAIL], ids=["one bucket", "two humps", "a far tail"])
def test_equally_fast_releases_are_cleared_whatever_their_shape(shape, p):
    """A model that takes the same time for every request, a cache, or pauses that hit one request in 140."""
    same = ArmCounts(20_000, 0, shape)
    process = ExceedanceProcess.begin(Side.CLEAR, 8).add(threshold_at(RecentLatency(0, shape), p), compared(same, same))
    assert process.log_e > 3.0


def compared(stable: ArmCounts, candidate: ArmCounts) -> Comparison:
    return Comparison(0.5, stable, candidate)


@given(weights, distributions, st.lists(st.integers(0, 10), min_size=30, max_size=30), st.integers(0, 8), shares)
def test_a_candidate_that_is_nowhere_beyond_the_margin_shows_no_harm(weight, stable, faster, margin, p):
    """Each bucket of stable's, moved up by the margin and then down by any number of buckets."""
    candidate = [0] * (30 + margin)
    for bucket, mass in enumerate(stable):
        candidate[max(0, bucket + margin - faster[bucket])] += mass
    at = threshold_at(RecentLatency(0, dict(enumerate(stable))), p)
    assert one_step(ExceedanceProcess.begin(Side.HARM, margin), at, weight, stable, candidate) <= 1 + ROUNDING


@given(weights, distributions, st.integers(0, 30), st.integers(1, 8), st.sampled_from((0, 1)))
def test_exceedance_is_fair_where_its_edges_say_and_rounds_against_itself(w, stable, at, margin, part):
    """With none or all of the quantile's bucket beyond it, the edges that are compared are known."""
    for side, slower in ((Side.HARM, margin + part), (Side.CLEAR, margin - 1 + part)):
        candidate = [*[0] * slower, *stable]
        assert one_step(
            ExceedanceProcess.begin(side, margin), Threshold(at, part), w, stable, candidate
        ) == pytest.approx(1)


@given(weights, distributions, st.integers(0, 30), st.integers(1, 8), shares)
def test_a_candidate_exactly_a_margin_slower_is_neither_harmed_nor_cleared(w, stable, at, margin, part):
    at_margin = [*[0] * margin, *stable]
    for side in Side:
        process = ExceedanceProcess.begin(side, margin)
        assert one_step(process, Threshold(at, part), w, stable, at_margin) <= 1 + ROUNDING


def test_a_threshold_in_the_open_bucket_does_not_clear_a_candidate_slower_than_it():
    """Beyond the last edge nothing is known, so what lies there must count as slow."""
    slow = ArmCounts(1000, 0, {LAST_BUCKET: 1000})
    fast = ArmCounts(1000, 0, {LAST_BUCKET - 20: 1000})
    clear = ExceedanceProcess.begin(Side.CLEAR, 8).add(Threshold(LAST_BUCKET, 0.5), Comparison(0.5, fast, slow))
    assert clear.log_e < 0


def test_failures_are_infinitely_slow():
    fast, failing = ArmCounts(100, 0, {10: 100}), ArmCounts(100, 60, {1: 40})
    assert ExceedanceProcess.begin(Side.HARM, 2).add(Threshold(10, 0.05), Comparison(0.5, fast, failing)).log_e > 5


@given(st.dictionaries(st.integers(0, 300), st.integers(1, 50), min_size=1), st.sampled_from((0.5, 0.95, 0.99)))
def test_the_quantile_is_the_nearest_ranks_bucket(histogram, p):
    latencies = sorted(bucket for bucket, count in histogram.items() for _ in range(count))
    rank = max(1, math.ceil(p * len(latencies)))
    assert RecentLatency(0, histogram).quantile_bucket(p) == latencies[rank - 1]
    assert RecentLatency(10**6, histogram).quantile_bucket(p) == LAST_BUCKET


@given(st.lists(st.floats(-500, 500), min_size=10, max_size=10))
def test_sharing_leaves_the_evidence_as_it_is_and_gives_every_alternative_a_part(logs):
    before = OddsProcess(OddsTest.of_harm(1.0, 0.001), tuple(logs))
    after = before.shared()
    assert after.log_e == pytest.approx(before.log_e, rel=1e-12, abs=1e-9)
    assert min(after.logs) >= before.log_e + math.log(SHARED) - ROUNDING


@given(st.lists(st.tuples(st.floats(0.01, 1), st.floats(0, 5)), min_size=2, max_size=6))
def test_the_cap_keeps_an_e_value_an_e_value(outcomes):
    """Any gamble whose factor has expectation 1 has at most 1 after the reserve and the cap."""
    total = sum(chance for chance, _ in outcomes)
    mean = sum(chance * factor for chance, factor in outcomes) / total
    assume(mean > 1e-6)
    capped = CappedEvidence.needing(3, 0.01)
    factors = [(chance / total, factor / mean) for chance, factor in outcomes if factor > 1e-9]
    assert sum(p * math.exp(capped.add(1, math.log(x)).log_e) for p, x in factors) <= 1 + ROUNDING


def test_a_threshold_is_the_bucket_of_the_quantile_of_successes_and_the_part_of_it_beyond():
    assert threshold_at(RecentLatency(50, {100: 90, 120: 10}), 0.99) == Threshold(120, pytest.approx(0.1))
    assert threshold_at(RecentLatency(0, {0: 100}), 0.5) == Threshold(0, 0.5)
    assert threshold_at(RecentLatency(0, {10: 60, 20: 40}), 0.5) == Threshold(10, pytest.approx(1 / 6))


def test_mixtures_do_not_overflow_and_grids_are_even():
    assert log_mean_exp([5000.0, -5000.0]) == pytest.approx(5000 - math.log(2))
    grid = log_spaced(1.1, 12.0, 10)
    assert (grid[0], grid[-1]) == (1.1, pytest.approx(12.0))
    assert len({round(after / before, 9) for before, after in pairwise(grid)}) == 1
