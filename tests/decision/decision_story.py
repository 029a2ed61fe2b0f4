"""Rollouts told as stories: facts with their times, so far as a test needs to come.

Knows the shortest way into every status. Knows nothing of what the engine should answer.
"""

from rollout.decision.counts import ArmCounts, Comparison, PairedLabels
from rollout.decision.engine import handle, start
from rollout.decision.events import (
    Aborted,
    Event,
    Held,
    Observed,
    PoolBecameReady,
    PoolFailed,
    PoolLost,
    RolloutStarted,
)
from rollout.decision.instructions import Instruction
from rollout.decision.rules import Guard, Plan, Stage
from rollout.decision.state import Rollout, Status

PLAN = Plan(
    stages=(
        Stage(shadow_share=1.0, soak_s=5.0, clear=frozenset({Guard.QUALITY})),
        Stage(weight=0.1, shadow_share=0.5, soak_s=5.0),
        Stage(weight=0.5, soak_s=5.0),
    ),
    block_s=2.0,
    warmup_s=1.0,
    bake_s=5.0,
    longest_s=200.0,
)


def good_second(weight: float, *, failing: float = 0.0) -> Observed:
    """A second of 1,000 requests at this weight; the candidate is faster, more accurate and fails this share."""
    taken = int(1000 * weight)
    failures = int(taken * failing)
    candidate = ArmCounts(taken, failures, {150: taken - failures})
    comparison = Comparison(weight, ArmCounts(1000 - taken, 0, {200: 1000 - taken}), candidate)
    return Observed((comparison,), ArmCounts(500, 0, {150: 500}), quality=PairedLabels(20, 475, 5))


class Story:
    """A rollout as it goes on, with every instruction so far."""

    def __init__(self, state: Rollout) -> None:
        self.state = state
        self.now = 100.0
        self.instructions: list[Instruction] = []

    def tell(self, event: Event, after: float = 0.0) -> tuple[Instruction, ...]:
        self.now += after
        self.state, instructions = handle(self.state, event, self.now)
        self.instructions += instructions
        return instructions

    def watch(self, until: Status, seconds: int = 100, stage: int = 0) -> tuple[Instruction, ...]:
        """Let good seconds pass until the rollout gets there; the instructions of the last one."""
        for _ in range(seconds):
            instructions = self.tell(good_second(self.state.rules.weight), after=1.0)
            if self.state.status is until and self.state.stage >= stage:
                return instructions
        raise AssertionError(f"never {until}: {self.state!r}")


def routed_story(plan: Plan = PLAN) -> Story:
    story = Story(start("digits", 2, 1, plan, "salt"))
    story.tell(RolloutStarted())
    story.tell(PoolBecameReady(2), after=3.0)
    return story


def story_in(status: Status) -> Story:
    """A rollout that came to this status by its own way."""
    story = Story(start("digits", 2, 1, PLAN, "salt"))
    if status is Status.PENDING:
        return story
    story.tell(RolloutStarted())
    if status is Status.FAILED:
        story.tell(PoolFailed(2, "no memory"))
    if status in (Status.WARMING, Status.FAILED):
        return story
    story.tell(PoolBecameReady(2), after=3.0)
    match status:
        case Status.CANARY | Status.BAKING | Status.PROMOTED:
            story.watch(status)
        case Status.HELD:
            story.tell(Held("ann", "lunch"))
        case Status.ROLLED_BACK:
            story.tell(PoolLost(2, "killed"))
        case Status.ABORTED:
            story.tell(Aborted("ann", "wrong data"))
        case _:
            pass
    assert story.state.status is status
    return story
