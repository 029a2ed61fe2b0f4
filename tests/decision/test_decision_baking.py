"""While it bakes: a regression that begins late is found soon, and hours without one give no alarm."""

from dataclasses import replace
from itertools import count

import numpy as np
import pytest

from rollout.decision.counts import ArmCounts, Comparison, LabelComparison, PairedLabels, Tally
from rollout.decision.events import Observed
from rollout.decision.evidence import Evidence, harm_needed, late_needed
from rollout.decision.guards import Guard, Guards, MistakeRules, QualityRules
from rollout.decision.instructions import ReplaceRoute
from rollout.decision.rules import Plan
from rollout.decision.state import Status
from rollout.decision.verdict import progress
from tests.decision.decision_story import PLAN, Second, Story, arm, good_second, routed_story

LONG = replace(PLAN, bake_s=1e5, longest_s=1e6)
HOURS = 600
"""Blocks of good behaviour before it turns bad."""


def alike(weight: float, *, failing: float = 0.02, slower: int = 0) -> Observed:
    """A second in which the releases differ in nothing else; stable fails 2 %."""
    taken = int(1000 * weight)
    stable = arm(1000 - taken, int((1000 - taken) * 0.02))
    return Observed((Comparison(weight, stable, arm(taken, int(taken * failing), slower)),))


def better(weight: float) -> Observed:
    return alike(weight, failing=0.005, slower=-2)


def failing(weight: float) -> Observed:
    return alike(weight, failing=0.08)


def slow(weight: float) -> Observed:
    return alike(weight, slower=16)


def baked_story(blocks: int, plan: Plan = LONG) -> Story:
    story = routed_story(plan)
    story.watch(Status.BAKING)
    story.let_pass(int(blocks * plan.block_s), better)
    assert story.state.status is Status.BAKING
    return story


def blocks_to_the_end(story: Story, second: Second, most: int = 60) -> float:
    began = story.now
    while not story.state.has_ended:
        assert story.now < began + most * LONG.block_s, "it was never found"
        story.let_pass(1, second)
    return (story.now - began) / LONG.block_s


def blocks_without_detector(evidence: Evidence, plan: Plan, guard: Guard, second: Second) -> float:
    """How many blocks the evidence of the whole rollout takes to show the same."""
    weight = plan.baking.weight
    first = evidence.errors.capped.harm.block + 1
    for number in count():
        evidence = evidence.add(plan, first + number / 2, second(weight), is_warm=True)
        if evidence.is_harmed(plan, guard):
            return number / 2
    raise AssertionError


@pytest.mark.parametrize(("guard", "second"), [(Guard.ERRORS, failing), (Guard.LATENCY, slow)])
def test_a_regression_that_begins_late_is_found_much_sooner_than_by_all_evidence_together(guard, second):
    story = baked_story(HOURS)
    before, plan = story.state.evidence, story.state.plan
    taken = blocks_to_the_end(story, second)
    assert (story.state.status, story.state.decision.by) == (Status.ROLLED_BACK, guard.value)
    assert "worse since it bakes; over the whole rollout" in story.state.decision.reason
    assert "evidence of late harm over 1,000,000 of over 1,000,000 needed" in story.state.decision.reason
    assert taken <= 20
    assert blocks_without_detector(before, plan, guard, second) > 3 * taken


def test_one_that_begins_with_baking_is_found_by_whichever_is_faster():
    story = baked_story(0)
    assert blocks_to_the_end(story, failing) <= 8


def test_the_route_goes_back_before_the_pool_stops():
    story = baked_story(50)
    blocks_to_the_end(story, failing)
    assert story.instructions[-3] == ReplaceRoute(1)


def test_there_is_no_detector_before_baking():
    story = routed_story(LONG)
    story.watch(Status.CANARY, stage=2)
    evidence = story.state.evidence
    assert evidence.errors.late is evidence.latency.late is evidence.mistakes.late is None
    assert evidence.errors.log_late == 0.0 < late_needed(story.state.plan)
    story.watch(Status.BAKING)
    assert story.state.evidence.errors.late is not None and story.state.evidence.latency.late is not None


def random_second(dice: np.random.Generator, requests: int, rate: float) -> Observed:
    """Both releases alike, on the boundary of harm for the candidate: where a false alarm is likeliest."""
    taken = int(dice.binomial(requests, 0.95))
    harm = Plan().guards.errors.harm_floor
    ours, theirs = int(dice.binomial(taken, rate + harm * (1 - rate))), int(dice.binomial(requests - taken, rate))
    arms = [arm_of(dice, requests - taken, theirs), arm_of(dice, taken, ours)]
    return Observed((Comparison(0.95, *arms),))


def arm_of(dice: np.random.Generator, requests: int, failures: int) -> ArmCounts:
    buckets, numbers = np.unique(dice.normal(200, 20, requests - failures).astype(int), return_counts=True)
    return ArmCounts(requests, failures, dict(zip(map(int, buckets), map(int, numbers), strict=True)))


def test_long_good_bakes_give_no_alarm():
    """So much evidence as an alarm takes is a matter of thousands of blocks: none in a hundred hours together."""
    dice, blocks, values = np.random.default_rng(5), 150, []
    for _ in range(8):
        evidence = Evidence.begin(LONG).baking(LONG, 0)
        for block in range(blocks):
            evidence = evidence.add(LONG, block, random_second(dice, 500, 0.01), is_warm=True)
            for guard in (Guard.ERRORS, Guard.LATENCY):
                assert not evidence.is_harmed_late(LONG, guard)
        values += [np.exp(evidence.errors.log_late), np.exp(evidence.latency.log_late)]
    assert np.mean(values) <= blocks


def test_an_alarm_takes_as_many_blocks_as_the_plan_says():
    plan = replace(LONG, block_s=60.0, alarm_free_s=30 * 86400.0)
    assert np.exp(late_needed(plan)) == pytest.approx(43_200 * len(plan.guards.enabled))
    assert np.exp(late_needed(replace(plan, alarm_free_s=60.0))) == pytest.approx(max(2, len(plan.guards.enabled)))
    assert late_needed(plan) == late_needed(plan.attempted(5)) > harm_needed(plan, Guard.ERRORS)


def test_all_guards_together_give_a_false_alarm_no_oftener_than_the_plan_says():
    """Each detector's value after k fair blocks is k on average: two of them need twice the evidence each."""
    plan = replace(LONG, guards=Guards(mistakes=MistakeRules(enabled=True, alpha_share=0.1)))
    detectors = sum(guard in (Guard.ERRORS, Guard.LATENCY, Guard.MISTAKES) for guard in plan.guards.enabled)
    free_blocks = plan.alarm_free_s / plan.block_s
    assert np.exp(late_needed(plan)) / detectors >= free_blocks * (1 - 1e-6)


def test_wrong_answers_that_begin_late_are_found_without_copies():
    guards = Guards(quality=QualityRules(enabled=False), mistakes=MistakeRules(enabled=True))
    plan = replace(LONG, guards=guards, stages=tuple(replace(one, clear=frozenset()) for one in PLAN.stages))

    def labelled(weight: float, wrong: int) -> Observed:
        """Of 2,000 labels 5 % of stable's are wrong, and so many in a thousand of the candidate's."""
        ours = round(2000 * weight)
        arms = Tally(2000 - ours, round(0.05 * (2000 - ours))), Tally(ours, round(wrong * ours / 1000))
        return replace(good_second(weight), labelled=(LabelComparison(weight, *arms),), quality=PairedLabels())

    story = routed_story(plan)
    story.watch(Status.BAKING, second=lambda weight: labelled(weight, 50))
    story.let_pass(300, lambda weight: labelled(weight, 50))
    assert story.state.status is Status.BAKING
    told = {one.guard: one for one in progress(story.state, story.now).verdicts}[Guard.MISTAKES]
    assert (
        told.reason.startswith("wrong answers 5 % against stable's 5 % over") and "labels, 1x stable's [" in told.reason
    )
    assert blocks_to_the_end(story, lambda weight: labelled(weight, 150)) <= 10
    assert story.state.decision.by == "mistakes"
