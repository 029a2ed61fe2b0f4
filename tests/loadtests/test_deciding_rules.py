"""Other rules, each by an example worked out by hand; and the traffic that all methods meet."""

import math

import numpy as np
import pytest

from loadtests.deciding.cells import CELLS, WINDOWS, Truth
from loadtests.deciding.others import METHODS, Ramp, argo, flagger, is_high, kayenta, mixture_sprt, z_test
from loadtests.deciding.traffic import (
    COLD_WINDOWS,
    SLOW_BUCKET,
    Arm,
    Happening,
    LongRun,
    Release,
    Seen,
    World,
    autocorrelated,
    bursts,
    cold_start,
    diurnal,
    nothing,
    quantile_bucket,
    shared_host,
    shares,
    shifted,
    worse_later,
)

NOTHING = Happening.nothing(WINDOWS)
P99 = quantile_bucket(0.99)
USUAL = LongRun(0.01, P99)
SIZE = len(shares(1.0))


def arm(requests: int, failures: int, bucket: int = P99) -> Arm:
    latencies = np.zeros(SIZE, np.int64)
    latencies[bucket] = requests - failures
    return Arm(requests, failures, latencies)


def ramp_of(minutes: list[tuple[int, int, int]], stable: Arm | None = None) -> Ramp:
    """Minutes of the candidate as (requests, failures, bucket) a window, beside a stable without failures."""
    seen = [
        Seen(6 * minute + part, 0.5, stable or arm(100, 0), arm(*counts))
        for minute, counts in enumerate(minutes)
        for part in range(6)
    ]
    return Ramp.of(seen)


GOOD, FAILING, SLOW, EMPTY = (100, 0, P99), (100, 3, P99), (100, 0, P99 + 9), (0, 0, P99)


def test_flagger_counts_failed_minutes_and_forgets_none() -> None:
    ramp = ramp_of([FAILING, GOOD, SLOW, GOOD, EMPTY, GOOD])
    assert flagger(1)(ramp, USUAL, 0.05) == 5
    assert flagger(2)(ramp, USUAL, 0.05) == 17
    assert flagger(3)(ramp, USUAL, 0.05) == 29
    assert flagger(4)(ramp, USUAL, 0.05) is None


def test_a_limit_is_broken_beyond_it_only() -> None:
    at_the_limit = ramp_of([(100, 2, P99 + 8)])
    assert flagger(1)(at_the_limit, USUAL, 0.05) is None
    assert flagger(1)(at_the_limit, LongRun(0.009, P99), 0.05) == 5


def test_argo_fails_when_more_than_its_limit_failed() -> None:
    ramp = ramp_of([FAILING, FAILING, FAILING, FAILING])
    assert argo(0)(ramp, USUAL, 0.05) == 5
    assert argo(3)(ramp, USUAL, 0.05) == 23
    assert argo(4)(ramp, USUAL, 0.05) is None


def test_argo_takes_minutes_without_requests_for_errors_of_which_five_in_a_row_end_it() -> None:
    now_and_then = ramp_of([EMPTY, EMPTY, EMPTY, EMPTY, GOOD, EMPTY, GOOD])
    assert argo(0)(now_and_then, USUAL, 0.05) is None
    assert flagger(1)(now_and_then, USUAL, 0.05) == 5
    in_a_row = ramp_of([GOOD, EMPTY, EMPTY, EMPTY, EMPTY, EMPTY, GOOD])
    assert argo(3)(in_a_row, USUAL, 0.05) == 35


def test_kayenta_needs_the_whole_interval_beyond_a_quarter_of_the_shift() -> None:
    low, high = np.linspace(1.0, 1.1, 20), np.linspace(2.0, 2.1, 20)
    assert is_high(low, high)
    assert not is_high(high, low)
    assert not is_high(low, low)
    assert not is_high(low, np.where(np.arange(20) % 2, low, high))
    assert not is_high(low[:3], high[:3])


def test_kayenta_judges_at_the_end_or_every_so_often() -> None:
    ramp = ramp_of([FAILING] * 20, stable=arm(100, 1))
    assert kayenta(None)(ramp, USUAL, 0.05) == 119
    assert kayenta(10)(ramp, USUAL, 0.05) == 59


def test_z_is_that_of_the_textbook() -> None:
    """1 % beside 2 % of 5,000 each: z = 4.1 pooled; alpha 5 % halved needs 1.96."""
    ramp = ramp_of([(1000, 20, 0)] * 1, stable=arm(1000, 10, 0))
    pooled = 0.015
    z = 0.01 / (pooled * (1 - pooled) * (2 / 6000)) ** 0.5
    assert z == pytest.approx(4.51, abs=0.01)
    assert z_test(is_peeking=False)(ramp, USUAL, 0.05) == 5
    assert z_test(is_peeking=False)(ramp, USUAL, 1e-6) is None
    peeked = z_test(is_peeking=True)(ramp, USUAL, 0.05)
    assert peeked is not None
    assert peeked < 5


def test_mixture_sprt_reaches_its_bound_and_stays_below_without_a_difference() -> None:
    worse = ramp_of([(1000, 40, 0)] * 4, stable=arm(1000, 10, 0))
    assert mixture_sprt(worse, USUAL, 0.05) is not None
    same = ramp_of([(1000, 10, 0)] * 20, stable=arm(1000, 10, 0))
    assert mixture_sprt(same, USUAL, 0.05) is None


def test_mixture_sprt_is_that_of_the_formula() -> None:
    """2 % beside 1 % of 6,000 each: v = .015 * .985 / 3,000 = 4.925e-6, d = .01, so log E = -1.53 + 9.68 = 8.15.

    The window before stands at 5,000 each, where it is 6.55.
    """
    ramp = ramp_of([(1000, 20, 0)], stable=arm(1000, 10, 0))
    assert mixture_sprt(ramp, USUAL, 2 * math.exp(-8.1)) == 5
    assert mixture_sprt(ramp, USUAL, 2 * math.exp(-8.2)) is None


def test_mixture_sprt_rejects_nothing_for_one_request() -> None:
    one_slow = ramp_of([(1, 1, 0)] + [(0, 0, 0)] * 5, stable=arm(1000, 10, 0))
    assert mixture_sprt(one_slow, USUAL, 0.01) != 0


@pytest.mark.parametrize("name", METHODS)
def test_a_candidate_that_fails_everything_is_seen_by_all(name: str) -> None:
    assert METHODS[name](ramp_of([(100, 100, 0)] * 40, stable=arm(100, 1)), USUAL, 0.05) is not None


# Traffic


def test_the_same_window_is_the_same_for_everybody_at_that_weight() -> None:
    worlds = [World(7, 50.0, Release(), Release(), NOTHING) for _ in range(2)]
    worlds[1].window(3, 0.5)
    one, other = (world.window(9, 0.05) for world in worlds)
    assert one.candidate.counts() == other.candidate.counts()
    assert one.stable.counts() == other.stable.counts()
    at_half = worlds[0].window(9, 0.5)
    total = one.stable.requests + one.candidate.requests
    assert at_half.stable.requests + at_half.candidate.requests == total


def test_rates_and_latencies_come_out() -> None:
    world = World(1, 5000.0, Release(0.01), Release(0.02, 1.5), NOTHING)
    seen = [world.window(number, 0.5) for number in range(10)]
    stable, candidate = (sum(one.failures for one in arms) for arms in
                         ([s.stable for s in seen], [s.candidate for s in seen]))  # fmt: skip
    assert stable == pytest.approx(2500, rel=0.1)
    assert candidate == pytest.approx(5000, rel=0.1)
    slow = sum(one.candidate.slower_than(P99) - one.candidate.failures for one in seen)
    assert slow > 4 * sum(one.stable.slower_than(P99) - one.stable.failures for one in seen)


def test_stables_long_run_is_what_comes_out() -> None:
    """Failures at 1 % in the first half and 5 % in the second are 3 %."""
    dice = np.random.default_rng(5)
    assert World(1, 50.0, Release(), Release(), worse_later(dice, WINDOWS)).long_run() == LongRun(
        pytest.approx(0.03), P99
    )
    world = World(1, 5000.0, Release(), Release(), shared_host(dice, WINDOWS))
    arms = [world.window(number, 0.5).stable for number in range(WINDOWS)]
    usual, requests = world.long_run(), sum(one.requests for one in arms)
    assert sum(one.failures for one in arms) == pytest.approx(usual.failing * requests, rel=0.02)
    latencies = np.sum([one.latencies for one in arms], axis=0).cumsum()
    assert int(np.searchsorted(latencies, 0.99 * latencies[-1])) == pytest.approx(usual.p99, abs=1)


def test_what_slows_both_is_no_bad_request_of_the_candidate() -> None:
    world = World(1, 5000.0, Release(), Release(), bursts(3.0, 30.0, is_common=True)(np.random.default_rng(5), WINDOWS))
    slow, expected, requests = 0, 0.0, 0
    for number in range(WINDOWS):
        candidate, usual = world.window(number, 0.5).candidate, world.usual(number)
        slow += candidate.slower_than(SLOW_BUCKET)
        expected += (usual.failing + usual.slow) * candidate.requests
        requests += candidate.requests
    assert slow > 0.02 * requests
    assert slow == pytest.approx(expected, rel=0.01)


def test_latencies_are_shares_of_one_and_shift_without_loss() -> None:
    assert shares(1.0).sum() == pytest.approx(1)
    latencies = np.arange(SIZE)
    for shift in (1, 40, -3):
        moved = shifted(latencies, shift)
        assert moved.sum() == latencies.sum()
    assert shifted(latencies, 5)[100] == latencies[95]
    assert shifted(latencies, -5)[95] == latencies[100]


def test_what_happens_is_as_it_is_named() -> None:
    dice = np.random.default_rng(3)
    common = bursts(3.0, 30.0, is_common=True)(dice, 2000)
    assert (common.stable_failing == common.candidate_failing).all()
    apart = bursts(3.0, 60.0, is_common=False)(dice, 20_000)
    assert (apart.stable_failing != apart.candidate_failing).any()
    assert (apart.candidate_failing > 0).mean() == pytest.approx(3 / 63, rel=0.3)
    wandering = autocorrelated(dice, 20_000)
    assert np.corrcoef(wandering.stable_shift[1:], wandering.stable_shift[:-1])[0, 1] == pytest.approx(0.7, abs=0.05)
    cold = cold_start(dice, WINDOWS)
    assert (cold.candidate_shift[:COLD_WINDOWS] == 74).all()
    assert not cold.candidate_shift[COLD_WINDOWS:].any()
    assert not cold.stable_shift.any()
    wave, opposite = diurnal(0.0)(dice, WINDOWS), diurnal(np.pi)(dice, WINDOWS)
    assert wave.rate + opposite.rate == pytest.approx(np.full(WINDOWS, 2.0))
    assert not nothing(dice, 5).candidate_shift.any()


def test_every_null_cell_has_a_candidate_like_stable() -> None:
    for cell in CELLS.values():
        assert (cell.candidate == Release()) is (cell.truth is Truth.GOOD)
