"""Who is started again, after which pause, and who is given up: a caretaker on a fake host, with the test's clock."""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from gateway.routes import Candidate, Route
from rollout.caretaking import CANDIDATE_STARTS, RENEW_EVERY_S, STEADY_S, Ailing, Caretaker, died, lessened
from rollout.decision import engine
from rollout.decision.events import Event, PoolBecameReady, PoolLost
from rollout.decision.rules import Plan
from rollout.decision.state import Rollout, Status
from rollout.pools.fake import FakeHost
from rollout.pools.fake_server import Behaviour
from rollout.pools.records import PoolProcess
from rollout.routing import Routing
from rollout.serving import Serving
from rollout.store.database import Database
from rollout.store.rollouts import StoredRollout
from tests.rollout.releases import write_release

STABLE = ("digits", 1)


class HalfHost(FakeHost):
    """A host whose pools, while it `is_half`, serve by some of their servers only."""

    is_half = False

    def is_alive(self, pool: PoolProcess) -> bool:
        return not self.is_half and super().is_alive(pool)

    def last_words(self, pool: PoolProcess) -> str | None:
        return None if self.is_half else super().last_words(pool)


class House:
    """Release 1 is stable and 2 a candidate under way, and both live."""

    def __init__(self, folder: Path) -> None:
        for number in (1, 2):
            write_release(folder / "models", number)
        self.now = 1000.0
        self.told: list[Event] = []
        self.host = HalfHost(folder)
        self.serving = Serving(self.host, folder / "models")
        self.database = Database.open(f"sqlite:///{folder / 'control.db'}")
        self.routing = Routing(self.database, gateway_timeout_s=1.0)
        begun = engine.start("digits", 2, 1, Plan(), "salt")
        self.state: Rollout = replace(begun, status=Status.CANARY, is_pool_ready=True)
        servers = {release: self.serving.ensure("digits", release).addresses for release in (1, 2)}
        self.routing.change("digits", lambda _: Route("digits", 0, 1, servers, Candidate(2, 0.5)))
        self.caretaker = Caretaker(
            self.serving, self.routing, lambda _, event: self.told.append(event), lambda _: self.state, lambda: self.now
        )

    def look(self, after_s: float = 0.0) -> None:
        """Look once, and wait until what was begun has come to its end."""
        self.now += after_s
        self.caretaker.look([] if self.state.has_ended else [StoredRollout(7, self.state, 0, 0, 0, 0.0, 0.0)])
        self.caretaker.wait(10.0)

    def crash(self, release: int) -> None:
        self.host.crash(next(pool for pool in self.host.found() if pool.release == release))

    @property
    def living(self) -> list[int]:
        return sorted(pool.release for pool in self.host.found())


@pytest.fixture
def house(tmp_path: Path) -> Iterator[House]:
    house = House(tmp_path)
    yield house
    house.host.close()
    house.database.close()


def test_pauses_grow_to_a_minute_and_are_forgotten_after_five_good_ones() -> None:
    ailing, pauses = None, []
    for now in range(9):
        ailing = died(ailing, "why", float(now))
        pauses.append(ailing.start_at - now)
    assert pauses == [0, 1, 2, 4, 8, 16, 32, 60, 60]
    assert ailing is not None
    back = replace(ailing, back_at=100.0)
    assert died(back, "why", 100.0 + STEADY_S - 1).deaths == 10
    assert died(back, "why", 100.0 + STEADY_S) == Ailing(1, 100.0 + STEADY_S, "why")


def test_pool_that_lost_some_of_its_servers_has_not_died() -> None:
    assert lessened(None, 5.0) == Ailing(0, 5.0, "")
    assert not lessened(None, 5.0).is_failing
    again = lessened(replace(lessened(None, 5.0), back_at=6.0), 6.5)
    assert again == Ailing(0, 6.0 + RENEW_EVERY_S, "")
    assert died(again, "why", 9.0).deaths == 1
    assert lessened(Ailing(7, 0.0, "why", back_at=1.0), 1.0 + STEADY_S).deaths == 0


def test_pool_that_serves_by_some_of_its_servers_is_started_again_and_again_and_never_given_up(house: House) -> None:
    house.host.is_half = True
    for _ in range(20):
        house.look(60.0)
    assert house.told == []
    assert house.caretaker.failing() == {}
    assert house.living == [1, 2]


def test_pool_that_died_is_started_routed_and_only_then_told(house: House) -> None:
    for release in (1, 2):
        before = house.routing.table.routes["digits"].servers
        house.crash(release)
        house.look()
        assert house.living == [1, 2]
        after = house.routing.table.routes["digits"].servers
        assert after[release] == house.serving.addresses("digits", release) != before[release]
        assert house.told.pop() == PoolBecameReady(release)
    assert house.caretaker.failing() == {}


def test_stable_that_does_not_start_is_tried_for_ever_and_shown_with_its_last_words(house: House) -> None:
    house.host.behaviours["digits/1"] = Behaviour(start_error="no memory")
    house.crash(1)
    for _ in range(20):
        house.look(60.0)
    assert house.told == []
    assert house.living == [2]
    assert "no memory" in house.caretaker.failing()[STABLE]

    house.host.behaviours.clear()
    house.look(60.0)
    assert house.living == [1, 2]
    assert house.told == [PoolBecameReady(1)]
    assert STABLE in house.caretaker.failing()
    house.look(STEADY_S)
    assert house.caretaker.failing() == {}


def test_start_waits_for_its_pause(house: House) -> None:
    house.host.behaviours["digits/1"] = Behaviour(start_error="no memory")
    house.crash(1)
    house.look()
    house.host.behaviours.clear()
    house.look(0.9)
    assert house.living == [2]
    house.look(0.2)
    assert house.living == [1, 2]


def test_candidate_that_dies_again_and_again_is_given_up_with_its_last_words(house: House) -> None:
    for _ in range(CANDIDATE_STARTS):
        house.crash(2)
        house.look(60.0)
        house.look(60.0)
    assert house.living == [1, 2]
    assert house.told == [PoolBecameReady(2)] * CANDIDATE_STARTS
    house.crash(2)
    house.look(60.0)
    lost = house.told.pop()
    assert isinstance(lost, PoolLost)
    assert lost.reason == "it died or did not start 4 times, at last: the fake server of digits/2 was ended"
    assert house.living == [1]


def test_candidate_that_lives_long_between_its_deaths_is_not_given_up(house: House) -> None:
    for _ in range(2 * CANDIDATE_STARTS):
        house.crash(2)
        house.look(60.0)
        house.look(STEADY_S)
    assert house.told == [PoolBecameReady(2)] * (2 * CANDIDATE_STARTS)


def test_candidate_that_does_not_start_is_given_up_too(house: House) -> None:
    house.host.behaviours["digits/2"] = Behaviour(start_error="no memory")
    house.crash(2)
    for _ in range(CANDIDATE_STARTS):
        house.look(60.0)
    (lost,) = house.told
    assert isinstance(lost, PoolLost)
    assert "no memory" in lost.reason


def test_pool_whose_rollout_ended_while_it_was_started_is_stopped_again(house: House) -> None:
    house.host.behaviours["digits/2"] = Behaviour(start_delay_s=0.2)
    house.crash(2)
    house.caretaker.look([StoredRollout(7, house.state, 0, 0, 0, 0.0, 0.0)])
    house.state = replace(house.state, status=Status.ABORTED)
    house.routing.change("digits", lambda route: Route("digits", 0, 1, {1: house.serving.addresses("digits", 1)}))
    house.caretaker.wait(10.0)
    assert house.living == [1]
    assert house.told == []


def test_pool_that_is_missing_at_the_start_is_started(house: House) -> None:
    house.host.close()
    house.serving.adopt()
    house.look()
    assert house.living == [1, 2]
