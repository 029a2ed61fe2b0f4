"""The engine itself, as one of the methods: it is told each window, and its route decides what comes next."""

from collections.abc import Sequence
from dataclasses import dataclass

from loadtests.deciding.traffic import WINDOW_S, Seen
from rollout.decision import engine
from rollout.decision.counts import Comparison
from rollout.decision.events import Observed, PoolBecameReady, RolloutStarted
from rollout.decision.instructions import Instruction, ReplaceRoute
from rollout.decision.rules import Plan
from rollout.decision.state import Rollout, Status

OURS = "sluice"


@dataclass(slots=True)
class Engine:
    """A rollout of release 2 over release 1, from its first traffic on."""

    state: Rollout
    route: ReplaceRoute

    @staticmethod
    def begin(plan: Plan) -> "Engine":
        state = engine.start("model", 2, 1, plan, "salt")
        state, _ = engine.handle(state, RolloutStarted(), 0.0)
        state, instructions = engine.handle(state, PoolBecameReady(2), 0.0)
        return Engine(state, _routed(instructions, ReplaceRoute(1)))

    @property
    def weight(self) -> float:
        return self.route.candidate.weight if self.route.candidate else 0.0

    def see(self, seen: Seen) -> str | None:
        """Tell a window; the decision, when there is one."""
        comparison = Comparison(seen.weight, seen.stable.counts(), seen.candidate.counts())
        return self.tell(Observed((comparison,)), WINDOW_S * (seen.number + 1))

    def tell(self, observed: Observed, now: float) -> str | None:
        self.state, instructions = engine.handle(self.state, observed, now)
        self.route = _routed(instructions, self.route)
        match self.state.status:
            case Status.PROMOTED | Status.ROLLED_BACK | Status.HELD as status:
                return status.value
            case _:
                return None


def _routed(instructions: Sequence[Instruction], before: ReplaceRoute) -> ReplaceRoute:
    for instruction in instructions:
        if isinstance(instruction, ReplaceRoute):
            before = instruction
    return before
