"""The budget of a step, exactly: its margin, and the evidence that the candidate is within it."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rollout.decision.budget import WIDEST, StepEvidence
from rollout.decision.counts import ArmCounts, Comparison, Tally
from rollout.decision.guards import Guard
from rollout.decision.live import RateEvidence
from rollout.decision.odds import OddsProcess
from rollout.decision.rules import Plan

ROUNDING = 1e-9
NONE = ArmCounts()
BAD, FINE = ArmCounts(1, 1), ArmCounts(1, 0, {100: 1})

weights = st.floats(0.001, 0.999)
shares = st.floats(0.0, 1.0)
counts = st.integers(0, 300)


def expected(step: StepEvidence, weight: float, candidate: float, stable: float) -> float:
    """E of the factor that one more request brings, for these rates of failures."""
    before = step.process.log_e
    outcomes = (
        (weight * candidate, NONE, BAD),
        (weight * (1 - candidate), NONE, FINE),
        ((1 - weight) * stable, BAD, NONE),
        ((1 - weight) * (1 - stable), FINE, NONE),
    )
    return sum(
        chance * math.exp(step.add(Comparison(weight, *arms)).process.log_e - before) for chance, *arms in outcomes
    )


def arm(good: int, bad: int) -> ArmCounts:
    return ArmCounts(good + bad, bad, {100: good} if good else {})


@given(weights, st.floats(0.002, 0.5), shares, shares, counts, counts, counts, counts)
def test_it_does_not_grow_for_a_candidate_that_costs_more_than_the_budget(w, margin, stable, out, gc, bc, gs, bs):
    boundary = stable + margin * (1 - stable)
    step = StepEvidence.begin(1, 1 / margin, margin).add(Comparison(w, arm(gs, bs), arm(gc, bc)))
    assert expected(step, w, boundary + out * (1 - boundary), stable) <= 1 + ROUNDING
    assert expected(step, w, boundary, stable) == pytest.approx(1, abs=1e-9)


def test_it_grows_for_one_that_costs_less():
    assert expected(StepEvidence.begin(10, 1000, 0.002), 0.5, 0.0, 0.01) > 1


@pytest.mark.parametrize(
    ("extra", "requests", "narrowest", "margin"),
    [
        (10, 1000.0, 0.002, 0.01),
        (10, 1e6, 0.002, 0.002),
        (10, 12.0, 0.002, WIDEST),
        (10, 0.0, 0.002, WIDEST),
        (1, 0.5, 0.002, WIDEST),
    ],
)
def test_the_margin_is_what_the_budget_leaves_for_each_request(extra, requests, narrowest, margin):
    """But never narrower than the plan's own, and never so wide that half may fail."""
    assert StepEvidence.begin(extra, requests, narrowest).margin == pytest.approx(margin)


def test_a_good_candidate_is_shown_after_about_the_requests_that_theory_asks_for():
    """ln(1/beta)/margin requests without a failure (`facts/statistics.md` 1.1), and some for the mixture."""
    step, beta = StepEvidence.begin(10, 1000.0, 0.002), 0.05
    needed = -math.log(beta) / 0.01
    assert not step.add(Comparison(0.5, arm(round(needed), 0), arm(round(needed), 0))).is_shown(beta)
    assert step.add(Comparison(0.5, arm(round(2 * needed), 0), arm(round(2 * needed), 0))).is_shown(beta)
    failing = step.add(Comparison(0.5, arm(1000, 10), arm(1000, 25)))
    assert not failing.is_shown(beta)


@given(weights, st.lists(st.tuples(counts, counts, counts, counts), max_size=6))
def test_merged_counts_give_what_the_stream_gives(w, parts):
    stream = begun = StepEvidence.begin(10, 1000.0, 0.002)
    for good_c, bad_c, good_s, bad_s in parts:
        stream = stream.add(Comparison(w, arm(good_s, bad_s), arm(good_c, bad_c)))
    sums = [sum(column) for column in zip(*parts, strict=True)] or [0, 0, 0, 0]
    merged = begun.add(Comparison(w, arm(*sums[2:]), arm(*sums[:2])))
    assert stream.process.log_e == pytest.approx(merged.process.log_e, rel=1e-9, abs=1e-9)


@given(st.integers(1, 1000), st.floats(0.0, 1e6), counts)
def test_it_survives_storage_bit_by_bit(extra, requests, failures):
    step = StepEvidence.begin(extra, requests, 0.002).add(Comparison(0.25, arm(900, 0), arm(300, failures)))
    assert StepEvidence.from_json(step.to_json()) == step


def rates(process: OddsProcess, w: float, candidate: float, stable: float) -> float:
    """E of the e-value after one labelled answer, for these rates of wrong ones."""
    none = Tally()
    outcomes = (
        (w * candidate, Tally(1, 1), none),
        (w * (1 - candidate), Tally(1, 0), none),
        ((1 - w) * stable, none, Tally(1, 1)),
        ((1 - w) * (1 - stable), none, Tally(1, 0)),
    )
    return sum(chance * math.exp(process.add(w, *arms).log_e) for chance, *arms in outcomes)


@pytest.mark.parametrize("guard", [Guard.ERRORS, Guard.MISTAKES])
@given(weights, st.floats(0.0, 0.3), shares)
def test_a_guards_margins_are_the_ones_of_its_rules(guard, w, stable, place):
    """What is tested is what the plan says, for wrong answers as for errors: fair at both boundaries, less inside."""
    plan = Plan()
    rules, evidence = plan.guards.rules(guard), RateEvidence.begin(plan, guard)
    harm = rules.harm_ratio * (stable + rules.harm_floor * (1 - stable))
    clear = rules.clear_ratio * (stable + rules.clear_floor * (1 - stable))
    assert rates(evidence.harm, w, harm, stable) == pytest.approx(1, abs=1e-9)
    assert rates(evidence.clear, w, clear, stable) == pytest.approx(1, abs=1e-9)
    assert rates(evidence.harm, w, place * harm, stable) <= 1 + ROUNDING
    assert rates(evidence.clear, w, clear + place * (1 - clear), stable) <= 1 + ROUNDING
    assert rates(evidence.harm, w, min(1.0, 2 * harm + 0.1), stable) > 1
    assert rates(evidence.clear, w, harm / 2, stable) > 1
