"""Evidence on how far mirrored answers lie apart, exactly: what one more answer can do, wherever in its bin it lies."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rollout.decision.betting import LEAST_STAKE, STAKES, DifferenceProcess, Side
from rollout.decision.counts import DIFFERENCE_EDGES, Differences
from rollout.decision.mixture import log_mean_exp, log_spaced
from rollout.decision.paired import DifferenceEvidence
from rollout.decision.rules import Plan

ROUNDING = 1e-9
BINS = len(DIFFERENCE_EDGES) - 1

sides = st.sampled_from(Side)
margins = st.floats(0.0005, 0.95)
places = st.floats(0.0, 1.0)
seen_before = st.dictionaries(st.integers(0, BINS - 1), st.integers(0, 200)).map(Differences)
answers = st.lists(st.tuples(st.floats(0.01, 1.0), st.integers(0, BINS - 1), places), min_size=1, max_size=8)
"""Masses of a distribution, with the bin of each value and where in its bin it lies."""


def value_of(one: int, place: float) -> float:
    low, high = DIFFERENCE_EDGES[one], DIFFERENCE_EDGES[one + 1]
    return low + place * (high - low)


def growth(process: DifferenceProcess, outcomes: list[tuple[float, int, float]]) -> float:
    """E of the factor that one more answer of this distribution brings."""
    total = sum(mass for mass, *_ in outcomes)
    after = {one: process.add(Differences({one: 1})).log_e - process.log_e for _, one, _ in outcomes}
    return sum(mass / total * math.exp(after[one]) for mass, one, _ in outcomes)


def mean_of(outcomes: list[tuple[float, int, float]]) -> float:
    return sum(m * value_of(one, place) for m, one, place in outcomes) / sum(m for m, *_ in outcomes)


@given(sides, answers, places, seen_before)
def test_the_evidence_does_not_grow_inside_the_null_wherever_the_values_lie(side, outcomes, place, before):
    mean = min(max(mean_of(outcomes), 1e-3), 0.999)
    margin = mean + place * (0.999 - mean) if side is Side.HARM else 1e-3 + place * (mean - 1e-3)
    if side is Side.HARM or mean_of(outcomes) >= margin:
        assert growth(DifferenceProcess(side, margin, before), outcomes) <= 1 + ROUNDING


@given(sides, answers, seen_before)
def test_it_is_exactly_fair_for_values_on_the_edge_that_counts_with_a_mean_at_the_margin(side, outcomes, before):
    """Of each bin harm counts the lower edge, clear the upper one: there nothing is given away."""
    edge = 0.0 if side is Side.HARM else 1.0
    on_edges = [(mass, one, edge) for mass, one, _ in outcomes]
    if 1e-3 < mean_of(on_edges) < 0.999:
        process = DifferenceProcess(side, mean_of(on_edges), before)
        assert growth(process, on_edges) == pytest.approx(1, abs=1e-9)


def test_beyond_the_margin_the_evidence_grows():
    """So the tests above can fail."""
    on_edge = [(0.5, 0, 0.0), (0.5, 6, 0.0)]
    assert growth(DifferenceProcess(Side.HARM, 0.02), on_edge) > 1
    assert growth(DifferenceProcess(Side.CLEAR, 0.2), on_edge) > 1


@given(sides, margins, st.lists(st.tuples(st.integers(0, BINS - 1), places), min_size=1, max_size=40))
def test_bins_say_no_more_than_the_values_themselves_would(side, margin, found):
    """The same bets on the values as they were: never less evidence than from their bins."""
    most = 0.95 / (margin if side is Side.HARM else 1 - margin)
    gains = [side.value * (value_of(one, place) - margin) for one, place in found]
    stakes = log_spaced(min(LEAST_STAKE, most / 2), most, STAKES)
    exact = log_mean_exp([sum(math.log1p(stake * gain) for gain in gains) for stake in stakes])
    process = DifferenceProcess(side, margin)
    for one, _ in found:
        process = process.add(Differences({one: 1}))
    assert process.log_e <= exact + ROUNDING


@given(sides, margins, st.lists(seen_before, min_size=1, max_size=6))
def test_merged_differences_give_what_the_stream_gives(side, margin, parts):
    stream, merged = DifferenceProcess(side, margin), Differences()
    for part in parts:
        stream, merged = stream.add(part), merged.plus(part)
    assert stream.log_e == pytest.approx(DifferenceProcess(side, margin).add(merged).log_e, rel=1e-12, abs=1e-12)
    assert merged.total == sum(part.total for part in parts)


@given(sides, st.floats(1e-4, 0.9999), st.integers(0, BINS - 1))
def test_no_outcome_ever_loses_everything(side, margin, one):
    log_e = DifferenceProcess(side, margin).add(Differences({one: 1})).log_e
    assert math.log(0.05) - ROUNDING <= log_e < math.inf


def test_equal_answers_clear_and_far_ones_harm():
    plan = Plan()
    evidence = DifferenceEvidence.begin(plan)
    equal, far = evidence.add(0, Differences({0: 400})), evidence.add(0, Differences({5: 100, 7: 100}))
    assert equal.clear.log_e > -math.log(plan.beta) and equal.harm.log_e < 0
    assert far.harm.log_e > -math.log(plan.beta) and far.clear.log_e < 0
    assert (equal.size, far.seen.mean(False), far.seen.mean(True)) == (400, pytest.approx(0.06), pytest.approx(0.125))


def test_a_mean_between_the_margins_decides_neither_way():
    """All values in a bin whose lower edge is within the harm margin and whose upper edge is the clear margin."""
    evidence = DifferenceEvidence.begin(Plan()).add(0, Differences({5: 10_000}))
    assert evidence.harm.log_e <= 0 and evidence.clear.log_e <= 0
