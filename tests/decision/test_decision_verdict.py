"""What people are told: findings with their numbers, and what a rollout waits for."""

import json
import re
from dataclasses import asdict, replace
from itertools import pairwise

import pytest

from rollout.decision.counts import Agreement, ArmCounts, Comparison, PairedLabels
from rollout.decision.engine import start
from rollout.decision.events import Held, Observed, RolloutStarted
from rollout.decision.guards import AgreementRules, Guard, Guards
from rollout.decision.state import TRAIL_MOST, Status
from rollout.decision.verdict import Finding, progress, verdict_of
from tests.decision.decision_story import (
    EVERYTHING,
    PLAN,
    Story,
    everything,
    good_second,
    routed_story,
    story_in,
    undecided_second,
)


def test_errors_are_told_with_both_rates_and_the_evidence():
    story = story_in(Status.CANARY)
    slow = {200: 1}
    for _ in range(12):
        candidate = ArmCounts(100, 9, {200: 91})
        stable = ArmCounts(900, 9, dict.fromkeys(slow, 891))
        if not story.state.has_ended:
            story.tell(Observed((Comparison(0.1, stable, candidate),)), after=1.0)
    assert story.state.decision.by == "errors"
    assert "errors 9 % against stable's 1 % over 400 requests, 9x stable's [" in story.state.decision.reason
    assert "of 62.5 needed" in story.state.decision.reason
    verdict = verdict_of(story.state, Guard.ERRORS)
    assert (verdict.finding, verdict.harm) == (Finding.HARMED, 1.0)


def test_stables_rate_is_weighted_as_the_candidates_requests_were():
    """Simpson: the candidate sees most of its traffic at a bad hour, when stable fails as often."""
    story = story_in(Status.CANARY)
    story.tell(Observed((Comparison(0.1, arm(900, 0), arm(100, 0)),)), after=1.1)
    for _ in range(3):
        story.tell(Observed((Comparison(0.5, arm(500, 100), arm(500, 100)),)), after=0.1)
    assert (
        "errors 18.8 % against stable's 18.8 % over 1,600 requests, 1x stable's ["
        in verdict_of(story.state, Guard.ERRORS).reason
    )


def arm(requests: int, failures: int) -> ArmCounts:
    return ArmCounts(requests, failures, {200: requests - failures})


def spread(requests: int, slower: int = 0) -> ArmCounts:
    """Evenly over a hundred buckets."""
    each = requests // 100
    return ArmCounts(100 * each, 0, {bucket + slower: each for bucket in range(150, 250)})


def test_latency_and_quality_are_told_in_their_units_with_their_bounds():
    story = story_in(Status.CANARY)
    for _ in range(4):
        second = Observed((Comparison(0.1, spread(4500), spread(500, 10)),), quality=PairedLabels(20, 475, 5))
        story.tell(second, after=1.0)
    latency, quality = (verdict_of(story.state, guard) for guard in (Guard.LATENCY, Guard.QUALITY))
    told = re.match(r"p50 is ([\d.]+)x stable's \[([\d.]+), ([\d.]+)\], p95 is 1.24x stable's \[", latency.reason)
    assert told is not None
    value, low, high = map(float, told.groups())
    assert low < value < high and value == pytest.approx(2 ** (10 / 32), abs=0.01)
    assert latency.reason.split("; ")[0].endswith("over 2,000 requests")
    assert latency.intervals.keys() == {"p50", "p95", "p99"}
    assert "accuracy 3 points higher than stable's [+" in quality.reason
    assert "] over 4,500 labels (only stable right 45 times, only the candidate 180 times)" in quality.reason
    assert quality.intervals["accuracy_lost"].value == -0.03


def test_lost_accuracy_is_told_as_lower():
    story = routed_story()
    story.tell(Observed(quality=PairedLabels(10, 960, 30)), after=1.0)
    assert "accuracy 2 points lower than stable's [-" in verdict_of(story.state, Guard.QUALITY).reason


def test_every_guard_has_its_verdict_its_estimate_and_its_interval():
    story = routed_story(EVERYTHING)
    story.watch(Status.CANARY, stage=2, second=everything)
    story.let_pass(3, everything)
    verdicts = {verdict.guard: verdict for verdict in progress(story.state, story.now).verdicts}
    assert list(verdicts) == list(Guard)
    assert verdicts[Guard.AGREEMENT].intervals["differing"].value == 0.02
    assert "mirrored answers lie 0.08 % to 0.296 % apart on average, over" in verdicts[Guard.DIFFERENCE].reason
    assert verdicts[Guard.MISTAKES].reason.startswith("wrong answers 5 % against stable's 5 % over")
    assert verdicts[Guard.ERRORS].reason.startswith("errors 0 % against stable's 0 % over")
    assert all(verdict.needs for verdict in verdicts.values())


@pytest.mark.parametrize("guard", Guard)
def test_before_anything_was_measured_every_guard_says_so(guard):
    verdict = verdict_of(routed_story(EVERYTHING).state, guard)
    assert verdict.intervals == {}
    assert " yet; evidence of harm 1.0 of " in verdict.reason
    assert verdict.needs == "not known yet"


@pytest.mark.parametrize("guard", [Guard.AGREEMENT, Guard.DIFFERENCE, Guard.QUALITY])
def test_copies_that_were_never_compared_are_invalid_in_a_shadow_stage(guard):
    story = routed_story(EVERYTHING)
    story.tell(Observed(), after=6.0)
    assert verdict_of(story.state, guard).finding is Finding.INVALID


@pytest.mark.parametrize("guard", [Guard.ERRORS, Guard.LATENCY, Guard.MISTAKES])
def test_live_traffic_that_was_never_compared_is_invalid_in_a_live_stage_only(guard):
    story = routed_story(EVERYTHING)
    story.tell(Observed(), after=6.0)
    assert verdict_of(story.state, guard).finding is Finding.UNDECIDED
    story.watch(Status.CANARY, second=lambda weight: replace(everything(weight), comparisons=(), labelled=()))
    story.tell(Observed(), after=6.0)
    assert verdict_of(story.state, guard).finding is Finding.INVALID


def test_what_it_takes_to_decide_is_told_at_the_pace_of_the_evidence():
    story, guesses = story_in(Status.CANARY), {}
    while (verdict := verdict_of(story.state, Guard.ERRORS)).finding is Finding.UNDECIDED:
        found = re.fullmatch(r"about (\d+) s more at this pace to be cleared", verdict.needs)
        if found and story.state.stage == 2:
            guesses[story.now] = story.now + int(found.group(1))
        story.tell(undecided_second(story.state.rules.weight), after=1.0)
    assert len(guesses) > 2
    assert all(guess == pytest.approx(story.now, abs=10.0) for guess in guesses.values())
    assert verdict.needs == "nothing"


def test_evidence_that_does_not_grow_is_told_as_such():
    story = routed_story()
    story.let_pass(9, undecided_second)
    verdict = verdict_of(story.state, Guard.QUALITY)
    assert verdict.needs == "more requests, or a larger weight: the evidence does not grow"


def test_the_trail_holds_the_evidence_block_by_block():
    story = routed_story(EVERYTHING)
    story.watch(Status.CANARY, stage=2, second=everything)
    story.let_pass(9, everything)
    trail = progress(story.state, story.now).trail
    blocks = [story.state.block_at(point.clock) for point in trail]
    assert all(int(later) > int(earlier) for earlier, later in pairwise(blocks))
    assert [point.stage for point in trail] == sorted(point.stage for point in trail)
    assert all(set(point.harm) == set(point.clear) == set(Guard) for point in trail)
    quality = [point.clear["quality"] for point in trail]
    assert quality[0] < 0.01 and quality[-1] >= 1


def test_the_trail_stays_short_however_long_it_takes_and_keeps_its_beginning():
    story = routed_story()
    begun = story.now
    for _ in range(3 * TRAIL_MOST):
        story.tell(Observed(), after=2.0)
        story.state = replace(story.state, deadline=story.now + 100.0)
    assert TRAIL_MOST // 2 <= len(story.state.trail) <= TRAIL_MOST
    clocks = [point.clock for point in story.state.trail]
    assert clocks == sorted(set(clocks))
    assert clocks[0] <= begun + 2.0 and clocks[-1] >= story.now - 10.0


@pytest.mark.parametrize("few", [1, 30])
def test_progress_is_json_without_infinities_at_every_moment(few):
    """Browsers refuse `Infinity`."""
    story = routed_story(EVERYTHING)
    for _ in range(60):
        told = json.dumps(asdict(progress(story.state, story.now)), allow_nan=False)
        assert "Infinity" not in told and "NaN" not in told
        weight = story.state.rules.weight
        if not story.state.has_ended:
            second = good_second(weight) if few > 1 else Observed((Comparison(weight, arm(2, 0), arm(1, 0)),))
            story.tell(replace(everything(weight), comparisons=second.comparisons), after=1.0)


def test_agreement_is_told_as_a_share():
    plan = replace(PLAN, guards=Guards(agreement=AgreementRules(enabled=True)))
    story = routed_story(plan)
    story.tell(Observed(agreement=Agreement(970, 30)), after=1.0)
    verdict = verdict_of(story.state, Guard.AGREEMENT)
    assert "different answers to 3 % [1.37 %, 5.53 %] of 1,000 mirrored requests" in verdict.reason
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
    assert (
        "accuracy the same as stable's [-11.3, +11.3] over 100 labels" in verdict_of(story.state, Guard.QUALITY).reason
    )


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
    assert any(text.startswith("latency to be cleared (1.0 of 25.0 needed; p50 is ") for text in waiting)


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
