"""Counts that cannot be true are refused when they are made: they never become evidence."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.windows import LAST_BUCKET
from rollout.decision.counts import (
    DIFFERENCE_EDGES,
    Agreement,
    AnswerComparison,
    ArmCounts,
    Comparison,
    Differences,
    LabelComparison,
    PairedLabels,
    Tally,
)
from rollout.decision.events import Observed
from rollout.decision.instructions import (
    Announce,
    Candidate,
    ReplaceRoute,
    Shadow,
    StartPool,
    StopPool,
    instruction_from_json,
    instruction_to_json,
)
from rollout.decision.state import Status
from tests.decision.decision_story import story_in

BINS = len(DIFFERENCE_EDGES) - 1
FINE = ArmCounts(3, 1, {100: 2})
INSTRUCTIONS = (
    StartPool(2),
    ReplaceRoute(1),
    ReplaceRoute(1, Candidate(2, 0.05), Shadow(2, 1.0)),
    StopPool(1),
    Announce("digits/2 is promoted"),
)


@pytest.mark.parametrize(
    ("requests", "failures", "histogram"),
    [
        (-1, 0, {}),
        (1, -1, {}),
        (1, 2, {}),
        (1, 0, {5: 2}),
        (2, 0, {5: -1}),
        (1, 0, {-1: 1}),
        (1, 0, {LAST_BUCKET + 1: 1}),
    ],
)
def test_an_arm_refuses_impossible_counts(requests, failures, histogram):
    with pytest.raises(ValueError, match="impossible counts"):
        ArmCounts(requests, failures, histogram)


@pytest.mark.parametrize("weight", [-0.1, 1.1, float("nan")])
def test_a_comparison_refuses_an_impossible_weight(weight):
    with pytest.raises(ValueError, match="impossible counts"):
        Comparison(weight, FINE, FINE)


def test_a_comparison_refuses_successes_without_latency():
    with pytest.raises(ValueError, match="10 successes but 0 latencies"):
        Comparison(0.5, FINE, ArmCounts(10))


def test_pairs_refuse_counts_below_zero():
    with pytest.raises(ValueError, match="impossible counts"):
        Agreement(-1, 0)
    with pytest.raises(ValueError, match="impossible counts"):
        PairedLabels(0, 0, -1)


@pytest.mark.parametrize("lie", [
    lambda: ArmCounts(3, 1, {100: 2}, uncharged=-1),
    lambda: ArmCounts(10, 4, {100: 7}),
    lambda: Tally(1, 2),
    lambda: Tally(3, -1),
    lambda: Tally(-1, 0),
    lambda: PairedLabels(-1, 0, 0),
    lambda: PairedLabels(0, -5, 0),
    lambda: Agreement(0, -1),
    lambda: Differences({0: -1}),
    lambda: Differences({-1: 1}),
    lambda: Differences({BINS: 1}),
    lambda: AnswerComparison(0.5, (1, 2), (1, 2, 3)),
    lambda: AnswerComparison(0.5, (), ()),
    lambda: AnswerComparison(0.5, (1, -2), (1, 2)),
    lambda: AnswerComparison(0.5, (1, 2), (-1, 2)),
    lambda: AnswerComparison(0.5, (0,) * 21, (0,) * 21),
])  # fmt: skip
def test_a_lie_never_becomes_a_count(lie):
    with pytest.raises(ValueError, match="impossible counts"):
        lie()


@pytest.mark.parametrize("weight", [-0.1, 1.1, float("nan"), float("inf")])
def test_an_impossible_weight_is_refused_with_labels_and_answers_too(weight):
    with pytest.raises(ValueError, match=r"weight .* is not in"):
        LabelComparison(weight, Tally(), Tally())
    with pytest.raises(ValueError, match=r"weight .* is not in"):
        AnswerComparison(weight, (1,), (1,))


@given(st.dictionaries(st.integers(0, LAST_BUCKET), st.integers(0, 50)), st.integers(0, 20), st.integers(0, 20))
def test_how_many_were_slower_is_counted_one_by_one(histogram, failures, uncharged):
    successes = sum(histogram.values())
    arm = ArmCounts(successes + failures, failures, histogram, uncharged)
    assert (arm.measured, arm.successes, arm.assigned) == (successes, successes, successes + failures + uncharged)
    for edge in (-40, -1, 0, 7, 200, LAST_BUCKET - 1, LAST_BUCKET):
        slower = failures + sum(count for bucket, count in histogram.items() if bucket > edge)
        assert arm.slower_than(edge) == arm.slower_than_each([edge])[0] == slower


def test_a_candidate_whose_gateway_lies_keeps_what_it_had():
    """A lie is refused before it is a fact, so there is nothing that the engine could take for success."""
    story = story_in(Status.CANARY)
    before = story.state
    with pytest.raises(ValueError, match="impossible counts"):
        story.tell(Observed((Comparison(0.1, ArmCounts(900, 0, {200: 900}), ArmCounts(100, -900, {150: 1000})),)))
    assert story.state == before


@pytest.mark.parametrize("absurd", [10**9, 2**52])
def test_absurdly_many_requests_decide_no_faster_than_the_blocks_allow(absurd):
    """A gateway that counts a billion requests in a second, or all that a window may hold, cannot condemn alone."""
    story = story_in(Status.CANARY)
    arms = ArmCounts(9 * absurd, 0, {200: 9 * absurd}), ArmCounts(absurd, absurd // 4, {150: 3 * absurd // 4})
    story.tell(Observed((Comparison(0.1, *arms),)), after=2.0)
    assert story.state.status is Status.CANARY


@pytest.mark.parametrize("instruction", INSTRUCTIONS, ids=lambda instruction: type(instruction).__name__)
def test_instructions_survive_storage(instruction):
    assert instruction_from_json(json.loads(json.dumps(instruction_to_json(instruction)))) == instruction


def test_unknown_names_are_refused():
    with pytest.raises(ValueError, match="no instruction 'Reboot'"):
        instruction_from_json({"instruction": "Reboot"})
