"""Killed after any instruction and started again, a rollout converges: same evidence, same end, same fleet."""

import json
from collections.abc import Iterator
from dataclasses import fields, replace
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rollout.decision.engine import start
from rollout.decision.events import (
    Approved,
    Event,
    Held,
    Observed,
    PoolBecameReady,
    Resumed,
    RolloutStarted,
)
from rollout.decision.evidence import Evidence
from rollout.decision.rules import Approvals, Hours, Inconclusive
from rollout.decision.state import Rollout, Status
from rollout.plan import load_plan
from tests.decision.decision_control import Controller, Fleet, KilledError
from tests.decision.decision_story import EVERYTHING, Story, everything, good_second
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


@settings(max_examples=40)
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


FULL = replace(
    EVERYTHING,
    approvals=Approvals(canary=1, promotion=2),
    hours=(Hours(("thu",), "00:00", "12:30"), Hours(("fri", "sat"))),
    extra_bad_requests=50,
    inconclusive=Inconclusive.EXTEND,
    alarm_free_s=86400.0,
    longest_s=15.0,
)


def a_long_story() -> Iterator[Rollout]:
    """A rollout to which everything happens that a state can hold, second by second."""
    story = Story(start("digits", 2, 1, FULL, "salt", attempt=3))
    story.tell(RolloutStarted())
    yield story.state
    story.tell(PoolBecameReady(2), after=0.1)
    told: dict[int, list[Event]] = {
        3: [Approved("ann", "")],
        12: [Held("bob", "lunch"), Approved("cid", "")],
        13: [Resumed("bob", "back")],
        55: [Approved("ann", ""), Approved("bob", "")],
        75: [PoolBecameReady(1)],
    }
    for second in range(110):
        for event in told.get(second, []):
            story.tell(event, after=1 / 7)
            yield story.state
        story.tell(what_is_seen(second, story.state.rules.weight), after=0.9)
        yield story.state


def what_is_seen(second: int, weight: float) -> Observed:
    """Good seconds, then a while without any traffic, and in the end a candidate that is slower and fails."""
    if 14 <= second < 34:
        return Observed()
    return everything(weight) if second < 80 else slowly(weight)


def slowly(weight: float) -> Observed:
    return replace(everything(weight), comparisons=good_second(weight, slower=4, failing=0.01).comparisons)


def test_all_that_a_state_can_hold_survives_storage_bit_by_bit():
    seen: set[str] = set()
    empty = Rollout("digits", 2, 1, FULL, "salt", Evidence.begin(FULL))
    for state in a_long_story():
        stored = json.dumps(state.to_json())
        again = Rollout.from_json(json.loads(stored))
        assert again == state
        assert json.dumps(again.to_json()) == stored
        seen |= {one.name for one in fields(Rollout) if getattr(state, one.name) != getattr(empty, one.name)}
        seen |= {f"evidence.{part}" for part in stored_evidence(state, empty)}
    missing = {one.name for one in fields(Rollout)} | {f"evidence.{one.name}" for one in fields(Evidence)}
    assert missing - seen == {"model", "release", "stable", "salt", "is_drift_known", "direct"}


def stored_evidence(state: Rollout, empty: Rollout) -> set[str]:
    """The parts of the evidence that are not as they began."""
    names = {one.name for one in fields(Evidence)}
    return {name for name in names if getattr(state.evidence, name) != getattr(empty.evidence, name)}


def test_late_evidence_and_a_known_drift_survive_storage():
    baking = next(state for state in a_long_story() if state.status is Status.BAKING)
    assert baking.evidence.errors.late is not None
    known = replace(baking, is_drift_known=True)
    again = Rollout.from_json(json.loads(json.dumps(known.to_json())))
    assert again == known
    assert again.evidence.latency.late == known.evidence.latency.late


def test_evidence_of_another_grid_is_refused():
    """As after an update that tries other alternatives: it would be read as something else."""
    data = Evidence.begin(FULL).to_json()
    data["errors"]["harm"] = data["errors"]["harm"][:-1]
    with pytest.raises(ValueError, match="evidence of 8 alternatives where the test has 9"):
        Evidence.from_json(FULL, data)
