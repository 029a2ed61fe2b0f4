"""What does not come from evidence: approvals, hours, and how often a pair of releases was tried."""

from dataclasses import replace
from itertools import pairwise

import pytest

from gateway.routes import Candidate, Shadow
from rollout.decision.engine import start
from rollout.decision.events import Approved, Held, Observed, PoolBecameReady, Resumed, RolloutStarted
from rollout.decision.evidence import clear_needed, harm_needed
from rollout.decision.guards import Guard
from rollout.decision.instructions import Announce, ReplaceRoute
from rollout.decision.rules import Approvals, Hours, Plan, Stage
from rollout.decision.state import Rollout, Status
from rollout.decision.verdict import progress
from tests.decision.decision_story import PLAN, Story, good_second, routed_story

ANN, BOB = Approved("ann", "looks good"), Approved("bob", "")
CANARY, PROMOTION = replace(PLAN, approvals=Approvals(canary=1)), replace(PLAN, approvals=Approvals(promotion=2))
LIVE_FIRST = replace(CANARY, stages=(Stage(weight=0.2, shadow_share=1.0, soak_s=5.0), Stage(weight=0.5, soak_s=5.0)))
DAY_S, HOUR_S = 86400.0, 3600.0
MONDAY = 4 * DAY_S
"""The first one: 1970-01-01 was a Thursday."""


def waiting(story: Story) -> tuple[str, ...]:
    return progress(story.state, story.now).waiting_for


def candidates_of(story: Story) -> list[float]:
    routes = [one for one in story.instructions if isinstance(one, ReplaceRoute)]
    return [route.candidate.weight for route in routes if isinstance(route.candidate, Candidate)]


def test_the_first_live_traffic_waits_for_a_person_and_for_nothing_else():
    story = routed_story(CANARY)
    story.let_pass(60)
    assert (story.state.status, story.state.stage, candidates_of(story)) == (Status.SHADOW, 0, [])
    assert waiting(story) == ("approval by one person: `sluice rollout approve`",)
    assert story.tell(ANN) == (Announce("the next step of digits/2 is approved by ann: looks good"),)
    assert progress(story.state, story.now).approved_by == ("ann",)
    assert story.state.status is Status.SHADOW
    story.let_pass(1)
    assert story.state.status is Status.CANARY
    assert story.state.approved_by == ()


def test_an_approval_does_not_replace_evidence():
    story = routed_story(CANARY)
    story.tell(ANN)
    story.tell(Observed(), after=30.0)
    assert story.state.status is Status.SHADOW
    assert not any("approval" in text for text in waiting(story))


def test_promotion_may_need_two_people_and_the_same_one_twice_counts_once():
    story = routed_story(PROMOTION)
    story.let_pass(60)
    assert (story.state.stage, candidates_of(story)) == (2, [0.1, 0.5])
    assert waiting(story) == ("approval by 2 people: `sluice rollout approve`",)
    story.tell(ANN)
    before = story.state
    assert story.tell(ANN) == ()
    assert story.state == before
    story.let_pass(10)
    assert story.state.stage == 2
    assert waiting(story) == ("approval by one person more: `sluice rollout approve`",)
    assert story.tell(BOB) == (Announce("the next step of digits/2 is approved by bob"),)
    story.let_pass(1)
    assert story.state.status is Status.BAKING
    story.watch(Status.PROMOTED)


def test_an_approval_is_for_one_step_only():
    story = routed_story(replace(PLAN, approvals=Approvals(canary=1, promotion=1)))
    story.tell(ANN)
    story.let_pass(60)
    assert (story.state.status, story.state.stage) == (Status.CANARY, 2)
    assert waiting(story) == ("approval by one person: `sluice rollout approve`",)
    story.tell(ANN)
    story.watch(Status.PROMOTED)


def test_a_plan_that_begins_with_live_traffic_waits_before_its_first_stage():
    story = routed_story(LIVE_FIRST)
    assert (story.state.status, candidates_of(story)) == (Status.WARMING, [])
    assert waiting(story) == ("approval by one person: `sluice rollout approve`",)
    story.tell(ANN)
    assert story.state.status is Status.WARMING
    story.tell(Observed(), after=1.0)
    assert (story.state.status, candidates_of(story)) == (Status.CANARY, [0.2])
    story.watch(Status.PROMOTED)


def test_who_approves_before_the_pool_is_ready_need_not_do_it_again():
    story = Story(start("digits", 2, 1, LIVE_FIRST, "salt"))
    story.tell(RolloutStarted())
    story.tell(ANN)
    assert waiting(story) == ("the pool of digits/2 to become ready",)
    assert story.tell(PoolBecameReady(2), after=1.0)[0] == ReplaceRoute(1, Candidate(2, 0.2), Shadow(2, 1.0))


def test_a_held_rollout_may_be_approved_and_goes_on_when_it_is_resumed():
    story = routed_story(CANARY)
    story.let_pass(20)
    story.tell(Held("cid", "lunch"))
    story.tell(ANN)
    story.let_pass(20)
    assert story.state.status is Status.HELD
    story.tell(Resumed("cid", "back"))
    story.let_pass(1)
    assert story.state.status is Status.CANARY


def test_a_first_release_replaces_nothing_and_asks_nobody():
    story = Story(start("digits", 1, None, replace(PLAN, approvals=Approvals(2, 2)), "salt"))
    story.tell(RolloutStarted())
    story.tell(PoolBecameReady(1))
    assert story.state.status is Status.PROMOTED


def test_a_long_wait_for_people_does_not_use_up_the_patience_for_evidence():
    """Whoever approves on Monday does not find the rollout given up before its first request."""
    story = routed_story(LIVE_FIRST)
    story.tell(Observed(), after=LIVE_FIRST.longest_s + 60.0)
    story.tell(ANN)
    story.let_pass(2)
    assert story.state.status is Status.CANARY


def test_patience_stands_still_while_only_people_are_waited_for():
    story = routed_story(CANARY)
    story.let_pass(20)
    left_s = story.state.deadline - story.now
    story.let_pass(2 * int(PLAN.longest_s))
    assert (story.state.status, story.state.deadline - story.now) == (Status.SHADOW, left_s)
    story.tell(ANN)
    story.let_pass(1)
    story.let_pass(int(left_s) - 1, lambda weight: Observed())
    assert story.state.status is Status.CANARY
    story.let_pass(1, lambda weight: Observed())
    assert (story.state.status, story.state.hold.by) == (Status.HELD, "plan")


@pytest.mark.parametrize(
    ("days", "begin", "end", "now", "is_open"),
    [
        (("mon",), "09:00", "16:00", MONDAY + 9 * HOUR_S, True),
        (("mon",), "09:00", "16:00", MONDAY + 9 * HOUR_S - 0.1, False),
        (("mon",), "09:00", "16:00", MONDAY + 16 * HOUR_S - 0.1, True),
        (("mon",), "09:00", "16:00", MONDAY + 16 * HOUR_S, False),
        (("mon",), "09:00", "16:00", MONDAY + DAY_S + 10 * HOUR_S, False),
        (("mon", "tue"), "09:00", "16:00", MONDAY + DAY_S + 10 * HOUR_S, True),
        (("sun",), "00:00", "24:00", MONDAY - 0.1, True),
        (("sun",), "00:00", "24:00", MONDAY, False),
        (("thu",), "00:00", "00:01", 0.0, True),
        (("thu",), "00:00", "00:01", 60.0, False),
        (("thu",), "23:59", "24:00", DAY_S - 1.0, True),
        (("thu",), "12:30", "12:31", 1_764_246_600.0, True),
    ],
)
def test_hours_are_those_of_the_week_in_utc(days, begin, end, now, is_open):
    """The last one is Thursday, 2025-11-27 at 12:30."""
    plan = replace(PLAN, hours=(Hours(days, begin, end),))
    assert Hours(days, begin, end).hold(now) is plan.may_go_on(now) is is_open
    assert replace(PLAN, hours=(*plan.hours, Hours(("wed",), "00:00", "00:01"))).may_go_on(now) is is_open


def in_hours(now: float, plan: Plan = PLAN) -> Story:
    story = Story(start("digits", 2, 1, replace(plan, hours=(Hours(("mon",), "09:00", "09:01"),)), "salt"))
    story.now = now
    story.tell(RolloutStarted())
    return story


def test_stages_are_left_within_the_plans_hours_only():
    story = in_hours(MONDAY + 9 * HOUR_S + 40.0)
    story.tell(PoolBecameReady(2), after=1.0)
    story.let_pass(10)
    assert story.state.status is Status.CANARY
    story.now = MONDAY + 9 * HOUR_S + 60.0
    before = story.state
    story.let_pass(100)
    assert (story.state.status, story.state.stage) == (before.status, before.stage)
    assert waiting(story) == ("the plan's hours",)


def test_outside_the_hours_a_warm_pool_waits_and_harm_does_not():
    story = in_hours(MONDAY + 9 * HOUR_S - 10.0)
    story.tell(PoolBecameReady(2), after=1.0)
    assert story.state.status is Status.WARMING
    assert waiting(story) == ("the plan's hours",)
    story.let_pass(8)
    assert story.state.status is Status.WARMING
    story.let_pass(1)
    assert story.state.status is Status.SHADOW
    story.watch(Status.CANARY)
    story.now = MONDAY + 12 * HOUR_S
    story.let_pass(10, lambda weight: good_second(weight, failing=0.2))
    assert (story.state.status, story.state.decision.by) == (Status.ROLLED_BACK, "errors")


def test_a_night_outside_the_hours_does_not_use_up_the_patience_for_evidence():
    story = in_hours(MONDAY + 10 * HOUR_S)
    story.tell(PoolBecameReady(2), after=1.0)
    story.tell(Observed(), after=6 * DAY_S)
    story.now = MONDAY + 7 * DAY_S + 9 * HOUR_S
    story.let_pass(2)
    assert story.state.status is Status.SHADOW


def attempt(number: int) -> Rollout:
    return start("digits", 2, 1, PLAN, "salt", number)


def test_each_attempt_spends_less_and_all_together_no_more_than_the_plan_says():
    spent = [attempt(number).plan for number in range(1, 40)]
    for errors in ([plan.alpha for plan in spent], [plan.beta for plan in spent]):
        assert all(later < earlier for earlier, later in pairwise(errors))
        assert sum(errors) <= 0.05 * (1 + 1e-9)
        assert sum(errors) == pytest.approx(0.05)
    assert spent[0].alpha == pytest.approx(0.8 * PLAN.alpha)
    assert replace(spent[2], alpha=PLAN.alpha, beta=PLAN.beta) == PLAN


def test_a_later_attempt_asks_for_more_evidence():
    first, third = attempt(1).plan, attempt(3).plan
    assert harm_needed(third, Guard.ERRORS) == pytest.approx(harm_needed(first, Guard.ERRORS) + 3.2189, abs=1e-3)
    assert clear_needed(third) == pytest.approx(clear_needed(first) + 3.2189, abs=1e-3)


def story_of(number: int) -> Story:
    story = Story(attempt(number))
    story.tell(RolloutStarted())
    story.tell(PoolBecameReady(2), after=3.0)
    return story


def seconds_to(status: Status, number: int, failing: float) -> int:
    story = story_of(number)
    story.watch(Status.CANARY)
    for second in range(100):
        if story.state.status is status:
            return second
        story.let_pass(1, lambda weight: good_second(weight, failing=failing))
    raise AssertionError(f"never {status}: {story.state!r}")


def test_a_later_attempt_never_decides_earlier_and_a_much_later_one_decides_later():
    for status, failing in ((Status.ROLLED_BACK, 0.03), (Status.PROMOTED, 0.0)):
        taken = [seconds_to(status, number, failing) for number in (1, 2, 4, 8)]
        assert taken == sorted(taken)
        assert taken[-1] > taken[0]


def test_progress_says_which_attempt_it_is():
    told = progress(story_of(3).state, 104.0)
    assert told.attempt == 3
    assert told.verdicts[0].guard is Guard.ERRORS
    assert told.verdicts[0].reason.endswith("evidence of harm 1.0 of 1,562 needed, of being clear 1.0 of 625 needed")
