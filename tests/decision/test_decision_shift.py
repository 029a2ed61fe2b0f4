"""The test of the whole distribution, exactly: what one request can do, by enumeration."""

import math
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.windows import LAST_BUCKET
from rollout.decision.counts import ArmCounts, Comparison
from rollout.decision.exceedance import RecentLatency
from rollout.decision.shift import QUANTILES, SCORES, ShiftProcess, edges_of

NONE = ArmCounts()
edges = st.lists(st.integers(0, 60), min_size=len(QUANTILES), max_size=len(QUANTILES)).map(sorted)
masses = st.lists(st.floats(0.0, 1.0), min_size=70, max_size=70).filter(lambda found: sum(found) > 0.1)
weights = st.floats(0.01, 0.99)


def one(bucket: int) -> ArmCounts:
    """One request: a latency, or a failure where the bucket is infinite."""
    return ArmCounts(1, 1) if bucket > LAST_BUCKET else ArmCounts(1, 0, {bucket: 1})


def expected(process: ShiftProcess, at: list[int], w: float, stable: dict[int, float], candidate: dict[int, float]):
    """E of the e-value after one request of these distributions."""
    total = 0.0
    for bucket, share in candidate.items():
        total += w * share * math.exp(process.add(at, Comparison(w, NONE, one(bucket))).log_e)
    for bucket, share in stable.items():
        total += (1 - w) * share * math.exp(process.add(at, Comparison(w, one(bucket), NONE)).log_e)
    return total


def shares(found: list[float], shift: int = 0) -> dict[int, float]:
    return {bucket + shift: mass / sum(found) for bucket, mass in enumerate(found) if mass}


@given(weights, masses, edges, st.integers(0, 20))
def test_it_is_fair_for_a_candidate_exactly_the_margin_slower(w, found, at, margin):
    process = ShiftProcess(margin)
    assert expected(process, at, w, shares(found), shares(found, margin)) == pytest.approx(1)


@given(weights, masses, edges, st.integers(0, 20), st.integers(0, 69), st.integers(1, 69))
def test_evidence_does_not_grow_for_one_that_is_nowhere_slower(w, found, at, margin, bucket, faster):
    """Move any mass of the candidate's at the margin to anywhere faster."""
    candidate = shares(found, margin)
    moved = candidate.pop(bucket + margin, 0.0)
    to = max(0, bucket + margin - faster)
    candidate[to] = candidate.get(to, 0.0) + moved
    assert expected(ShiftProcess(margin), at, w, shares(found), candidate) <= 1 + 1e-9


@given(weights, edges, st.integers(0, 20))
def test_failures_of_both_alike_are_fair_and_of_the_candidate_alone_are_evidence(w, at, margin):
    failing = {LAST_BUCKET + 1: 0.1, 30: 0.9}
    slower = {LAST_BUCKET + 1: 0.1, 30 + margin: 0.9}
    assert expected(ShiftProcess(margin), at, w, failing, slower) == pytest.approx(1)


def test_failures_are_infinitely_slow():
    failing, fine = ArmCounts(50, 30, {30: 20}), ArmCounts(50, 0, {30: 50})
    assert ShiftProcess(2).add([26, 28, 31, 33, 35, 37, 39], Comparison(0.5, fine, failing)).log_e > 5


@given(weights, st.lists(st.tuples(st.integers(0, 100), st.integers(0, 60)), min_size=1, max_size=6), edges)
def test_merged_counts_give_what_the_stream_gives(w, parts, at):
    stream = ShiftProcess(2)
    for count, bucket in parts:
        stream = stream.add(
            at, Comparison(w, ArmCounts(count, 0, {bucket: count}), ArmCounts(count, 0, {bucket: count}))
        )
    merged: dict[int, int] = {}
    for count, bucket in parts:
        merged[bucket] = merged.get(bucket, 0) + count
    total = sum(merged.values())
    arms = ArmCounts(total, 0, merged), ArmCounts(total, 0, merged)
    assert stream.log_e == pytest.approx(ShiftProcess(2).add(at, Comparison(w, *arms)).log_e, abs=1e-9)


def test_slower_throughout_is_seen_where_one_quantile_sees_little():
    stable = dict.fromkeys(range(100, 150), 20)
    slower = {bucket + 6: count for bucket, count in stable.items()}
    at = edges_of(RecentLatency(0, stable))
    arms = ArmCounts(1000, 0, stable), ArmCounts(1000, 0, slower)
    assert ShiftProcess(2).add(at, Comparison(0.5, *arms)).log_e > 3
    assert ShiftProcess(6).add(at, Comparison(0.5, *arms)).log_e < 0


def test_scores_grow_and_are_those_of_a_standard_normal():
    assert all(before < after for before, after in pairwise(SCORES))
    bins = [after - before for before, after in pairwise((0.0, *QUANTILES, 1.0))]
    assert sum(map(float.__mul__, SCORES, bins)) == pytest.approx(0)


def test_edges_are_in_order_and_stables_own():
    found = edges_of(RecentLatency(3, {50: 20, 60: 60, 90: 20}))
    assert list(found) == sorted(found)
    assert (found[0], found[-1]) == (50, 90)


@given(st.lists(st.floats(-300, 300), min_size=6, max_size=6))
def test_sharing_leaves_the_evidence_as_it_is(logs):
    before = ShiftProcess(2, tuple(logs))
    assert before.shared().log_e == pytest.approx(before.log_e, rel=1e-12, abs=1e-9)
