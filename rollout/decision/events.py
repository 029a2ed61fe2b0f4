"""Facts: what happened to a rollout, in the past tense. The engine is told; it never asks.

Knows what was counted and who said what. Knows nothing of what follows from it. The time of a fact is an argument of
`engine.handle`.
"""

from dataclasses import dataclass, field

from rollout.decision.counts import (
    Agreement,
    AnswerComparison,
    ArmCounts,
    Comparison,
    Differences,
    LabelComparison,
    PairedLabels,
)


@dataclass(frozen=True, slots=True)
class RolloutStarted:
    """The rollout's clock runs from now."""


@dataclass(frozen=True, slots=True)
class PoolBecameReady:
    """A release is loaded, warm and answered its golden inputs. May be told again after a restart."""

    release: int


@dataclass(frozen=True, slots=True)
class PoolFailed:
    """A release's pool did not become ready."""

    release: int
    reason: str


@dataclass(frozen=True, slots=True)
class PoolLost:
    """A pool that was ready is no longer."""

    release: int
    reason: str


@dataclass(frozen=True, slots=True)
class Observed:
    """What the gateways counted since the last time; all zero when nothing happened, for that is how time passes.

    `comparisons` hold one entry a weight. `cold` are the candidate's requests that are not compared, since the route or
    a pool was cold when it answered them: only the breaker hears of them. `mirrored` are copies: their failures count
    for the breaker, their latency decides nothing. `agreement`, `differences` and `quality` are of mirrored requests,
    both answers known. `labelled` and `answers` are of requests that chance assigned, one entry a weight.
    """

    comparisons: tuple[Comparison, ...] = ()
    mirrored: ArmCounts = field(default_factory=ArmCounts)
    agreement: Agreement = field(default_factory=Agreement)
    differences: Differences = field(default_factory=Differences)
    quality: PairedLabels = field(default_factory=PairedLabels)
    labelled: tuple[LabelComparison, ...] = ()
    answers: tuple[AnswerComparison, ...] = ()
    cold: ArmCounts = field(default_factory=ArmCounts)

    @property
    def answered(self) -> tuple[ArmCounts, ...]:
        """All that the candidate answered itself."""
        return (*(comparison.candidate for comparison in self.comparisons), self.cold)

    @property
    def is_silent(self) -> bool:
        """Was nothing counted at all? Then nobody asked, or no gateway is heard of."""
        return not (
            any(one.stable.requests or one.candidate.requests for one in self.comparisons)
            or self.cold.requests
            or self.mirrored.requests
            or self.agreement.total
            or self.differences.total
            or self.quality.total
            or self.labelled
            or self.answers
        )


@dataclass(frozen=True, slots=True)
class Held:
    """Someone asked the rollout to stay where it is."""

    by: str
    reason: str


@dataclass(frozen=True, slots=True)
class Resumed:
    """Someone let a held rollout go on."""

    by: str
    reason: str


@dataclass(frozen=True, slots=True)
class Approved:
    """Someone lets the rollout take its next step that needs an approval."""

    by: str
    reason: str


@dataclass(frozen=True, slots=True)
class Promoted:
    """Someone gives all traffic to the candidate now, whatever the evidence says."""

    by: str
    reason: str


@dataclass(frozen=True, slots=True)
class RolledBack:
    """Someone found the candidate bad; all traffic goes back to stable."""

    by: str
    reason: str


@dataclass(frozen=True, slots=True)
class Aborted:
    """Someone ended the rollout without a finding; all traffic goes back to stable."""

    by: str
    reason: str


Event = (
    RolloutStarted | PoolBecameReady | PoolFailed | PoolLost | Observed
    | Held | Resumed | Approved | Promoted | RolledBack | Aborted
)  # fmt: skip

EVENT_TYPES: tuple[type[Event], ...] = (
    RolloutStarted, PoolBecameReady, PoolFailed, PoolLost, Observed, Held, Resumed, Approved, Promoted, RolledBack,
    Aborted,
)  # fmt: skip
