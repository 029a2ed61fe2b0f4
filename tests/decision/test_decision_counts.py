"""Counts that cannot be true are refused when they are made: they never become evidence."""

import json

import pytest

from gateway.windows import LAST_BUCKET
from rollout.decision.counts import Agreement, ArmCounts, Comparison, PairedLabels
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


@pytest.mark.parametrize("instruction", INSTRUCTIONS, ids=lambda instruction: type(instruction).__name__)
def test_instructions_survive_storage(instruction):
    assert instruction_from_json(json.loads(json.dumps(instruction_to_json(instruction)))) == instruction


def test_unknown_names_are_refused():
    with pytest.raises(ValueError, match="no instruction 'Reboot'"):
        instruction_from_json({"instruction": "Reboot"})
