"""The state of one rollout, as it is stored.

Knows where the rollout stands, since when, and on what evidence. Knows nothing of what may happen next: that is
`engine`. A stored state that is read again is the same state, bit by bit: floats are written with all their digits.
"""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from enum import StrEnum
from functools import lru_cache
from typing import Any

from rollout.decision.evidence import Evidence
from rollout.decision.rules import Plan, Stage


class Status(StrEnum):
    """Where a rollout stands; the values are what people read."""

    PENDING = "pending"
    WARMING = "warming"
    SHADOW = "shadow"
    CANARY = "canary"
    BAKING = "baking"
    HELD = "held"
    PROMOTED = "promoted"
    ROLLED_BACK = "rolled_back"
    ABORTED = "aborted"
    FAILED = "failed"


@lru_cache(maxsize=1024)
def plan_json(plan: Plan) -> dict[str, Any]:
    """A plan as it is stored, made once for all the times that its rollout is stored."""
    return plan.to_json()


ENDED = frozenset({Status.PROMOTED, Status.ROLLED_BACK, Status.ABORTED, Status.FAILED})


@dataclass(frozen=True, slots=True)
class Hold:
    """Who holds the rollout, why, and where it goes on when it is resumed."""

    by: str
    reason: str
    since: float
    origin: Status


@dataclass(frozen=True, slots=True)
class Decision:
    """How the rollout ended.

    `by` is a guard's name, or breaker, server, engineer, cleared, inconclusive, first release. `requests` counts what
    the candidate answered, copies too, and `seconds` runs since it first got any; both 0 when it never did.
    """

    by: str
    reason: str
    requests: int
    seconds: float


@dataclass(frozen=True, slots=True)
class Point:
    """The evidence of every enabled guard at the end of a block, as shares of what is needed, in logs."""

    clock: float
    stage: int
    harm: Mapping[str, float]
    clear: Mapping[str, float]

    def to_json(self) -> dict[str, Any]:
        return {"clock": self.clock, "stage": self.stage, "harm": self.harm, "clear": self.clear}


SILENCE_S = 30.0
"""When nothing was counted for so long, there are no data, and the rollout stays where it is. Time in which nobody told
the engine anything for so long, since the control plane was away, does not count against its patience."""
TRAIL_MOST = 120
"""Points kept of the evidence over time; when there are more, every other one goes."""


@dataclass(frozen=True, slots=True, repr=False)
class Rollout:
    """One candidate release on its way. Times are the clock's seconds, as given with the facts.

    `stage` is a position in the plan's stages; while baking it is one past the last. `stage_requests` counts the
    candidate's requests in it (copies where its weight is 0), `stage_traffic` those of both releases, `requests` all of
    the candidate's. `deadline` is when patience ends. `changed_at` is when the route or a pool changed last.
    `plan` is the plan as this attempt spends it (Plan.attempted). `approved_by` lets it take the next step.
    """

    model: str
    release: int
    stable: int | None
    plan: Plan
    salt: str
    evidence: Evidence
    status: Status = Status.PENDING
    stage: int = 0
    is_pool_ready: bool = False
    clock: float = 0.0
    started_at: float = 0.0
    entered_at: float = 0.0
    changed_at: float = 0.0
    deadline: float = 0.0
    routed_at: float | None = None
    heard_at: float = 0.0
    """When anything was counted last, of either release."""
    requests: int = 0
    stage_requests: int = 0
    stage_traffic: int = 0
    attempt: int = 1
    direct: str = ""
    """Why it is to be promoted as soon as its pool is ready, without a comparison; empty: it is not."""
    is_extended: bool = False
    is_drift_known: bool = False
    """Someone let the rollout go on although answers drifted."""
    approved_by: tuple[str, ...] = ()
    waits_for_people: bool = False
    """Was nothing but people or hours missing when it was last looked at?"""
    trail: tuple[Point, ...] = ()
    hold: Hold | None = None
    decision: Decision | None = None

    def __repr__(self) -> str:
        where = f"{self.status.value} (from {self.hold.origin.value})" if self.hold else self.status.value
        over = "first release" if self.stable is None else f"over {self.stable}"
        end = f", decided by {self.decision.by}" if self.decision else ""
        stage = f", stage {self.stage + 1} of {len(self.plan.stages)}" if self.stage < len(self.plan.stages) else ""
        return f"<{self.model}/{self.release} {over}: {where}{stage}, {self.requests} requests{end}>"

    @property
    def has_ended(self) -> bool:
        return self.status in ENDED

    @property
    def phase(self) -> Status:
        """Where the rollout stands, or stood when it was held."""
        return self.hold.origin if self.hold else self.status

    @property
    def is_routed(self) -> bool:
        """Does the candidate get requests or copies?"""
        return self.phase in (Status.SHADOW, Status.CANARY, Status.BAKING)

    @property
    def rules(self) -> Stage:
        """The stage that the rollout is in; baking is one too."""
        return self.plan.stages[self.stage] if self.stage < len(self.plan.stages) else self.plan.baking

    @property
    def block(self) -> int:
        """The number of the running block of the evidence cap."""
        return self.block_at(self.clock)

    def block_at(self, clock: float) -> int:
        return int((clock - self.started_at) // self.plan.block_s)

    @property
    def is_warm(self) -> bool:
        """Is the last change of the route or a pool long enough ago for comparisons to count?"""
        return self.clock - self.changed_at >= self.plan.warmup_s

    @property
    def silent_s(self) -> float:
        """Seconds since anything was counted, once they are too many; else 0."""
        silent_s = self.clock - self.heard_at
        return silent_s if self.is_routed and silent_s >= SILENCE_S else 0.0

    @property
    def approvals_missing(self) -> int:
        """How many more people must approve before the next step."""
        return max(0, self._approvals - len(self.approved_by))

    @property
    def _approvals(self) -> int:
        stages, wanted = self.plan.stages, self.plan.approvals
        following = self.stage if self.phase is Status.WARMING else self.stage + 1
        if following == len(stages):
            return wanted.promotion
        if following > len(stages):
            return 0
        is_first_live = stages[following].weight > 0 and (following == 0 or stages[following - 1].weight == 0)
        return wanted.canary if is_first_live else 0

    def unheld(self) -> "Rollout":
        """The same rollout as if nobody held it."""
        return replace(self, status=self.phase, hold=None)

    def at(self, now: float) -> "Rollout":
        """The same rollout with its clock at `now`; a clock that jumps back stands still."""
        clock = max(self.clock, now)
        passed_s = clock - self.clock
        waited_s = passed_s if self.waits_for_people or passed_s > SILENCE_S else 0.0
        return replace(self, clock=clock, deadline=self.deadline + waited_s)

    def to_json(self) -> dict[str, Any]:
        return {
            "model": self.model,
            "release": self.release,
            "stable": self.stable,
            "plan": plan_json(self.plan),
            "salt": self.salt,
            "evidence": self.evidence.to_json(),
            "status": self.status.value,
            "stage": self.stage,
            "is_pool_ready": self.is_pool_ready,
            "clock": self.clock,
            "started_at": self.started_at,
            "entered_at": self.entered_at,
            "changed_at": self.changed_at,
            "deadline": self.deadline,
            "routed_at": self.routed_at,
            "heard_at": self.heard_at,
            "requests": self.requests,
            "stage_requests": self.stage_requests,
            "stage_traffic": self.stage_traffic,
            "attempt": self.attempt,
            "direct": self.direct,
            "is_extended": self.is_extended,
            "is_drift_known": self.is_drift_known,
            "approved_by": list(self.approved_by),
            "waits_for_people": self.waits_for_people,
            "trail": [point.to_json() for point in self.trail],
            "hold": None if self.hold is None else {**asdict(self.hold), "origin": self.hold.origin.value},
            "decision": None if self.decision is None else asdict(self.decision),
        }

    @staticmethod
    def from_json(data: Mapping[str, Any]) -> "Rollout":
        """Read what `to_json` wrote; it is trusted."""
        plan, hold, decision = Plan.from_json(data["plan"]), data["hold"], data["decision"]
        return Rollout(
            **{
                **data,
                "plan": plan,
                "evidence": Evidence.from_json(plan, data["evidence"]),
                "status": Status(data["status"]),
                "approved_by": tuple(data["approved_by"]),
                "trail": tuple(Point(**point) for point in data["trail"]),
                "hold": None if hold is None else Hold(**{**hold, "origin": Status(hold["origin"])}),
                "decision": None if decision is None else Decision(**decision),
            }
        )
