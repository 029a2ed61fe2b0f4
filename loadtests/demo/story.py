"""The demo, step by step: a straight-line program over real processes."""

import asyncio
import contextlib
import json
import sqlite3
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from loadtests import faults
from loadtests.demo.place import Place
from loadtests.demo.promises import Promise, Restart, judge
from loadtests.demo.screen import Screen
from loadtests.demo.stage_hands import PLAN, Up, ask, export, sluice, train
from loadtests.demo.traces import Traces
from loadtests.errors import DemoError
from loadtests.rows import rows_for
from loadtests.schedule import Load, Traffic, metadata_of
from rollout.decision.state import Rollout

ROLLOUT_TIMEOUT_S = 150.0
RESTART_TIMEOUT_S = 30.0
WARM_TRAFFIC_S = 3.0


@dataclass(slots=True)
class Outcome:
    """Everything the demo saw."""

    rollouts: list[dict[str, Any]] = field(default_factory=list)
    restart: Restart | None = None
    promises: list[Promise] = field(default_factory=list)
    left: list[str] = field(default_factory=list)
    """What was still there after everything was stopped."""
    seconds: float = 0.0


class Story:
    """Runs the demo in one place. `tell` plays it; `close` stops everything, whatever happened."""

    def __init__(self, place: Place, screen: Screen, rate: float) -> None:
        self._place = place
        self._screen = screen
        self._rate = rate
        self._up = Up(place)
        self._traffic: Traffic | None = None
        self._sending: asyncio.Task[Any] | None = None
        self._traces = Traces(place.home)
        self.outcome = Outcome()
        self.is_told = False

    @property
    def traffic(self) -> Traffic:
        assert self._traffic is not None
        return self._traffic

    async def tell(self) -> None:
        """Raises DemoError or LoadError when a step cannot be done."""
        began = time.monotonic()
        self._screen.step("training four models and exporting them to ONNX")
        await self._make_releases()
        self._screen.step("starting gateway, control plane and Triton")
        await self._up.start()
        self._screen.step("digits/1 becomes stable")
        await self._roll_out(1)
        await self._start_traffic()
        self._screen.step("digits/2 is better: shadow, 5 %, 25 %, 50 %; its control plane is killed on the way")
        await self._roll_out(2)
        self._screen.step("digits/3 learned wrong labels: it looks good and is less accurate")
        await self._roll_out(3)
        self._screen.step("digits/4 crashes its server process under traffic")
        await self._roll_out(4)
        await self._stop_traffic()
        self.outcome.seconds = time.monotonic() - began
        self.is_told = True

    async def close(self) -> None:
        """Stop traffic and processes, look what is left, then judge."""
        try:
            await self._stop_traffic()
        finally:
            await self._up.stop()
        outcome = self.outcome
        outcome.left = self._traces.left()
        self._traces.end()
        if self._traffic is not None:
            outcome.promises = judge(self._traffic.account, outcome.rollouts, outcome.restart, outcome.left)

    async def _make_releases(self) -> None:
        """Two commands at a time; exports in order, so that the numbers fit."""
        slots = asyncio.Semaphore(2)

        async def train_one(number: int) -> None:
            async with slots:
                await train(self._place, number)

        trainings = [asyncio.create_task(train_one(number)) for number in (1, 2, 3, 4)]
        try:
            for number, training in enumerate(trainings, 1):
                await training
                async with slots:
                    await export(self._place, number)
                self._screen.note(f"digits/{number} exported")
        finally:
            for training in trainings:
                training.cancel()
            await asyncio.gather(*trainings, return_exceptions=True)

    async def _start_traffic(self) -> None:
        rows = rows_for("digits", await metadata_of(self._place.clients_url, "digits"))
        self._traffic = Traffic(Load(self._place.clients_url, "digits", self._rate), rows)
        self._screen.show_traffic(self._traffic.account)
        self._sending = asyncio.create_task(self._traffic.run())
        await asyncio.sleep(WARM_TRAFFIC_S)

    async def _stop_traffic(self) -> None:
        if self._traffic is not None and self._sending is not None:
            self._traffic.stop()
            await asyncio.wait({self._sending})  # Not awaited itself: an interrupted wait must not cut answers off.
            self._sending.result()
            self._sending = None

    async def _roll_out(self, number: int) -> None:
        """One rollout from its start to its end, with what happens to it on the way."""
        plan = ["--plan", str(PLAN)] if number > 1 else []
        begun = await sluice(
            self._place, "rollout", "start", f"digits/{number}", *plan, "--url", self._place.control_url, "--json"
        )
        rollout: dict[str, Any] = json.loads(begun)
        weights: set[float] = set()
        is_hurt = False
        ends = time.monotonic() + ROLLOUT_TIMEOUT_S
        while not rollout["is_settled"]:
            if time.monotonic() > ends:
                raise DemoError(f"digits/{number} was not decided within {ROLLOUT_TIMEOUT_S:g} s: {rollout['summary']}")
            await asyncio.sleep(0.25)
            self._traces.look()
            rollout = await ask(self._place, rollout["id"]) or rollout
            if rollout["status"] == "canary":
                weights.add(rollout["weight"])
            self._screen.show_rollout(rollout)
            if not is_hurt and await self._hurt(number, rollout):
                is_hurt = True
        self.outcome.rollouts.append({**rollout, "weights": sorted(weights)})
        self._screen.note(rollout["summary"])

    async def _hurt(self, number: int, rollout: dict[str, Any]) -> bool:
        """Do to a rollout what the story wants done to it, once it is where it should happen."""
        if rollout["status"] != "canary" or rollout["seconds_in_stage"] < 3.0:
            return False
        if number == 2 and rollout["stage"] == 3:
            await self._kill_control_plane(rollout)
            return True
        if number == 4:
            pid = faults.crash_pool(self._place.home, "digits", number)
            self._screen.note(
                f"digits/4's server process {pid} crashed (SIGSEGV) at {rollout['weight']:.0%} of the traffic"
            )
            return True
        return False

    async def _kill_control_plane(self, rollout: dict[str, Any]) -> None:
        """SIGKILL it, and read what it had stored before `sluice up` starts it again."""
        pid = faults.kill_control_plane(self._place.home)
        stored = stored_state(self._place.home, rollout["id"])
        self._screen.note(f"control plane {pid} killed (SIGKILL) with {stored.requests:,} requests of evidence")
        told = await self._back(rollout["id"])
        after = stored_state(self._place.home, rollout["id"])
        self.outcome.restart = Restart(counted(stored), counted(after), stored.status, after.status)
        self._screen.note(f"control plane is back with {told['requests']:,} requests of evidence")

    async def _back(self, key: int) -> dict[str, Any]:
        """The rollout as the restarted control plane first tells it."""
        ends = time.monotonic() + RESTART_TIMEOUT_S
        while time.monotonic() < ends:
            await asyncio.sleep(0.1)
            if (rollout := await ask(self._place, key)) is not None:
                return rollout
        raise DemoError(f"the control plane did not come back within {RESTART_TIMEOUT_S:g} s after it was killed")


def counted(state: Rollout) -> dict[str, int]:
    """How much each guard of a stored rollout has counted: requests compared, or labelled pairs."""
    return {guard.value: state.evidence.of(guard).size for guard in state.plan.guards.enabled}


def stored_state(home: Path, key: int) -> Rollout:
    """A rollout's state as the database has it."""
    with contextlib.closing(sqlite3.connect(f"file:{home / 'control.db'}?mode=ro", uri=True)) as connection:
        (text,) = connection.execute("SELECT state FROM rollouts WHERE id = ?", (key,)).fetchone()
    return Rollout.from_json(json.loads(text))
