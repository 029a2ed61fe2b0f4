"""What follows when the longest duration passes without a decision."""

from dataclasses import replace

import pytest

from rollout.decision.counts import PairedLabels
from rollout.decision.events import Held, Observed, Resumed
from rollout.decision.guards import Guard, QualityRules
from rollout.decision.instructions import Announce, ReplaceRoute, StopPool
from rollout.decision.rules import Approvals, Hours, Inconclusive, Plan
from rollout.decision.state import Status
from rollout.decision.verdict import progress
from tests.decision.decision_story import PLAN, Story, good_second, routed_story, undecided_second

EASY = replace(PLAN, stages=tuple(replace(stage, clear=frozenset()) for stage in PLAN.stages))
EXTEND = replace(EASY, inconclusive=Inconclusive.EXTEND)
UNHARMED = replace(EASY, inconclusive=Inconclusive.PROMOTE_IF_UNHARMED)


def unlabelled(weight: float) -> Observed:
    return replace(good_second(weight), quality=PairedLabels())


def waits_in_vain(plan: Plan) -> Story:
    """At the last stage, with all measured and quality neither harmful nor clear, a second before its patience ends."""
    story = routed_story(plan)
    story.let_pass(int(plan.longest_s) - 1, undecided_second)
    assert (story.state.status, story.state.stage, story.state.deadline - story.now) == (Status.CANARY, 2, 1.0)
    return story


def test_a_plan_may_wait_as_long_once_more_and_then_holds():
    story = waits_in_vain(EXTEND)
    story.let_pass(1, undecided_second)
    assert story.state.status is Status.CANARY
    assert isinstance(story.instructions[-1], Announce)
    assert (
        "digits/2 gets as long once more: inconclusive after 203 s: quality to be cleared"
        in story.instructions[-1].text
    )
    told = len(story.instructions)
    story.let_pass(199, undecided_second)
    assert (story.state.status, len(story.instructions)) == (Status.CANARY, told)
    story.let_pass(1, undecided_second)
    assert (story.state.status, story.state.hold.by) == (Status.HELD, "plan")
    assert "inconclusive after 403 s" in story.state.hold.reason


def test_what_comes_in_the_extension_still_promotes():
    story = waits_in_vain(EXTEND)
    story.let_pass(5, undecided_second)
    story.watch(Status.PROMOTED)
    assert story.state.decision.by == "cleared"


def test_it_is_extended_once_even_when_someone_resumed_it():
    story = waits_in_vain(EXTEND)
    story.let_pass(201, undecided_second)
    story.tell(Resumed("ann", "more traffic soon"))
    story.let_pass(200, undecided_second)
    assert (story.state.status, story.state.hold.by) == (Status.HELD, "plan")


def test_a_plan_may_promote_what_was_measured_and_not_shown_to_be_harmful():
    story = waits_in_vain(UNHARMED)
    story.let_pass(1, undecided_second)
    assert (story.state.status, story.state.decision.by) == (Status.PROMOTED, "inconclusive")
    assert story.instructions[-3:-1] == [ReplaceRoute(2), StopPool(1)]
    assert "not shown to be harmful, not shown to be good either" in story.state.decision.reason
    assert "quality to be cleared (" in story.state.decision.reason
    assert not story.state.evidence.is_cleared(story.state.plan, Guard.QUALITY)


def test_a_plan_that_holds_does_not_promote_it():
    story = waits_in_vain(EASY)
    story.let_pass(1, undecided_second)
    assert (story.state.status, story.state.hold.by) == (Status.HELD, "plan")


def test_harm_comes_before_patience():
    story = routed_story(replace(UNHARMED, longest_s=30.0))
    story.let_pass(20, undecided_second)
    story.let_pass(10, lambda weight: replace(good_second(weight, failing=0.1), quality=PairedLabels(1, 0, 1)))
    assert (story.state.status, story.state.decision.by) == (Status.ROLLED_BACK, "errors")
    assert story.now <= story.state.deadline


@pytest.mark.parametrize("second", [unlabelled, lambda weight: Observed()], ids=["a guard", "all"])
def test_nothing_measured_is_no_success(second):
    story = routed_story(UNHARMED)
    story.let_pass(200, second)
    assert (story.state.status, story.state.hold.by) == (Status.HELD, "plan")


def test_nothing_measured_is_no_success_before_the_last_stage_has_soaked_either():
    """Traffic came late, so patience ends while the last stage soaks, and no label came at all."""
    long_last = (*UNHARMED.stages[:2], replace(UNHARMED.stages[2], soak_s=100.0))
    story = routed_story(replace(UNHARMED, stages=long_last))
    story.let_pass(150, lambda weight: Observed())
    story.let_pass(50, unlabelled)
    assert story.state.stage == 2
    assert story.state.evidence.quality.size == 0
    assert story.state.status is Status.HELD


def test_what_is_not_required_need_not_be_measured():
    guards = replace(UNHARMED.guards, quality=QualityRules(required=False))
    story = routed_story(replace(UNHARMED, guards=guards))
    story.let_pass(200, unlabelled)
    assert story.state.status is Status.PROMOTED


@pytest.mark.parametrize("stage", [0, 1])
def test_nothing_is_promoted_from_an_early_stage(stage):
    """All is measured and has soaked there, but less traffic was risked than the plan asks for."""
    stages = list(UNHARMED.stages)
    stages[stage] = replace(stages[stage], clear=frozenset({Guard.QUALITY}))
    story = routed_story(replace(UNHARMED, stages=tuple(stages)))
    story.let_pass(200, undecided_second)
    assert (story.state.status, story.state.stage) == (Status.HELD, stage)


def test_too_few_requests_at_the_last_stage_are_not_enough_to_promote():
    stages = (*UNHARMED.stages[:2], replace(UNHARMED.stages[2], min_requests=10**6))
    story = routed_story(replace(UNHARMED, stages=stages))
    story.let_pass(200)
    assert (story.state.status, story.state.stage) == (Status.HELD, 2)


@pytest.mark.parametrize(
    "asked",
    [{"approvals": Approvals(promotion=1)}, {"hours": (Hours(("thu",), "00:00", "00:05"),)}],
    ids=["approval", "hours"],
)
def test_patience_does_not_replace_people(asked):
    """The beta guarantee is given up, not the approval, nor the hours at which the route may change so far."""
    story = waits_in_vain(replace(UNHARMED, **asked))
    story.let_pass(1, undecided_second)
    assert story.state.status is not Status.PROMOTED


def test_while_baking_it_is_promoted_by_patience_too():
    """A good candidate loses its traffic while it bakes: at the end of patience it is not shown to be clear ..."""
    plan = replace(UNHARMED, bake_s=150.0)
    story = routed_story(plan)
    story.watch(Status.BAKING)
    before = story.state
    story.let_pass(int(before.deadline - story.now) - 1, lambda weight: Observed())
    assert story.state.status is Status.BAKING
    story.let_pass(1, lambda weight: Observed())
    assert story.state.status is Status.HELD  # ... and too little of it was seen at this weight.


def test_a_person_holding_it_stops_the_clock_of_patience():
    story = waits_in_vain(replace(EASY, inconclusive=Inconclusive.ROLL_BACK))
    story.tell(Held("ann", "lunch"))
    story.let_pass(100, undecided_second)
    assert story.state.status is Status.HELD
    story.tell(Resumed("ann", "back"))
    story.let_pass(199, undecided_second)
    assert story.state.status is Status.CANARY
    story.let_pass(1, undecided_second)
    assert (story.state.status, story.state.decision.by) == (Status.ROLLED_BACK, "inconclusive")


@pytest.mark.parametrize("plan", [UNHARMED, replace(UNHARMED, inconclusive=Inconclusive.ROLL_BACK)])
def test_a_clock_that_jumps_a_year_ahead_neither_promotes_nor_takes_back(plan):
    """So it looks, too, when the control plane was away."""
    story = routed_story(plan)
    story.tell(Observed(), after=365 * 86400.0)
    assert (story.state.status, story.state.stage) == (Status.SHADOW, 0)
    assert "nothing was counted for 31,536,000 s" in progress(story.state, story.now).summary
    story.let_pass(1)
    assert story.state.status in (Status.SHADOW, Status.CANARY)
