"""The e-detector, exactly: its recursion, and what it promises on average, by enumerating fair blocks."""

import math
from dataclasses import replace
from itertools import product

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rollout.decision.cap import RESERVE, CappedEvidence
from rollout.decision.live import late_from_json, late_to_json

ERROR, BLOCKS = 1e-4, 3
MOST = (1 / ERROR) ** (1 / BLOCKS)

factors = st.lists(st.floats(0.01, 50.0), min_size=1, max_size=12)
begins = st.tuples(st.integers(0, 100), st.floats(-50.0, 50.0))


def limited(factor: float) -> float:
    return min(RESERVE + (1 - RESERVE) * factor, MOST)


def values(blocks: list[float], begin: tuple[int, float] = (0, 0.0)) -> list[float]:
    """What the detector says at the end of each block in which the evidence grew by such a factor."""
    first, log_e = begin
    detector, found = CappedEvidence.detecting(BLOCKS, ERROR, first, log_e), []
    for number, factor in enumerate(blocks):
        log_e += math.log(factor)
        detector = detector.add(first + number, log_e)
        found.append(math.exp(detector.log_e))
    return found


@given(factors, begins)
def test_it_is_the_recursion_of_shiryaev_and_roberts(blocks, begin):
    value = 0.0
    for factor, found in zip(blocks, values(blocks, begin), strict=True):
        value = limited(factor) * (value + 1)
        assert found == pytest.approx(value, rel=1e-9)


@given(factors)
def test_it_is_the_sum_of_the_evidence_begun_at_every_block(blocks):
    begun = (math.prod(map(limited, blocks[first:])) for first in range(len(blocks)))
    assert values(blocks)[-1] == pytest.approx(sum(begun), rel=1e-9)


@given(st.lists(st.floats(0.05, 0.95), min_size=1, max_size=7), st.floats(1.1, 8.0))
def test_after_k_fair_blocks_it_is_k_on_average_at_most(chances, gain):
    """Each block multiplies the evidence by `gain` or loses, so that its expectation is 1; all ways are counted."""
    expected = 0.0
    losses = [(1 - min(p, 0.9 / gain) * gain) / (1 - min(p, 0.9 / gain)) for p in chances]
    for way in product((True, False), repeat=len(chances)):
        chance = math.prod(
            min(p, 0.9 / gain) if won else 1 - min(p, 0.9 / gain) for p, won in zip(chances, way, strict=True)
        )
        blocks = [gain if won else loss for won, loss in zip(way, losses, strict=True)]
        expected += chance * values(blocks)[-1]
    assert expected <= len(chances) + 1e-9


def test_unfair_blocks_break_that_bound_so_it_can_be_broken():
    assert values([1.5] * 5)[-1] > 5


@given(factors, factors)
def test_looking_within_a_block_changes_nothing_but_what_was_shown_at_its_end(blocks, inside):
    log_e, detector = 0.0, CappedEvidence.detecting(BLOCKS, ERROR, 0, 0.0)
    looked = detector
    for number, factor in enumerate(blocks):
        for look in inside:
            looked = looked.add(number, log_e + math.log(look))
        log_e += math.log(factor)
        detector, looked = detector.add(number, log_e), looked.add(number, log_e)
    assert replace(looked, peak=detector.peak) == detector
    assert looked.peak >= detector.peak


@given(st.integers(1, 6))
def test_a_window_that_comes_late_counts_for_the_running_block(late):
    detector = CappedEvidence.detecting(BLOCKS, ERROR, 5, 0.0).add(6, 1.0)
    assert detector.add(6 - late, 2.0) == detector.add(6, 2.0)


def test_an_alarm_takes_as_many_blocks_as_must_agree():
    grown = values([1e9] * BLOCKS)
    assert grown[-1] >= 1 / ERROR > grown[-2]


def test_long_good_behaviour_does_not_hide_what_comes_after_it():
    """The sum keeps at least what the last block began, where one process would have lost all."""
    good, bad = [0.5] * 500, [20.0] * 4
    assert values(good + bad)[-1] >= values(bad)[-1]
    whole = CappedEvidence.needing(BLOCKS, ERROR)
    for number, log_e in enumerate([-0.7 * n for n in range(500)]):
        whole = whole.add(number, log_e)
    assert whole.log_e < -100


@given(factors, begins)
def test_it_survives_storage_bit_by_bit(blocks, begin):
    first, log_e = begin
    detector = CappedEvidence.detecting(BLOCKS, ERROR, first, log_e)
    for number, factor in enumerate(blocks):
        detector = detector.add(first + number, log_e + math.log(factor))
    assert late_from_json(late_to_json(detector)) == detector
    assert late_from_json(late_to_json(None)) is None


@given(st.lists(st.tuples(st.integers(0, 2), st.floats(-20.0, 20.0)), max_size=20))
def test_the_peak_is_the_most_that_it_ever_came_to(steps):
    """What was shown once stays shown: it is the chance of ever coming so far that is bounded."""
    evidence, block, log_e, most = CappedEvidence.needing(BLOCKS, ERROR), 0, 0.0, 0.0
    for further, change in steps:
        block, log_e = block + further, log_e + change
        evidence = evidence.add(block, log_e)
        most = max(most, evidence.log_e)
        assert evidence.peak == pytest.approx(most)
    assert CappedEvidence.needing(BLOCKS, ERROR).restored(evidence.to_json()) == evidence
