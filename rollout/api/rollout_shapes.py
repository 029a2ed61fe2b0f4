"""How rollouts look to clients, and what they send to change them."""

from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field

from rollout.decision.guards import Guard
from rollout.decision.state import Status
from rollout.decision.verdict import Finding

MODEL_NAME = r"^[A-Za-z0-9_-][A-Za-z0-9_.-]{0,127}$"
WORDS = r"^[^\x00]*$"
"""No store keeps a NUL in a text."""
LARGEST = 2**31 - 1

ModelName = Annotated[str, Field(pattern=MODEL_NAME, examples=["digits"])]
By = Annotated[
    str,
    Field(min_length=1, max_length=128, pattern=WORDS, examples=["ada"], description="Who wants it, for the history."),
]
Reason = Annotated[
    str, Field(max_length=4000, pattern=WORDS, examples=["labels look good"], description="Why, for the history.")
]


class Shape(BaseModel):
    """Base of what is answered. Clients must pass over fields that they do not know."""

    model_config = ConfigDict(extra="allow")


class Begin(BaseModel):
    """Who rolls out what by which plan; an empty plan means the defaults."""

    model_config = ConfigDict(
        extra="forbid",
        strict=True,
        json_schema_extra={
            "examples": [
                {
                    "model": "digits",
                    "release": 2,
                    "plan": {"stages": [{"shadow_share": 1.0}, {"weight": 0.1}], "approvals": {"canary": 1}},
                    "by": "ada",
                    "reason": "trained on this week's data",
                }
            ]
        },
    )

    model: ModelName
    release: int = Field(ge=1, le=LARGEST, examples=[2])
    plan: dict[str, Any] = Field({}, description="As a plan file holds it; what it leaves out has its default.")
    by: By
    reason: Reason = ""


class Order(BaseModel):
    """Who orders it, why, and what they were looking at: if the rollout has gone on since, nothing is changed."""

    model_config = ConfigDict(
        extra="forbid",
        strict=True,
        json_schema_extra={"examples": [{"by": "ada", "reason": "labels look good", "expect_stage": 2}]},
    )

    by: By
    reason: Reason = ""
    expect_stage: int | None = Field(None, ge=1, le=LARGEST, description="The rollout's `stage`, as it was seen.")
    expect_phase: Status | None = Field(
        None,
        strict=False,
        description="The rollout's `phase`, as it was seen. Tells `warming` from the first stage, both `stage` 1.",
    )


class Interval(Shape):
    """An estimate between its bounds; `high` is null where nothing bounds it yet."""

    value: float
    low: float
    high: float | None


class Verdict(Shape):
    """What is known about a guard. `harm` and `clear` are shares of the evidence that is needed."""

    guard: Guard
    finding: Finding
    is_required: bool
    harm: float = Field(ge=0, le=1)
    clear: float = Field(ge=0, le=1)
    intervals: dict[str, Interval]
    reason: str
    needs: str = Field(description="What it would take to decide.")


class Check(Shape):
    name: str
    is_failed: bool
    reason: str


class Point(Shape):
    """The evidence of every guard at one time, as shares of what is needed. `stage` counts from 0."""

    clock: float
    stage: int
    harm: dict[str, float]
    clear: dict[str, float]


class Decision(Shape):
    """How it ended, and what decided: a guard, `cleared`, `server`, `engineer` and so on."""

    by: str
    reason: str
    requests: int
    seconds: float


class RolloutRow(Shape):
    """A rollout in a list. `is_settled`: it has ended, and its routes and pools are as they should be."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {
                    "id": 4, "model": "digits", "release": 2, "stable": 1, "status": "canary", "phase": "canary",
                    "stage": 2, "stages": 3, "requests": 18230, "attempt": 1, "decision": None, "revision": 5,
                    "created_at": 1796000000.0, "updated_at": 1796000361.5, "is_settled": False,
                    "summary": "digits/2 is canary at 10 %, waiting for 240 s more of this stage",
                }
            ]
        }
    )  # fmt: skip

    id: int
    model: str
    release: int
    stable: int | None
    status: Status
    phase: Status = Field(description="Where it stands, or stood when it was held.")
    stage: int = Field(description="From 1; one more than `stages` while it bakes.")
    stages: int
    requests: int
    attempt: int
    decision: Decision | None
    summary: str
    revision: int = Field(description="Another one after each change of status, stage, attempt or approvals.")
    created_at: float
    updated_at: float
    is_settled: bool


class RolloutShown(RolloutRow):
    """A rollout: where it stands, why, and what it waits for."""

    model_config = ConfigDict(json_schema_extra={"examples": []})

    weight: float
    shadow_share: float
    seconds_in_stage: float
    approved_by: list[str]
    verdicts: list[Verdict]
    checks: list[Check]
    trail: list[Point]
    waiting_for: list[str]


class EvidencePoint(Shape):
    """The evidence at one time, by guard, as shares of what is needed. `stage` counts from 1."""

    at: float = Field(description="Seconds since the epoch.")
    stage: int
    harm: dict[str, float]
    clear: dict[str, float]


class Evidence(Shape):
    """The evidence over time, the oldest first, and what it says now. Old points are thinned out."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {
                    "id": 4, "model": "digits", "release": 2, "stable": 1, "status": "canary",
                    "updated_at": 1796000361.5,
                    "points": [{"at": 1796000120.0, "stage": 1, "harm": {"errors": 0.0}, "clear": {"errors": 0.35}}],
                    "guards": [
                        {
                            "guard": "errors", "finding": "undecided", "is_required": True, "harm": 0.0, "clear": 0.62,
                            "intervals": {"ratio": {"value": 0.98, "low": 0.71, "high": 1.34}},
                            "reason": "errors 0.51 % against stable's 0.52 % over 18,230 requests",
                            "needs": "about 80 s more at this pace to be cleared",
                        }
                    ],
                }
            ]
        }
    )  # fmt: skip

    id: int
    model: str
    release: int
    stable: int | None
    status: Status
    updated_at: float
    guards: list[Verdict]
    points: list[EvidencePoint]
