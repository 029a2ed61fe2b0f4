"""What people are told: findings with their numbers, and what a rollout waits for."""

import json
from dataclasses import asdict, replace

from rollout.decision.counts import Agreement, ArmCounts, Comparison, PairedLabels
from rollout.decision.engine import start
from rollout.decision.events import Held, Observed, RolloutStarted
from rollout.decision.rules import AgreementRules, Guard, Guards
from rollout.decision.state import Status
from rollout.decision.verdict import Finding, progress, verdict_of
from tests.decision.decision_story import PLAN, Story, good_second, routed_story, story_in


def test_errors_are_told_with_both_rates_and_the_evidence():
    story = story_in(Status.CANARY)
    slow = {200: 1}
    for _ in range(12):
        candidate = ArmCounts(100, 9, {200: 91})
        stable = ArmCounts(900, 9, dict.fromkeys(slow, 891))
        if not story.state.has_ended:
            story.tell(Observed((Comparison(0.1, stable, candidate),)), after=1.0)
    assert story.state.decision.by == "errors"
    assert "errors 9 % against stable's 1 % over" in story.state.decision.reason
    assert "of 50.0 needed" in story.state.decision.reason
    verdict = verdict_of(story.state, Guard.ERRORS)
    assert (verdict.finding, verdict.harm) == (Finding.HARMED, 1.0)


def test_stables_rate_is_weighted_as_the_candidates_requests_were():
    """Simpson: the candidate sees most of its traffic at a bad hour, when stable fails as often."""
    story = story_in(Status.CANARY)
    story.tell(Observed((Comparison(0.1, arm(900, 0), arm(100, 0)),)), after=1.1)
    for _ in range(3):
        story.tell(Observed((Comparison(0.5, arm(500, 100), arm(500, 100)),)), after=0.1)
    assert "errors 18.8 % against stable's 18.8 %" in verdict_of(story.state, Guard.ERRORS).reason


def arm(requests: int, failures: int) -> ArmCounts:
    return ArmCounts(requests, failures, {200: requests - failures})


def test_latency_and_quality_are_told_in_their_units():
    story = story_in(Status.BAKING)
    latency, quality = (verdict_of(story.state, guard) for guard in (Guard.LATENCY, Guard.QUALITY))
    assert latency.finding is quality.finding is Finding.CLEARED
    assert "p99 1.29 ms against 3.81 ms of stable, over" in latency.reason
    assert "accuracy 3 points higher than stable's over" in quality.reason


def test_agreement_is_told_as_a_share():
    plan = replace(PLAN, guards=Guards(agreement=AgreementRules(enabled=True)))
    story = routed_story(plan)
    story.tell(Observed(agreement=Agreement(970, 30)), after=1.0)
    verdict = verdict_of(story.state, Guard.AGREEMENT)
    assert "different answers to 3 % of 1,000 mirrored requests" in verdict.reason
    assert verdict.finding is Finding.UNDECIDED


def test_nothing_measured_where_something_should_be_is_invalid_not_fine():
    story = routed_story()
    assert verdict_of(story.state, Guard.QUALITY).finding is Finding.UNDECIDED
    story.tell(Observed(), after=6.0)
    verdict = verdict_of(story.state, Guard.QUALITY)
    assert verdict.finding is Finding.INVALID
    assert "no label of a mirrored request arrived yet" in verdict.reason
    assert verdict_of(story.state, Guard.ERRORS).finding is Finding.UNDECIDED


def test_equal_accuracy_is_told_as_the_same():
    story = routed_story()
    story.tell(Observed(quality=PairedLabels(5, 90, 5)), after=1.0)
    assert "accuracy the same as stable's over 100 labels" in verdict_of(story.state, Guard.QUALITY).reason


def test_progress_says_where_the_rollout_stands_and_what_it_waits_for():
    story = story_in(Status.CANARY)
    story.tell(good_second(0.1), after=2.0)
    told = progress(story.state, story.now + 1.0)
    assert (told.status, told.stage, told.stages, told.weight, told.shadow_share) == (Status.CANARY, 2, 3, 0.1, 0.5)
    assert told.seconds_in_stage == 3.0
    assert told.waiting_for == ("2 s more of this stage",)
    assert [verdict.guard for verdict in told.verdicts] == [Guard.ERRORS, Guard.LATENCY, Guard.QUALITY]
    assert told.summary == "digits/2 is canary at 10 %, waiting for 2 s more of this stage"
    assert json.loads(json.dumps(asdict(told)))["verdicts"][0]["finding"] == "undecided"


def test_progress_names_the_guards_that_are_not_cleared():
    story = story_in(Status.CANARY)
    story.watch(Status.CANARY, stage=2)
    waiting = progress(story.state, story.now + 6.0).waiting_for
    assert any(text.startswith("latency to be cleared (1.0 of 20.0 needed; p50 ") for text in waiting)


def test_progress_of_every_status_has_a_summary():
    summaries = {status: progress(story_in(status).state, 500.0).summary for status in Status}
    assert len(set(summaries.values())) == len(Status)
    assert summaries[Status.PENDING] == "digits/2 is pending, waiting for its start"
    assert summaries[Status.HELD] == "digits/2 is held in shadow by ann: lunch"
    assert "is promoted (cleared): every required guard is cleared, after" in summaries[Status.PROMOTED]


def test_what_ended_stays_as_it_was():
    story = story_in(Status.PROMOTED)
    told = progress(story.state, story.now)
    assert progress(story.state, story.now + 3600.0) == told
    assert (told.weight, told.waiting_for) == (1.0, ())
    before = story.state
    story.tell(good_second(0.95), after=10.0)
    assert story.state == before


def test_a_state_reads_as_one_line():
    story = Story(start("digits", 2, 1, PLAN, "salt"))
    assert repr(story.state) == "<digits/2 over 1: pending, stage 1 of 3, 0 requests>"
    story.tell(RolloutStarted())
    story.tell(Held("ann", "lunch"))
    assert repr(story.state) == "<digits/2 over 1: held (from warming), stage 1 of 3, 0 requests>"
