"""A rollout under anything that may happen, in any order, with the laws checked after every step."""

import json
from dataclasses import asdict, replace

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from rollout.decision.counts import Agreement, AnswerComparison, ArmCounts, Comparison, PairedLabels
from rollout.decision.engine import TRANSITIONS, start
from rollout.decision.events import (
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
from rollout.decision.guards import AgreementRules, Guard, Guards
from rollout.decision.rules import Approvals, Checks, Drift, Hours, Inconclusive, Plan, Stage
from rollout.decision.state import Rollout, Status
from rollout.decision.verdict import progress
from tests.decision.decision_control import Controller, Fleet
from tests.decision.decision_story import arm

PLAN = Plan(
    stages=(
        Stage(shadow_share=1.0, soak_s=2.0),
        Stage(weight=0.2, shadow_share=1.0, soak_s=2.0, clear=frozenset({Guard.QUALITY})),
        Stage(weight=0.5, shadow_share=1.0, soak_s=2.0),
    ),
    guards=Guards(agreement=AgreementRules(enabled=True, harm=0.1, clear=0.2)),
    block_s=1.0,
    warmup_s=0.5,
    bake_s=2.0,
    longest_s=60.0,
)
SOUND = (*[0.0] * 8, 0.02, 0.3, 1.0)
NOT_IN_THE_SECOND_MINUTE = (Hours(("thu",), "00:00", "00:01"), Hours(("thu",), "00:02", "24:00"))
PEOPLE = ("ann", "bob", "cid")


class AnyRollout(RuleBasedStateMachine):
    """One controller; facts come as they like, as far as the table lets them."""

    @initialize(
        stable=st.sampled_from([1, 1, 1, None]),
        inconclusive=st.sampled_from(Inconclusive),
        approvals=st.tuples(st.sampled_from([0, 0, 1, 2]), st.sampled_from([0, 0, 1, 2])),
        hours=st.sampled_from([(), NOT_IN_THE_SECOND_MINUTE]),
        budget=st.sampled_from([0, 20, 500]),
        drift=st.sampled_from(Drift),
    )
    def begin(self, stable, inconclusive, approvals, hours, budget, drift) -> None:
        plan = replace(
            PLAN, inconclusive=inconclusive, approvals=Approvals(*approvals), hours=hours, extra_bad_requests=budget,
            checks=Checks(drift=drift),
        )  # fmt: skip
        self.fleet = Fleet(ready=set() if stable is None else {stable})
        self.controller = Controller.of(start("digits", 2, stable, plan, "salt"), self.fleet)
        self.now = 0.0
        self.was_cleared = False
        self.approved: set[str] = set()
        self.controller.tell(RolloutStarted(), self.now)

    def tell(self, event: Event) -> None:
        before = self.controller.state
        if (before.status, type(event)) in TRANSITIONS:
            self.controller.tell(event, self.now)
        state = self.controller.state
        self.was_cleared = all(state.evidence.is_cleared(state.plan, guard) for guard in state.plan.guards.required)
        assert state == before or not before.has_ended, "what ended changed"
        if state.stage > before.stage or (state.routed_at is not None and before.routed_at is None):
            self.may_have_gone_on(before, state)

    def may_have_gone_on(self, before: Rollout, state: Rollout) -> None:
        """Nobody's hours, and no bound on what a stage may cost, were passed over."""
        assert not state.plan.hours or not 60 <= state.clock < 120
        assert state.stage - before.stage <= 1
        assert state.requests >= before.requests

    @rule(seconds=st.floats(0.1, 3.0))
    def pass_time(self, seconds: float) -> None:
        self.now += seconds
        self.tell(Observed())

    @rule()
    def jump_back(self) -> None:
        self.now = max(0.0, self.now - 5.0)
        self.tell(Observed())

    @rule(
        seconds=st.integers(1, 12),
        failing=st.sampled_from(SOUND),
        worse=st.sampled_from((*[0] * 8, 30)),
        slow=st.sampled_from((*[False] * 8, True)),
        unfair=st.sampled_from((*[1.0] * 8, 1.5)),
        drifting=st.booleans(),
        requests=st.sampled_from((600, 600, 6)),
    )
    def serve(self, seconds, failing, worse, slow, unfair, drifting, requests) -> None:
        for _ in range(seconds):
            self.now += 0.7
            second = self.second(failing, worse, 100 if slow else 0, unfair, requests)
            self.tell(replace(second, answers=tuple(answers(one, drifting) for one in second.comparisons)))

    @rule(steps=st.integers(1, 30))
    def go_on_well(self, steps: int) -> None:
        """What gets a rollout far enough for the rest to matter."""
        self.become_ready()
        self.tell(Resumed("ann", "back"))
        for person in PEOPLE[: self.controller.state.approvals_missing]:
            self.approve(person)
        self.serve(steps, 0.0, 0, False, 1.0, False, 600)

    @rule(minutes=st.integers(1, 3))
    def go_on_undecided(self, minutes: int) -> None:
        """Labels that speak for and against the candidate alike, for so long that patience may end."""
        for _ in range(20 * minutes):
            self.now += 3.0
            self.tell(replace(self.second(0.0, 0, 0), quality=PairedLabels(1, 0, 1)))

    def second(self, failing: float, worse: int, slower: int, unfair: float = 1.0, requests: int = 600) -> Observed:
        route = self.fleet.route
        weight = route.candidate.weight if route and route.candidate else 0.0
        copies = int(300 * route.shadow.share) if route and route.shadow else 0
        taken = min(requests, int(requests * weight * unfair))
        failures = int(taken * failing)
        stable, candidate = arm(requests - taken), arm(taken, failures, slower - 20)
        pairs = PairedLabels(3, 200, worse) if copies else PairedLabels()
        agreement = Agreement(200, 3 + worse) if copies else Agreement()
        return Observed((Comparison(weight, stable, candidate),), ArmCounts(copies), agreement=agreement, quality=pairs)

    @precondition(lambda self: 2 in self.fleet.started)
    @rule()
    def become_ready(self) -> None:
        self.fleet.ready.add(2)
        self.tell(PoolBecameReady(2))

    @rule(lost=st.sampled_from([PoolLost(2, "killed"), PoolFailed(2, "no memory"), PoolLost(1, "killed")]))
    def lose(self, lost: PoolLost | PoolFailed) -> None:
        if self.now > 20.0:
            self.tell(lost)

    @rule()
    def hold(self) -> None:
        self.tell(Held("ann", "lunch"))

    @rule()
    def resume(self) -> None:
        self.tell(Resumed("ann", "back"))

    @rule(person=st.sampled_from(PEOPLE))
    def approve(self, person: str) -> None:
        if (self.controller.state.status, Approved) in TRANSITIONS:
            self.approved.add(person)
        self.tell(Approved(person, "looks good"))

    @precondition(lambda self: self.now > 30.0)
    @rule()
    def abort(self) -> None:
        self.tell(Aborted("ann", "enough"))

    @precondition(lambda self: self.now > 30.0)
    @rule(event=st.sampled_from([Promoted("ann", "it must be"), RolledBack("ann", "it is slow")]))
    def overrule(self, event: Promoted | RolledBack) -> None:
        self.tell(event)

    @rule()
    def restart(self) -> None:
        self.controller = Controller(self.fleet, self.controller.store)
        self.controller.settle()

    @property
    def is_overruled(self) -> bool:
        decision = self.controller.state.decision
        return decision is not None and decision.by == "engineer"

    @invariant()
    def the_route_is_sound(self) -> None:
        route = self.fleet.route
        if route and route.candidate:
            assert 0 < route.candidate.weight < 1
        if route and route.shadow:
            assert 0 < route.shadow.share <= 1
        assert self.fleet.routed() <= self.fleet.ready

    @invariant()
    def the_route_is_the_states(self) -> None:
        state, routed = self.controller.state, self.fleet.routed()
        if state.stable is None:
            assert routed == ({2} if state.status is Status.PROMOTED else set())
        elif state.status is Status.PROMOTED:
            assert routed == {2}
        elif state.is_routed:
            assert routed == {1, 2}
        else:
            assert routed <= {1}

    @invariant()
    def nothing_is_promoted_that_was_not_cleared(self) -> None:
        """Unless someone or the plan says so in as many words; by the plan all was measured, and no harm shown."""
        state = self.controller.state
        if state.status is not Status.PROMOTED or state.stable is None or self.was_cleared or self.is_overruled:
            return
        assert (state.plan.inconclusive, state.decision.by) == (Inconclusive.PROMOTE_IF_UNHARMED, "inconclusive")
        assert all(state.evidence.of(guard).size > 0 for guard in state.plan.guards.required)
        assert not any(state.evidence.is_harmed(state.plan, guard) for guard in state.plan.guards.enabled)

    @invariant()
    def nobody_is_passed_over(self) -> None:
        route, wanted = self.fleet.route, self.controller.state.plan.approvals
        if route and route.candidate:
            assert len(self.approved) >= wanted.canary
            assert len(self.approved) >= wanted.promotion or route.candidate.weight < PLAN.baking.weight

    @invariant()
    def numbers_that_are_not_fit_to_be_compared_lead_nowhere(self) -> None:
        state = self.controller.state
        if state.evidence.share.is_broken(state.plan) and not self.is_overruled:
            assert state.status not in (Status.SHADOW, Status.CANARY, Status.BAKING, Status.PROMOTED)

    @invariant()
    def a_late_regression_is_watched_for_while_it_bakes(self) -> None:
        state = self.controller.state
        assert (state.evidence.errors.late is not None) == (state.stage == len(PLAN.stages))

    @invariant()
    def an_end_has_a_reason_and_progress_can_be_told(self) -> None:
        state = self.controller.state
        assert (state.decision is not None) == state.has_ended
        assert (state.hold is not None) == (state.status is Status.HELD)
        told = progress(state, self.now)
        assert told.summary
        assert all(0 <= verdict.harm <= 1 and 0 <= verdict.clear <= 1 for verdict in told.verdicts)
        assert all(verdict.needs and verdict.reason for verdict in told.verdicts)
        assert json.dumps(asdict(told), allow_nan=False)


def answers(seen: Comparison, drifting: bool) -> AnswerComparison:
    """Half of the answers are of each of two classes; all of the candidate's are of the first where they drift."""
    ours, theirs = seen.candidate.requests // 2, seen.stable.requests // 2
    return AnswerComparison(seen.weight, (theirs, theirs), (2 * ours, 0) if drifting else (ours, ours))


AnyRollout.TestCase.settings = settings(max_examples=40, stateful_step_count=40, deadline=None)
TestAnyRollout = AnyRollout.TestCase
