"""From stage to stage: what the next one may cost, and what is left out while the route or a pool is cold."""

from dataclasses import replace

import pytest

from rollout.decision.counts import ArmCounts, PairedLabels
from rollout.decision.events import Held, Observed, PoolBecameReady, PoolLost, Resumed
from rollout.decision.guards import ErrorRules, Guard, Guards, LatencyRules
from rollout.decision.rules import Plan, Stage
from rollout.decision.state import Status
from rollout.decision.verdict import progress
from tests.decision.decision_story import Story, good_second, routed_story, story_in

BREAKER_ONLY = Guards(errors=ErrorRules(enabled=False), latency=LatencyRules(enabled=False))
"""Nothing takes failures back but the breaker, so that the budget alone keeps them from the next stage."""
BUDGET = Plan(
    stages=(
        Stage(shadow_share=1.0, soak_s=5.0),
        Stage(weight=0.1, shadow_share=0.5, soak_s=5.0),
        Stage(weight=0.2, soak_s=5.0),
        Stage(weight=0.5, soak_s=5.0),
    ),
    guards=BREAKER_ONLY,
    block_s=2.0,
    warmup_s=1.0,
    bake_s=5.0,
    longest_s=200.0,
    extra_bad_requests=20,
)


def failing(weight: float) -> Observed:
    """More than the 2 points above stable's that stage 3 may cost."""
    return good_second(weight, failing=0.04)


def step_of(story: Story):
    return story.state.evidence.step


def waiting(story: Story) -> tuple[str, ...]:
    return progress(story.state, story.now).waiting_for


def test_a_stage_is_kept_while_it_is_not_shown_what_the_next_one_costs():
    """At 1,000 requests/s for 5 s, half of them may have 20 extra failures in 2,500: less than the candidate's."""
    story = routed_story(BUDGET)
    story.watch(Status.CANARY, stage=2)
    assert step_of(story).margin == pytest.approx(20 / (0.5 * 1000 * 5), rel=0.3)
    story.let_pass(60, failing)
    assert (story.state.status, story.state.stage) == (Status.CANARY, 2)
    most = f"{100 * step_of(story).margin:.3g} %"
    assert waiting(story) == (f"errors to be shown less than {most} above stable's, as the next stage's budget needs",)


def test_a_budget_that_bad_ones_keep_to_lets_them_go_on():
    story = routed_story(replace(BUDGET, extra_bad_requests=500))
    story.watch(Status.CANARY, stage=3, second=failing)


def test_a_good_candidate_is_kept_a_little_longer_and_baking_is_a_step_too():
    budgeted, free = (
        routed_story(replace(BUDGET, extra_bad_requests=4)),
        routed_story(replace(BUDGET, extra_bad_requests=0)),
    )
    for story in (budgeted, free):
        story.watch(Status.BAKING)
    assert free.now + 5 <= budgeted.now <= free.now + 30
    assert step_of(budgeted) is step_of(free) is None
    budgeted.watch(Status.PROMOTED)


def test_each_step_begins_its_evidence_anew_with_its_own_margin():
    story = routed_story(BUDGET)
    story.watch(Status.CANARY, stage=2)
    before = step_of(story)
    story.watch(Status.CANARY, stage=3)
    after = step_of(story)
    assert after.margin < before.margin
    assert after.process.log_e == 0.0


def test_copies_cost_nothing_so_shadow_has_no_budget():
    story = routed_story(BUDGET)
    assert step_of(story) is None
    assert not any("budget" in text for text in waiting(story))


def as_gateways_tell_it(weight: float) -> Observed:
    """`observed` compares nothing where the candidate has no weight: stable's requests are not told."""
    seen = good_second(weight)
    return seen if weight else replace(seen, comparisons=(), mirrored=ArmCounts(1000, 0, {150: 1000}))


def test_the_first_live_step_knows_the_rate_of_the_requests_that_were_mirrored():
    story = routed_story(BUDGET)
    story.watch(Status.CANARY, second=as_gateways_tell_it)
    assert step_of(story).margin == pytest.approx(20 / (0.2 * 1000 * 5), rel=0.3)


def test_a_held_step_goes_on_where_it_was():
    story = routed_story(BUDGET)
    story.watch(Status.CANARY)
    story.tell(Held("ann", "lunch"))
    story.let_pass(3, failing)
    before = step_of(story)
    story.tell(Resumed("ann", "back"))
    assert step_of(story) == before


def test_too_little_evidence_is_not_within_the_budget_however_long_it_takes():
    story = routed_story(BUDGET)
    story.watch(Status.CANARY)
    story.let_pass(150, lambda weight: Observed())
    assert (story.state.status, story.state.stage) == (Status.CANARY, 1)


@pytest.mark.parametrize("release", [1, 2])
@pytest.mark.parametrize("status", [Status.CANARY, Status.BAKING])
def test_a_pool_that_came_back_is_cold_for_a_while(status, release):
    story = story_in(status)
    story.let_pass(2)
    before = story.state.evidence
    story.tell(PoolBecameReady(release), after=0.5)
    story.tell(good_second(story.state.rules.weight, failing=0.2), after=0.9)
    assert story.state.evidence.errors == before.errors
    assert story.state.evidence.share == before.share
    assert story.state.evidence.latency.size == before.latency.size
    story.tell(good_second(story.state.rules.weight), after=0.1)
    assert story.state.evidence.errors.size > before.errors.size


def test_a_pool_of_another_release_makes_nothing_cold():
    story = story_in(Status.CANARY)
    story.let_pass(2)
    before = story.state
    story.tell(PoolBecameReady(7), after=0.5)
    assert story.state.changed_at == before.changed_at
    story.tell(good_second(0.1), after=0.4)
    assert story.state.evidence.errors.size > before.evidence.errors.size


def test_stables_pool_that_was_lost_and_came_back_costs_the_candidate_nothing():
    story = story_in(Status.CANARY)
    story.tell(PoolLost(1, "killed"), after=0.5)
    story.tell(PoolBecameReady(1), after=0.5)
    assert story.state.status is Status.CANARY
    story.watch(Status.PROMOTED)


def test_each_stage_begins_cold():
    story = story_in(Status.CANARY)
    story.watch(Status.CANARY, stage=2)
    before = story.state.evidence.errors
    story.tell(good_second(0.5), after=0.9)
    assert story.state.evidence.errors == before
    story.tell(good_second(0.5), after=0.1)
    assert story.state.evidence.errors.size == before.size + 500


def test_what_the_candidate_answered_cold_is_its_requests_and_no_evidence():
    story = story_in(Status.CANARY)
    story.let_pass(2)
    before = story.state
    story.tell(Observed(cold=ArmCounts(40, 4, {150: 36})), after=1.0)
    after = story.state
    assert (after.requests, after.stage_requests) == (before.requests + 40, before.stage_requests + 40)
    assert after.evidence.errors == before.evidence.errors
    story.tell(Observed(cold=ArmCounts(40, 40)), after=1.0)
    assert story.state.decision.by == "breaker"


def test_evidence_of_pairs_is_gathered_while_the_route_is_cold():
    """A copy's answer is the same, however slow it comes."""
    story = routed_story()
    story.tell(Observed(quality=PairedLabels(1, 98, 1)), after=0.1)
    assert story.state.evidence.of(Guard.QUALITY).size == 100
