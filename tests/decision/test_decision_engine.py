"""The engine's table: every state with every event, and the ways of a rollout."""

from dataclasses import replace
from itertools import permutations

import pytest

from gateway.routes import Candidate, Shadow
from rollout.decision.counts import Agreement, ArmCounts, Comparison, PairedLabels
from rollout.decision.engine import TRANSITIONS, UnexpectedEventError, start
from rollout.decision.events import (
    EVENT_TYPES,
    Aborted,
    Approved,
    Event,
    Held,
    Observed,
    PoolBecameReady,
    PoolFailed,
    PoolLost,
    Promoted,
    Resumed,
    RolledBack,
    RolloutStarted,
)
from rollout.decision.evidence import Evidence
from rollout.decision.guards import AgreementRules, Guard, QualityRules
from rollout.decision.instructions import Announce, ReplaceRoute, StartPool, StopPool
from rollout.decision.rules import Inconclusive
from rollout.decision.state import ENDED, Rollout, Status
from tests.decision.decision_story import PLAN, Story, good_second, routed_story, story_in

SAMPLES: tuple[Event, ...] = (
    RolloutStarted(),
    PoolBecameReady(2),
    PoolFailed(2, "no memory"),
    PoolLost(2, "killed"),
    Observed(),
    Held("ann", "lunch"),
    Resumed("ann", "back"),
    Approved("ann", "looks good"),
    Promoted("ann", "it must be"),
    RolledBack("ann", "it is slow"),
    Aborted("ann", "wrong data"),
)
LEGAL = {
    Status.PENDING: {RolloutStarted, Observed, Aborted},
    Status.WARMING: {PoolBecameReady, PoolFailed, PoolLost, Observed, Held, Approved, Promoted, RolledBack, Aborted},
    Status.SHADOW: {PoolBecameReady, PoolFailed, PoolLost, Observed, Held, Approved, Promoted, RolledBack, Aborted},
    Status.CANARY: {PoolBecameReady, PoolFailed, PoolLost, Observed, Held, Approved, Promoted, RolledBack, Aborted},
    Status.BAKING: {PoolBecameReady, PoolFailed, PoolLost, Observed, Held, Approved, Promoted, RolledBack, Aborted},
    Status.HELD: {PoolBecameReady, PoolFailed, PoolLost, Observed, Resumed, Approved, Promoted, RolledBack, Aborted},
    **{status: {PoolBecameReady, PoolFailed, PoolLost, Observed} for status in ENDED},
}


@pytest.mark.parametrize("status", Status)
@pytest.mark.parametrize("event", SAMPLES, ids=lambda event: type(event).__name__)
def test_every_state_takes_every_event_or_says_that_it_cannot(status, event):
    story = story_in(status)
    if type(event) in LEGAL[status]:
        story.tell(event)
        assert Rollout.from_json(story.state.to_json()) == story.state
    else:
        with pytest.raises(UnexpectedEventError, match=f"digits/2 is {status.value}: {type(event).__name__}"):
            story.tell(event)


def test_the_table_holds_what_is_legal_and_nothing_else():
    assert set(TRANSITIONS) == {(status, kind) for status, kinds in LEGAL.items() for kind in kinds}
    assert {type(event) for event in SAMPLES} == set(EVENT_TYPES)


def test_a_good_candidate_goes_all_the_way():
    story = routed_story()
    story.watch(Status.PROMOTED)
    assert [one for one in story.instructions if not isinstance(one, Announce)] == [
        StartPool(2),
        ReplaceRoute(1, None, Shadow(2, 1.0)),
        ReplaceRoute(1, Candidate(2, 0.1), Shadow(2, 0.5)),
        ReplaceRoute(1, Candidate(2, 0.5)),
        ReplaceRoute(1, Candidate(2, 0.95)),
        ReplaceRoute(2),
        StopPool(1),
    ]
    assert isinstance(story.instructions[-1], Announce)
    assert story.state.decision.by == "cleared"


def test_the_first_release_of_a_model_needs_no_comparison():
    story = Story(start("digits", 1, None, PLAN, "salt"))
    story.tell(RolloutStarted())
    instructions = story.tell(PoolBecameReady(1))
    assert instructions[0] == ReplaceRoute(1)
    assert not any(isinstance(one, StopPool) for one in instructions)
    assert (story.state.status, story.state.decision.by) == (Status.PROMOTED, "first release")


@pytest.mark.parametrize("status", [Status.SHADOW, Status.CANARY, Status.BAKING, Status.HELD])
def test_someone_may_promote_it_now_whatever_the_evidence_says(status):
    story = story_in(status)
    assert story.tell(Promoted("ann", "it must be"))[:2] == (ReplaceRoute(2), StopPool(1))
    assert (story.state.status, story.state.decision.by) == (Status.PROMOTED, "engineer")
    assert "promoted by ann: it must be" in story.state.decision.reason


def test_who_is_promoted_while_it_warms_is_so_when_it_is_ready_and_not_before():
    story = story_in(Status.WARMING)
    assert not any(isinstance(one, ReplaceRoute) for one in story.tell(Promoted("ann", "now")))
    assert story.state.status is Status.WARMING
    assert Rollout.from_json(story.state.to_json()) == story.state
    assert story.tell(PoolBecameReady(2))[:2] == (ReplaceRoute(2), StopPool(1))


def test_a_direct_rollout_needs_no_comparison_and_stops_the_one_before():
    story = Story(start("digits", 1, 2, PLAN, "salt", direct="rolled back by ann: it is slow"))
    story.tell(RolloutStarted())
    assert story.tell(PoolBecameReady(1))[:2] == (ReplaceRoute(1), StopPool(2))
    assert (story.state.status, story.state.decision.by) == (Status.PROMOTED, "engineer")


@pytest.mark.parametrize("status", [Status.SHADOW, Status.CANARY, Status.BAKING])
def test_someone_may_take_it_back(status):
    story = story_in(status)
    assert story.tell(RolledBack("ann", "customers call"))[:2] == (ReplaceRoute(1), StopPool(2))
    assert (story.state.status, story.state.decision.by) == (Status.ROLLED_BACK, "engineer")


def test_a_release_is_not_rolled_out_over_itself():
    with pytest.raises(ValueError, match="digits/2 is the stable release already"):
        start("digits", 2, 2, PLAN, "salt")


def test_a_pool_that_never_becomes_ready_leaves_the_route_alone():
    story = story_in(Status.FAILED)
    assert not any(isinstance(one, ReplaceRoute) for one in story.instructions)
    assert story.instructions[-2] == StopPool(2)
    assert "no memory" in story.state.decision.reason


@pytest.mark.parametrize("event", [PoolLost(2, "killed"), PoolFailed(2, "killed")])
def test_a_lost_candidate_goes_back_because_of_its_server(event):
    story = story_in(Status.CANARY)
    assert story.tell(event)[:2] == (ReplaceRoute(1), StopPool(2))
    assert (story.state.status, story.state.decision.by) == (Status.ROLLED_BACK, "server")


def test_other_releases_pools_do_not_move_the_rollout():
    for status in (Status.WARMING, Status.CANARY, Status.BAKING):
        story = story_in(status)
        before = story.state
        for event in (PoolBecameReady(1), PoolLost(1, "killed"), PoolFailed(7, "other")):
            assert story.tell(event) == ()
        assert story.state == before


def test_a_held_rollout_stays_gathers_evidence_and_goes_on_where_it_was():
    story = story_in(Status.CANARY)
    story.tell(Held("ann", "lunch"))
    before = story.state
    for _ in range(30):
        assert story.tell(good_second(0.1), after=1.0) == ()
    assert (story.state.status, story.state.stage) == (Status.HELD, before.stage)
    assert story.state.evidence.errors.size > before.evidence.errors.size
    story.tell(Resumed("bob", "back"))
    assert (story.state.status, story.state.stage) == (Status.CANARY, before.stage)
    assert story.state.deadline == story.now + PLAN.longest_s
    story.watch(Status.PROMOTED)


def test_harm_takes_a_held_rollout_back():
    story = story_in(Status.CANARY)
    story.tell(Held("ann", "lunch"))
    for _ in range(10):
        if not story.state.has_ended:
            story.tell(good_second(0.1, failing=0.25), after=1.0)
    assert (story.state.status, story.state.decision.by) == (Status.ROLLED_BACK, "errors")
    assert story.state.hold is None


def test_a_regression_while_baking_still_goes_back():
    story = story_in(Status.BAKING)
    while not story.state.has_ended:
        last = story.tell(good_second(0.95, failing=0.28), after=1.0)
    assert (story.state.status, story.state.decision.by) == (Status.ROLLED_BACK, "errors")
    assert last[0] == ReplaceRoute(1)


def test_a_pool_may_become_ready_while_the_rollout_is_held():
    story = story_in(Status.WARMING)
    story.tell(Held("ann", "lunch"))
    assert story.tell(PoolBecameReady(2)) == ()
    assert story.tell(Resumed("ann", "back"))[0] == ReplaceRoute(1, None, Shadow(2, 1.0))
    assert story.state.status is Status.SHADOW


def test_a_pool_lost_while_held_before_it_was_routed_fails_the_rollout():
    story = story_in(Status.WARMING)
    story.tell(Held("ann", "lunch"))
    story.tell(PoolLost(2, "killed"))
    assert story.state.status is Status.FAILED


@pytest.mark.parametrize("status", [Status.SHADOW, Status.CANARY, Status.BAKING, Status.HELD])
def test_an_abort_gives_all_traffic_back_before_it_stops_the_pool(status):
    story = story_in(status)
    assert story.tell(Aborted("ann", "wrong data"))[:2] == (ReplaceRoute(1), StopPool(2))
    assert (story.state.status, story.state.decision.by) == (Status.ABORTED, "engineer")


def test_without_data_the_rollout_ends_held_and_a_resume_gives_it_time_again():
    story = routed_story()
    for _ in range(201):
        if story.state.status is Status.SHADOW:
            story.tell(Observed(), after=1.0)
    assert (story.state.status, story.state.hold.by) == (Status.HELD, "plan")
    story.tell(Resumed("ann", "traffic is back"))
    story.watch(Status.PROMOTED)


def test_an_inconclusive_rollout_goes_back_where_the_plan_says_so():
    story = routed_story(replace(PLAN, inconclusive=Inconclusive.ROLL_BACK))
    for _ in range(201):
        if story.state.status is Status.SHADOW:
            story.tell(Observed(mirrored=ArmCounts(1)), after=1.0)
    assert (story.state.status, story.state.decision.by) == (Status.ROLLED_BACK, "inconclusive")


@pytest.mark.parametrize(("silent_s", "status"), [(29.0, Status.PROMOTED), (30.0, Status.BAKING)])
def test_without_data_for_half_a_minute_it_does_not_go_on(silent_s, status):
    story = story_in(Status.BAKING)
    while story.state.clock < story.state.entered_at + story.state.rules.soak_s - 1:
        story.tell(good_second(story.state.rules.weight), after=0.5)
    story.tell(Observed(), after=silent_s)
    assert story.state.status is status


def test_baking_without_traffic_does_not_promote():
    story = story_in(Status.BAKING)
    for _ in range(50):
        story.tell(Observed(), after=1.0)
    assert story.state.status is Status.BAKING


def test_nothing_is_compared_while_the_route_is_cold_but_the_breaker_sees():
    story = story_in(Status.CANARY)
    before = story.state.evidence
    story.tell(good_second(0.1, failing=0.2), after=0.5)
    assert story.state.evidence.errors == before.errors
    story.tell(good_second(0.1, failing=1.0), after=0.4)
    assert story.state.decision.by == "breaker"


def test_latency_clears_only_from_half_the_last_weight_on():
    story = story_in(Status.CANARY)
    story.watch(Status.CANARY, stage=2)
    assert story.state.evidence.latency.requests > 0
    assert story.state.evidence.latency.log_clear == pytest.approx(0.0)
    story.watch(Status.BAKING)
    assert story.state.evidence.is_cleared(PLAN, Guard.LATENCY)


def test_disagreement_takes_a_candidate_back_where_the_plan_minds_it():
    guards = replace(PLAN.guards, agreement=AgreementRules(enabled=True))
    story = routed_story(replace(PLAN, guards=guards))
    while not story.state.has_ended:
        story.tell(Observed(agreement=Agreement(900, 100)), after=1.0)
    assert story.state.decision.by == "agreement"
    assert "different answers to 10 % [8.43 %, 11.7 %] of 5,000" in story.state.decision.reason


def test_a_guard_that_is_not_required_does_not_keep_a_candidate_waiting():
    guards = replace(PLAN.guards, quality=QualityRules(required=False))
    stages = tuple(replace(stage, clear=frozenset()) for stage in PLAN.stages)
    story = routed_story(replace(PLAN, guards=guards, stages=stages))
    while not story.state.has_ended:
        story.tell(replace(good_second(story.state.rules.weight), quality=PairedLabels()), after=1.0)
    assert story.state.status is Status.PROMOTED
    assert story.state.evidence.quality.seen.total == 0


def test_copies_that_go_well_do_not_hide_answers_that_fail():
    story = story_in(Status.CANARY)
    story.tell(good_second(0.1, failing=1.0), after=2.0)
    assert (story.state.status, story.state.decision.by) == (Status.ROLLED_BACK, "breaker")
    assert story.state.decision.reason == "100 of its last 100 requests failed"


def test_a_clock_that_jumps_back_stands_still():
    story = story_in(Status.CANARY)
    now = story.now
    story.tell(Observed(), after=-1000.0)
    assert story.state.clock == now
    story.now = now
    story.watch(Status.PROMOTED)


def two_humps(weight: float) -> Observed:
    """A cache: a fifth of stable's requests misses it, fewer of the candidate's, which take 8.7 times as long."""
    ours, theirs = int(1000 * weight), 1000 - int(1000 * weight)
    slow, missed = ours * 15 // 100, theirs // 5
    candidate = ArmCounts(ours, 0, {100: ours - slow, 300: slow})
    comparison = Comparison(weight, ArmCounts(theirs, 0, {100: theirs - missed, 200: missed}), candidate)
    return replace(good_second(weight), comparisons=(comparison,))


def test_a_candidate_with_a_much_slower_hump_is_never_promoted():
    """Its p95 is 8.7 times stable's, though fewer of its requests than of stable's are slow."""
    story = routed_story()
    story.let_pass(190, two_humps)
    assert story.state.status in (Status.CANARY, Status.ROLLED_BACK)
    assert not story.state.evidence.is_cleared(story.state.plan, Guard.LATENCY)


def test_what_was_cleared_once_stays_cleared():
    """Some bad seconds later, not bad enough for harm: it is the chance of ever clearing wrongly that is bounded."""
    story = story_in(Status.BAKING)
    evidence, plan = story.state.evidence, story.state.plan
    for second in range(1, 6):
        block = evidence.errors.capped.harm.block + second
        evidence = evidence.add(plan, block, good_second(0.5, failing=0.004), is_warm=True)
        evidence = evidence.add(plan, block, Observed(quality=PairedLabels(0, 400, 100)), is_warm=True)
    for guard in (Guard.ERRORS, Guard.QUALITY):
        assert evidence.is_cleared(plan, guard)
        assert evidence.of(guard).capped.clear.log_e < evidence.of(guard).log_clear
    assert not Evidence.begin(plan).is_cleared(plan, Guard.ERRORS)


def test_nobody_approves_before_it_began_or_after_it_ended_or_holds_what_is_held():
    for status in (Status.PENDING, *ENDED):
        with pytest.raises(UnexpectedEventError, match="Approved cannot follow"):
            story_in(status).tell(Approved("ann", "late"))
    with pytest.raises(UnexpectedEventError, match="Held cannot follow"):
        story_in(Status.HELD).tell(Held("bob", "too"))


def test_windows_that_are_late_or_told_twice_move_no_clock_and_count_as_the_running_block():
    story = story_in(Status.CANARY)
    story.let_pass(4)
    before = story.state
    story.tell(good_second(0.1), after=-3.0)
    assert story.state.clock == before.clock
    assert story.state.evidence.errors.capped.harm.block == before.evidence.errors.capped.harm.block
    assert story.state.evidence.errors.size == before.evidence.errors.size + 100


def test_windows_of_one_block_show_the_same_harm_in_whatever_order_they_arrive():
    """What they clear is the most that was shown at any look, and depends on when one looked."""
    facts = [good_second(0.1, failing=failing, slower=slower) for failing, slower in ((0.0, 0), (0.02, 3), (0.3, -9))]
    found = []
    for order in permutations(facts):
        story = story_in(Status.CANARY)
        story.let_pass(4)
        for fact in order:
            story.tell(fact, after=0.01)
        guards = [story.state.evidence.of(guard) for guard in (Guard.ERRORS, Guard.LATENCY)]
        found.append([value for one in guards for value in (one.log_harm, one.size)])
    assert all(values == pytest.approx(found[0], rel=1e-9) for values in found)
