"""Is what was counted fit to be compared? What a broken share and drifting answers lead to, and what they do not."""

from dataclasses import replace

import pytest

from rollout.decision.counts import AnswerComparison
from rollout.decision.events import Held, Observed, Resumed
from rollout.decision.evidence import Evidence
from rollout.decision.instructions import Announce
from rollout.decision.rules import Checks, Drift, Plan
from rollout.decision.state import Status
from rollout.decision.verdict import Check, progress
from tests.decision.decision_story import PLAN, Second, Story, good_second, routed_story, undecided_second

BUDGET = replace(PLAN, extra_bad_requests=20)


def unfair(weight: float) -> Observed:
    """The candidate gets twice what it should."""
    return good_second(weight, taken=min(900, int(2000 * weight)))


def unfair_and_failing(weight: float) -> Observed:
    return good_second(weight, taken=min(900, int(2000 * weight)), failing=0.3)


def broken_story(plan: Plan = PLAN) -> Story:
    story = routed_story(plan)
    story.watch(Status.CANARY)
    story.watch(Status.HELD, second=unfair)
    return story


def check(story: Story, name: str) -> Check | None:
    return next((one for one in progress(story.state, story.now).checks if one.name == name), None)


def test_requests_that_were_not_divided_as_meant_hold_the_rollout():
    story = broken_story()
    assert (story.state.hold.by, story.state.hold.origin, story.state.stage) == ("share", Status.CANARY, 1)
    assert isinstance(story.instructions[-1], Announce)
    failed = check(story, "share")
    assert failed.is_failed
    assert "the candidate got 20 % of 1,000 requests where its weight is 10 %" in failed.reason
    assert "are requests assigned by a key that few clients share?" in failed.reason
    assert failed.reason == story.state.hold.reason


def test_a_fair_division_is_told_as_one():
    story = routed_story()
    assert check(story, "share") == Check("share", False, "no request was compared yet")
    story.watch(Status.CANARY, stage=2)
    told = check(story, "share")
    assert not told.is_failed
    assert told.reason.startswith("the candidate got 10 % of") and told.reason.endswith("where its weight is 10 %")


def test_numbers_that_are_not_fit_to_be_compared_take_nothing_back_but_the_breaker_acts():
    story = broken_story()
    story.let_pass(60, unfair_and_failing)
    assert story.state.status is Status.HELD
    assert story.state.evidence.errors.log_harm > 10
    story.let_pass(1, lambda weight: good_second(weight, failing=1.0))
    assert (story.state.status, story.state.decision.by) == (Status.ROLLED_BACK, "breaker")


def test_a_share_and_harm_in_the_same_second_hold():
    story = routed_story()
    story.watch(Status.CANARY)
    story.let_pass(30, unfair_and_failing)
    assert (story.state.status, story.state.hold.by) == (Status.HELD, "share")


def test_a_resume_begins_the_evidence_anew():
    story = broken_story()
    story.tell(Resumed("ann", "the keys are fixed"))
    assert story.state.status is Status.CANARY
    evidence = story.state.evidence
    assert (evidence.errors.size, evidence.latency.size, evidence.quality.size) == (0, 0, 0)
    assert evidence.share == Evidence.begin(story.state.plan).share
    assert not check(story, "share").is_failed
    story.watch(Status.PROMOTED)


def test_a_share_that_stays_broken_holds_again():
    story = broken_story()
    story.tell(Resumed("ann", "again"))
    story.watch(Status.HELD, second=unfair)
    assert story.state.hold.by == "share"


def test_a_resume_while_baking_begins_the_detectors_anew_too():
    story = routed_story(replace(PLAN, bake_s=60.0))
    story.watch(Status.BAKING)
    story.watch(Status.HELD, second=lambda weight: good_second(weight, taken=700))
    story.tell(Resumed("ann", "the keys are fixed"))
    assert story.state.status is Status.BAKING
    assert story.state.evidence.errors.late is not None and story.state.evidence.latency.late is not None


def test_a_resume_of_what_was_held_for_something_else_keeps_the_evidence():
    story = routed_story()
    story.watch(Status.CANARY)
    story.let_pass(3)
    before = story.state.evidence
    story.tell(Held("ann", "lunch"))
    story.tell(Resumed("ann", "back"))
    assert story.state.evidence == before


def test_a_resume_keeps_the_bound_on_what_the_next_stage_may_cost():
    story = routed_story(BUDGET)
    story.watch(Status.CANARY)
    margin = story.state.evidence.step.margin
    story.watch(Status.HELD, second=unfair)
    story.tell(Resumed("ann", "the keys are fixed"))
    assert story.state.evidence.step is not None
    assert story.state.evidence.step.margin == margin


def answering(stable: tuple[float, ...], candidate: tuple[float, ...]) -> Second:
    """Seconds in which so many percent of each release's answers fall into each bin."""

    def second(weight: float) -> Observed:
        arms = (tuple(round(1000 * share * one) for one in bins) for share, bins in
                ((1 - weight, stable), (weight, candidate)))  # fmt: skip
        return replace(good_second(weight), answers=(AnswerComparison(weight, *arms),))

    return second


ALIKE, UNLIKE = answering((0.5, 0.3, 0.2), (0.5, 0.3, 0.2)), answering((0.5, 0.3, 0.2), (0.8, 0.1, 0.1))


def watching(drift: Drift) -> Plan:
    return replace(PLAN, checks=Checks(drift=drift))


def drifting_story() -> Story:
    story = routed_story(watching(Drift.HOLD))
    story.watch(Status.HELD, second=UNLIKE)
    return story


def test_answers_that_drift_hold_where_the_plan_says_so():
    story = drifting_story()
    assert (story.state.hold.by, story.state.hold.origin) == ("drift", Status.CANARY)
    told = check(story, "drift")
    assert told.is_failed
    assert told.reason.startswith(
        "answers differ from stable's: 80 % of the candidate's answers against 50 % of stable's"
    )
    assert "fall into bin 0, over" in told.reason
    assert told.reason == story.state.hold.reason


def test_answers_that_drift_are_told_and_go_on_where_the_plan_only_warns():
    story = routed_story(watching(Drift.WARN))
    story.watch(Status.PROMOTED, second=UNLIKE)
    assert check(story, "drift").is_failed
    assert not any("drift" in text.text for text in story.instructions if isinstance(text, Announce))


def test_drift_is_not_watched_unless_the_plan_says_so():
    story = routed_story(watching(Drift.OFF))
    story.watch(Status.PROMOTED, second=UNLIKE)
    assert check(story, "drift") is None
    assert story.state.evidence.drift.requests == 0


def test_answers_alike_hold_nothing():
    story = routed_story(watching(Drift.HOLD))
    story.watch(Status.PROMOTED, second=ALIKE)
    told = check(story, "drift")
    assert not told.is_failed
    assert "% of stable's fall into bin" in told.reason


def test_drift_that_is_known_holds_no_more():
    story = drifting_story()
    story.tell(Resumed("ann", "meant so"))
    assert story.state.is_drift_known
    story.tell(Held("bob", "lunch"))
    story.tell(Resumed("bob", "back"))
    story.watch(Status.PROMOTED, second=UNLIKE)


def test_drift_is_not_known_by_a_resume_of_something_else():
    story = routed_story(watching(Drift.HOLD))
    story.tell(Held("ann", "lunch"))
    story.tell(Resumed("ann", "back"))
    story.watch(Status.HELD, second=UNLIKE)
    assert story.state.hold.by == "drift"


def test_drift_never_takes_a_candidate_back_but_harm_does_meanwhile():
    story = drifting_story()
    story.let_pass(30, UNLIKE)
    assert story.state.status is Status.HELD
    story.let_pass(30, lambda weight: replace(UNLIKE(weight), comparisons=good_second(weight, failing=0.3).comparisons))
    assert (story.state.status, story.state.decision.by) == (Status.ROLLED_BACK, "errors")


def test_the_share_of_answers_is_not_drift():
    """Answers alike, of which the candidate gave 49 % where it should be half: tolerated as a share, and no drift."""
    story = routed_story(watching(Drift.HOLD))
    story.watch(Status.CANARY, stage=2)
    for _ in range(100):
        answers = AnswerComparison(0.5, (255, 153, 102), (245, 147, 98))
        story.tell(replace(undecided_second(0.5), answers=(answers,)), after=1.0)
    assert not story.state.evidence.share.is_broken(story.state.plan)
    assert not check(story, "drift").is_failed


@pytest.mark.parametrize("weight", [0.0, 1.0])
def test_answers_that_chance_did_not_divide_say_nothing(weight):
    story = routed_story(watching(Drift.HOLD))
    story.tell(Observed(answers=(AnswerComparison(weight, (900, 0), (0, 900)),)), after=2.0)
    assert story.state.evidence.drift.requests == 0
    assert story.state.status is Status.SHADOW


def test_a_share_that_breaks_while_a_person_holds_is_told_after_their_resume():
    story = routed_story(watching(Drift.WARN))
    story.watch(Status.CANARY)
    story.tell(Held("ann", "lunch"))
    story.let_pass(60, unfair)
    assert story.state.evidence.share.is_broken(story.state.plan)
    story.tell(Resumed("ann", "back"))
    assert story.state.evidence.share.is_broken(story.state.plan)
    story.let_pass(1)
    assert (story.state.status, story.state.hold.by) == (Status.HELD, "share")
