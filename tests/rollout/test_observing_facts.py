"""Windows, predictions and labels as the facts that the engine is told."""

from dataclasses import replace
from itertools import permutations

import pytest

from gateway.windows import Outcome, Role, Window
from rollout.decision import engine
from rollout.decision.counts import ArmCounts, Comparison
from rollout.decision.guards import DifferenceRules, Guards, MistakeRules
from rollout.decision.rules import Checks, Drift, Plan
from rollout.observing import not_counted, observed
from rollout.store.observations import Judged, Prediction

STATE = engine.start("digits", 2, 1, Plan(), "salt")
WINDOW = Window(
    "g", "b", 1, 5, "digits", 2, Role.ANSWERED, 0.25, 100.0, 1.0,
    {Outcome.OK: 8, Outcome.SERVER_ERROR: 1, Outcome.TIMEOUT: 1, Outcome.CLIENT_ERROR: 5, Outcome.CLIENT_GONE: 2,
     Outcome.LOST: 1}, {100: 8},
)  # fmt: skip
PAIR = Prediction("r", "digits", 0.0, 1, (3, 4, 5), 2, (3, 9, 5))


def test_only_successes_and_charged_failures_are_requests() -> None:
    stable = replace(WINDOW, release=1, outcomes={Outcome.OK: 30}, histogram={90: 30})
    (comparison,) = observed(STATE, [WINDOW, stable], (), ()).comparisons
    assert comparison == Comparison(0.25, ArmCounts(30, 0, {90: 30}), ArmCounts(10, 2, {100: 8}, 8))


def test_windows_of_gateways_add_and_weights_never_mix() -> None:
    other_gateway = replace(WINDOW, gateway="h")
    later = replace(WINDOW, revision=6, weight=0.5)
    first, second = observed(STATE, [WINDOW, other_gateway, later], (), ()).comparisons
    assert (first.weight, first.candidate.requests) == (0.25, 20)
    assert (second.weight, second.candidate.requests) == (0.5, 10)


def test_the_order_in_which_windows_arrive_says_nothing() -> None:
    windows = [
        replace(WINDOW, revision=revision, weight=weight, release=release, sequence=second, started_at=second)
        for revision, weight in ((5, 0.25), (6, 0.5))
        for release in (1, 2)
        for second in (100, 101)
    ]
    seen = observed(STATE, windows, (), ())
    assert all(observed(STATE, [*order, *windows[5:]], (), ()) == seen for order in permutations(windows[:5]))


@pytest.mark.parametrize(
    "window",
    [
        replace(WINDOW, role=Role.PINNED),
        replace(WINDOW, role=Role.MIRRORED),
        replace(WINDOW, weight=0.0),
        replace(WINDOW, histogram={100: 9}),
    ],
    ids=["pinned", "mirrored", "without a candidate", "whose counts cannot be true"],
)
def test_windows_that_chance_did_not_make_are_not_compared(window: Window) -> None:
    assert observed(STATE, [window], (), ()).comparisons == ()


def test_copies_are_counted_apart() -> None:
    fact = observed(STATE, [replace(WINDOW, role=Role.MIRRORED)], (), ())
    assert (fact.mirrored.requests, fact.mirrored.failures) == (10, 2)


def test_agreement_counts_rows() -> None:
    fact = observed(STATE, (), [PAIR], ())
    assert (fact.agreement.agreed, fact.agreement.disagreed) == (2, 1)


def test_quality_asks_who_was_right() -> None:
    fact = observed(STATE, (), (), [Judged(1, PAIR, (3, 4, 5)), Judged(2, PAIR, (3, 9, 0)), Judged(3, PAIR, (0, 0, 0))])
    assert (fact.quality.better, fact.quality.equal, fact.quality.worse) == (1, 7, 1)


@pytest.mark.parametrize(
    "prediction",
    [
        replace(PAIR, mirrored_release=3),
        replace(PAIR, release=9),
        replace(PAIR, mirrored_release=None, mirrored_predicted=None),
        replace(PAIR, mirrored_predicted=(3,)),
    ],
)
def test_pairs_of_other_releases_or_sizes_count_for_nothing(prediction: Prediction) -> None:
    fact = observed(STATE, (), [prediction], [Judged(1, prediction, (3, 4, 5))])
    assert fact.agreement.total == fact.quality.total == 0


def test_label_of_another_size_counts_for_nothing() -> None:
    assert observed(STATE, (), (), [Judged(1, PAIR, (3,))]).quality.total == 0


def test_requests_of_a_cold_route_are_not_compared_however_late_they_arrive_but_the_breaker_hears_of_them() -> None:
    state = replace(STATE, changed_at=95.0)
    fact = observed(state, [WINDOW, replace(WINDOW, started_at=105.0)], (), ())
    assert [one.candidate.requests for one in fact.comparisons] == [10]
    assert (fact.cold.requests, fact.cold.failures) == (10, 2)
    assert sum(arm.requests for arm in fact.answered) == 20


def test_a_gateway_whose_clock_is_behind_is_not_taken_for_cold() -> None:
    fact = observed(replace(STATE, changed_at=4000.0), [WINDOW], (), ())
    assert [one.candidate.requests for one in fact.comparisons] == [10]


def test_what_nobody_counts_yet_is_named() -> None:
    guards = Guards(difference=DifferenceRules(enabled=True), mistakes=MistakeRules(enabled=True))
    plan = Plan(guards=guards, checks=Checks(drift=Drift.WARN))
    assert not_counted(plan) == ["guards.difference", "guards.mistakes", "checks.drift"]
    assert not_counted(Plan()) == []
