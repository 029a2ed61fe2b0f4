"""Rollouts told as stories: facts with their times, so far as a test needs to come.

Knows the shortest way into every status. Knows nothing of what the engine should answer.
"""

from collections.abc import Callable
from dataclasses import replace

from rollout.decision.counts import (
    Agreement,
    AnswerComparison,
    ArmCounts,
    Comparison,
    Differences,
    LabelComparison,
    PairedLabels,
    Tally,
)
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
from rollout.decision.guards import AgreementRules, DifferenceRules, ErrorRules, Guard, Guards, MistakeRules
from rollout.decision.instructions import Instruction
from rollout.decision.rules import Checks, Drift, Plan, Stage
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


SHAPE = {200: 0.6, 205: 0.3, 210: 0.07, 220: 0.024, 240: 0.006}
"""Stable's latencies: shares by bucket. Each quantile is exceeded by some, none by as many as it could be."""


def arm(requests: int, failures: int = 0, slower: int = 0) -> ArmCounts:
    """One release's requests, all so many buckets above stable's."""
    counts = {bucket + slower: int(share * (requests - failures)) for bucket, share in SHAPE.items()}
    counts[200 + slower] += requests - failures - sum(counts.values())
    return ArmCounts(requests, failures, counts)


def good_second(weight: float, *, failing: float = 0.0, slower: int = -50, taken: int | None = None) -> Observed:
    """A second of 1,000 requests at this weight; the candidate is faster, more accurate and fails this share.

    It gets what its weight says, or `taken`.
    """
    taken = int(1000 * weight) if taken is None else taken
    comparison = Comparison(weight, arm(1000 - taken), arm(taken, int(taken * failing), slower))
    return Observed((comparison,), ArmCounts(500, 0, {150: 500}), quality=PairedLabels(20, 475, 5))


def undecided_second(weight: float) -> Observed:
    """All is good, but of the labels one speaks for the candidate and one against it: never clear, never harmful."""
    return replace(good_second(weight), quality=PairedLabels(1, 0, 1))


EVERY_GUARD = Guards(
    errors=ErrorRules(alpha_share=0.2),
    agreement=AgreementRules(enabled=True),
    difference=DifferenceRules(enabled=True),
    mistakes=MistakeRules(enabled=True),
)
EVERYTHING = replace(
    PLAN,
    guards=EVERY_GUARD,
    stages=(PLAN.stages[0], replace(PLAN.stages[1], shadow_share=1.0), replace(PLAN.stages[2], shadow_share=1.0)),
    checks=Checks(drift=Drift.WARN),
)


def everything(weight: float) -> Observed:
    """A second in which every guard and every check has something to count."""
    ours, theirs = round(1000 * weight), 1000 - round(1000 * weight)
    return replace(
        good_second(weight),
        agreement=Agreement(490, 10),
        differences=Differences({0: 480, 5: 20}),
        labelled=(LabelComparison(weight, Tally(theirs, theirs // 20), Tally(ours, ours // 20)),),
        answers=(AnswerComparison(weight, (theirs // 2, theirs // 2), (ours // 2, ours // 2)),),
    )


Second = Callable[[float], Observed]
"""What is observed in a second under this weight."""


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

    def watch(
        self, until: Status, seconds: int = 100, stage: int = 0, second: Second = good_second
    ) -> tuple[Instruction, ...]:
        """Let good seconds pass until the rollout gets there; the instructions of the last one."""
        for _ in range(seconds):
            instructions = self.tell(second(self.state.rules.weight), after=1.0)
            if self.state.status is until and self.state.stage >= stage:
                return instructions
        raise AssertionError(f"never {until}: {self.state!r}")

    def let_pass(self, seconds: int, second: Second = good_second) -> None:
        """Let seconds pass, whatever comes of it."""
        for _ in range(seconds):
            if not self.state.has_ended:
                self.tell(second(self.state.rules.weight), after=1.0)


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
