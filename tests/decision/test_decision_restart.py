"""Killed after any instruction and started again, a rollout converges: same evidence, same end, same fleet."""

import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rollout.decision.engine import start
from rollout.decision.events import Event, PoolBecameReady, RolloutStarted
from rollout.decision.state import Rollout
from rollout.plan import load_plan
from tests.decision.decision_control import Controller, Fleet, KilledError
from tests.decision.decision_traffic import Behaviour, World

PLAN = load_plan(Path(__file__).parents[2] / "rollout/examples/demo.toml")
WORLDS = {
    "promoted": World(3, better=0.03, worse=0.01),
    "rolled_back": World(3, candidate=Behaviour(median_us=12_000.0)),
}


def begin(lives: int | None = None) -> Controller:
    return Controller.of(start("digits", 2, 1, PLAN, "salt"), Fleet(ready={1, 2}), lives)


def record(world: World) -> tuple[list[tuple[Event, float]], Controller]:
    """The facts of a rollout that was not killed, and its end."""
    facts: list[tuple[Event, float]] = [(RolloutStarted(), 0.0), (PoolBecameReady(2), 1.0)]
    controller = begin()
    for fact in facts:
        controller.tell(*fact)
    while not controller.state.has_ended:
        facts.append((world.second(controller.fleet.route), facts[-1][1] + 1.0))
        controller.tell(*facts[-1])
    return facts, controller


def replay_killed(facts: list[tuple[Event, float]], lives: int) -> Controller:
    """The same facts to a controller that is killed after `lives` instructions and started again."""
    controller = begin(lives)
    for event, now in facts:
        try:
            controller.tell(event, now)
        except KilledError:
            controller = Controller(controller.fleet, controller.store)
            controller.settle()
            if not controller.state.has_ended and controller.state.is_routed:
                controller.tell(PoolBecameReady(2), now)
    return controller


@pytest.mark.parametrize("end", WORLDS)
def test_it_converges_wherever_it_is_killed(end):
    facts, whole = record(WORLDS[end])
    assert whole.state.status.value == end
    steps = 3 * len(whole.fleet.announced)
    for lives in range(1, steps):
        killed = replay_killed(facts, lives)
        assert json.loads(killed.store) == json.loads(whole.store)
        assert (killed.fleet.route, killed.fleet.ready) == (whole.fleet.route, whole.fleet.ready)


@given(st.integers(0, 2**32), st.floats(0.0, 0.3), st.integers(1, 40))
def test_a_state_survives_storage_bit_by_bit(seed, failing, seconds):
    world = World(seed, Behaviour(failing=0.01), Behaviour(failing=failing), rate=40.0)
    controller = begin()
    controller.tell(RolloutStarted(), 0.1)
    controller.tell(PoolBecameReady(2), 0.7)
    for second in range(seconds):
        if not controller.state.has_ended:
            controller.tell(world.second(controller.fleet.route), 1.1 * second + 1.3)
    state = controller.state
    again = Rollout.from_json(json.loads(json.dumps(state.to_json())))
    assert again == state
    assert json.dumps(again.to_json()) == json.dumps(state.to_json())
