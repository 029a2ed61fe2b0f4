"""A rollout under anything that may happen, in any order, with the laws checked after every step."""

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from rollout.decision.counts import Agreement, ArmCounts, Comparison, PairedLabels
from rollout.decision.engine import TRANSITIONS, start
from rollout.decision.events import (
    Aborted,
    Event,
    Held,
    Observed,
    PoolBecameReady,
    PoolFailed,
    PoolLost,
    Resumed,
    RolloutStarted,
)
from rollout.decision.rules import AgreementRules, Guard, Guards, Inconclusive, Plan, Stage
from rollout.decision.state import Status
from rollout.decision.verdict import progress
from tests.decision.decision_control import Controller, Fleet

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
SOUND = (0.0, 0.0, 0.0, 0.0, 0.02, 0.3, 1.0)


class AnyRollout(RuleBasedStateMachine):
    """One controller; facts come as they like, as far as the table lets them."""

    @initialize(stable=st.sampled_from([1, 1, 1, None]), inconclusive=st.sampled_from(Inconclusive))
    def begin(self, stable: int | None, inconclusive: Inconclusive) -> None:
        plan = Plan.from_json({**PLAN.to_json(), "inconclusive": inconclusive.value})
        self.fleet = Fleet(ready=set() if stable is None else {stable})
        self.controller = Controller.of(start("digits", 2, stable, plan, "salt"), self.fleet)
        self.now = 0.0
        self.was_cleared = False
        self.controller.tell(RolloutStarted(), self.now)

    def tell(self, event: Event) -> None:
        before = self.controller.state
        if (before.status, type(event)) in TRANSITIONS:
            self.controller.tell(event, self.now)
        state = self.controller.state
        self.was_cleared = all(state.evidence.is_cleared(state.plan, guard) for guard in state.plan.guards.required)

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
        worse=st.sampled_from((0, 0, 30)),
        slow=st.booleans(),
    )
    def serve(self, seconds: int, failing: float, worse: int, slow: bool) -> None:
        for _ in range(seconds):
            self.now += 0.7
            self.tell(self.second(failing, worse, 100 if slow else 0))

    @rule()
    def go_on_well(self) -> None:
        """What gets a rollout far enough for the rest to matter."""
        self.fleet.ready |= self.fleet.started
        self.tell(PoolBecameReady(2))
        self.tell(Resumed("ann", "back"))
        for _ in range(10):
            self.now += 0.7
            self.tell(self.second(0.0, 0, 0))

    def second(self, failing: float, worse: int, slower: int) -> Observed:
        route = self.fleet.route
        weight = route.candidate.weight if route and route.candidate else 0.0
        copies = int(300 * route.shadow.share) if route and route.shadow else 0
        taken = int(600 * weight)
        failures = int(taken * failing)
        candidate = ArmCounts(taken, failures, {180 + slower: taken - failures})
        stable = ArmCounts(600 - taken, 0, {200: 600 - taken})
        pairs = PairedLabels(3, 200, worse) if copies else PairedLabels()
        agreement = Agreement(200, 3 + worse) if copies else Agreement()
        return Observed((Comparison(weight, stable, candidate),), ArmCounts(copies), agreement, pairs)

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

    @precondition(lambda self: self.now > 30.0)
    @rule()
    def abort(self) -> None:
        self.tell(Aborted("ann", "enough"))

    @rule()
    def restart(self) -> None:
        self.controller = Controller(self.fleet, self.controller.store)
        self.controller.settle()

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
        state = self.controller.state
        if state.status is Status.PROMOTED and state.stable is not None:
            assert self.was_cleared

    @invariant()
    def an_end_has_a_reason_and_progress_can_be_told(self) -> None:
        state = self.controller.state
        assert (state.decision is not None) == state.has_ended
        assert (state.hold is not None) == (state.status is Status.HELD)
        told = progress(state, self.now)
        assert told.summary
        assert all(0 <= verdict.harm <= 1 and 0 <= verdict.clear <= 1 for verdict in told.verdicts)


AnyRollout.TestCase.settings = settings(max_examples=60, stateful_step_count=40, deadline=None)
TestAnyRollout = AnyRollout.TestCase
