"""A controller without processes: carries out instructions on a make-believe fleet, and can be killed anywhere.

Knows the order of things that every controller keeps: store the state with the instructions owed, then carry them out.
Asserts DESIGN section 7 on the way: ready before routed, routed away before stopped.
"""

import json
from dataclasses import dataclass, field

from rollout.decision.engine import handle
from rollout.decision.events import Event
from rollout.decision.instructions import (
    Announce,
    Instruction,
    ReplaceRoute,
    StartPool,
    StopPool,
    instruction_from_json,
    instruction_to_json,
)
from rollout.decision.state import Rollout


@dataclass
class Fleet:
    """What is really there: pools by release, and the route in force."""

    ready: set[int] = field(default_factory=lambda: {1})
    started: set[int] = field(default_factory=set)
    route: ReplaceRoute | None = None
    announced: list[str] = field(default_factory=list)

    def routed(self) -> set[int]:
        if self.route is None:
            return set()
        arms = (self.route.candidate, self.route.shadow)
        return {self.route.stable, *(arm.release for arm in arms if arm)}

    def carry_out(self, instruction: Instruction) -> None:
        match instruction:
            case StartPool(release):
                self.started.add(release)
            case StopPool(release):
                assert release not in self.routed(), f"{release} is stopped while it has traffic"
                self.ready.discard(release)
                self.started.discard(release)
            case ReplaceRoute():
                self.route = instruction
                assert self.routed() <= self.ready, f"{self.routed() - self.ready} got traffic before it was ready"
            case Announce(text):
                self.announced.append(text)


class KilledError(Exception):
    """SIGKILL, as far as this controller is concerned."""


@dataclass
class Controller:
    """Told facts one by one. `store` is all that survives; `lives` counts instructions until it is killed."""

    fleet: Fleet
    store: str
    lives: int | None = None
    _read: tuple[str, Rollout] | None = None
    """The store as it was read last: it is read again when it has changed."""

    @staticmethod
    def of(state: Rollout, fleet: Fleet, lives: int | None = None) -> "Controller":
        return Controller(fleet, json.dumps({"state": state.to_json(), "owed": []}), lives)

    @property
    def state(self) -> Rollout:
        if self._read is None or self._read[0] != self.store:
            self._read = self.store, Rollout.from_json(json.loads(self.store)["state"])
        return self._read[1]

    def tell(self, event: Event, now: float) -> None:
        state, instructions = handle(self.state, event, now)
        owed = [instruction_to_json(instruction) for instruction in instructions]
        self.store = json.dumps({"state": state.to_json(), "owed": owed})
        self.settle()

    def settle(self) -> None:
        """Carry out what is owed, from the first on; a killed controller forgets how far it had come."""
        owed = json.loads(self.store)["owed"]
        for data in owed:
            self.fleet.carry_out(instruction_from_json(data))
            if self.lives is not None:
                self.lives -= 1
                if self.lives == 0:
                    raise KilledError
        if owed:
            self.store = json.dumps({**json.loads(self.store), "owed": []})
