"""Whole rollouts under the demo's plan, simulated at count level with seeds: what the plan promises comes out."""

from collections import Counter
from dataclasses import replace
from pathlib import Path
from statistics import median

import numpy as np
import pytest

from gateway.windows import bucket_of
from rollout.decision.guards import AgreementRules, ErrorRules, Guard, Guards, LatencyRules, QualityRules
from rollout.decision.rules import Inconclusive, Plan, Stage
from rollout.decision.state import Rollout, Status
from rollout.plan import load_plan
from tests.decision.decision_traffic import Behaviour, World, histogram_of, roll_out

DEMO = load_plan(Path(__file__).parents[2] / "rollout/examples/demo.toml")
SEEDS = range(20)


def test_the_simulated_latencies_fall_into_the_gateways_buckets():
    latencies = np.random.default_rng(1).lognormal(8.0, 3.0, 2000)
    assert histogram_of(latencies) == Counter(map(bucket_of, latencies.tolist()))


def outcomes(plan: Plan, **world: object) -> list[Rollout]:
    return [roll_out(plan, World(seed, **world))[0] for seed in SEEDS]


def test_a_better_candidate_is_promoted_within_a_minute():
    ends = outcomes(DEMO, better=0.03, worse=0.01)
    assert {end.status for end in ends} == {Status.PROMOTED}
    assert max(end.clock for end in ends) <= 60


def test_a_candidate_that_is_as_good_is_promoted():
    ends = outcomes(DEMO)
    assert [end.status for end in ends].count(Status.PROMOTED) >= len(ends) - 2


def test_a_clearly_less_accurate_candidate_never_leaves_the_shadow_stage():
    ends = outcomes(DEMO, better=0.01, worse=0.09)
    assert {(end.status, end.decision.by, end.stage) for end in ends} == {(Status.ROLLED_BACK, "quality", 0)}
    assert median(end.clock for end in ends) <= 15
    assert "points lower than stable's" in ends[0].decision.reason


def test_a_candidate_that_fails_everything_is_gone_after_a_second_of_traffic():
    for end in outcomes(DEMO, candidate=Behaviour(failing=1.0)):
        assert (end.status, end.decision.by) == (Status.ROLLED_BACK, "breaker")
        assert end.decision.seconds <= 2


def test_a_crash_in_the_middle_trips_the_breaker_at_once():
    """Long success does not hide it, and it does not wait for the evidence cap."""
    end, trail = roll_out(DEMO, World(1, crash=20))
    assert trail[-3].status is Status.CANARY
    assert (end.status, end.decision.by) == (Status.ROLLED_BACK, "breaker")
    assert end.clock <= 22


@pytest.mark.parametrize(
    ("candidate", "guard"), [(Behaviour(failing=0.05), Guard.ERRORS), (Behaviour(median_us=12_000.0), Guard.LATENCY)]
)
def test_failing_and_slow_candidates_are_taken_back_for_what_they_are(candidate, guard):
    ends = outcomes(DEMO, candidate=candidate)
    assert {(end.status, end.decision.by) for end in ends} == {(Status.ROLLED_BACK, guard.value)}


def test_zero_errors_clear_the_error_guard():
    for seed in SEEDS:
        end, _ = roll_out(DEMO, World(seed, better=0.03, worse=0.01))
        assert end.evidence.errors.events == 0
        assert end.evidence.is_cleared(DEMO, Guard.ERRORS)


def test_a_host_that_slows_both_releases_takes_nothing_back():
    ends = outcomes(DEMO, better=0.03, worse=0.01, host_spread=0.7)
    assert [end.status for end in ends].count(Status.PROMOTED) >= len(ends) - 2


def test_a_burst_on_the_candidate_shorter_than_a_block_takes_nothing_back():
    for second in (12, 20, 27):
        ends = outcomes(DEMO, better=0.03, worse=0.01, burst=range(second, second + 4))
        assert {end.status for end in ends} == {Status.PROMOTED}


def edge_of_the_null() -> Plan:
    """Margins near nothing: equal releases then lie where a false rollback is likeliest, and are never cleared."""
    guards = Guards(
        ErrorRules(harm_floor=1e-6, clear_floor=2e-6),
        LatencyRules(harm_buckets=0, clear_buckets=1),
        AgreementRules(),
        QualityRules(harm=1e-6, clear=2e-6),
    )
    stage = Stage(weight=0.25, shadow_share=1.0, soak_s=600.0)
    return replace(DEMO, guards=guards, stages=(stage,))


def test_equal_releases_are_taken_back_at_most_as_often_as_alpha_allows():
    plan, runs = edge_of_the_null(), 50
    equal = Behaviour(failing=0.02)
    ends = [roll_out(plan, World(seed, equal, equal), seconds=80)[0] for seed in range(runs)]
    rolled_back = sum(end.status is Status.ROLLED_BACK for end in ends)
    assert rolled_back / runs <= plan.alpha + 2 * (plan.alpha * (1 - plan.alpha) / runs) ** 0.5


def test_without_labels_the_demo_holds_and_says_what_is_missing():
    plan = replace(DEMO, longest_s=60.0)
    end, _ = roll_out(plan, World(0, labelled=0.0), seconds=120)
    assert (end.status, end.stage, end.hold.by) == (Status.HELD, 0, "plan")
    assert "no label of a mirrored request arrived yet" in end.hold.reason


@pytest.mark.parametrize("what", list(Inconclusive))
def test_without_traffic_nothing_is_promoted_or_taken_back(what):
    plan = replace(DEMO, longest_s=60.0, inconclusive=what)
    end, _ = roll_out(plan, World(0, rate=0.0), seconds=180)
    assert (end.status, end.requests) == (Status.HELD, 0)
