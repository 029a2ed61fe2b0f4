"""Plans as release engineers write them: TOML or JSON in, a checked `Plan` out.

Knows names, ranges and what makes a plan impossible. Knows nothing of how a plan is carried out. The defaults are those
of `rollout.decision.rules`, so an empty plan is a plan.

PlanError is all that is raised for a plan that cannot be used; its text says where and what to do.
"""

import difflib
import json
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from rollout.decision.feasibility import faults_of
from rollout.decision.guards import (
    AgreementRules,
    DifferenceRules,
    ErrorRules,
    Guard,
    LatencyRules,
    MistakeRules,
    QualityRules,
)
from rollout.decision.rules import DAYS, Drift, Inconclusive, Plan

DEFAULT_PLAN = Plan()


class PlanError(ValueError):
    """A plan that cannot be used; says which key is wrong and what it should be."""


def load_plan(path: Path) -> Plan:
    """Read a plan from a `.toml` or `.json` file.

    Raises:
        PlanError: the file cannot be read or parsed, or is not a plan.
    """
    try:
        text = path.read_text(encoding="utf-8")
        data = json.loads(text) if path.suffix == ".json" else tomllib.loads(text)
    except OSError as exc:
        raise PlanError(f"{path}: {exc.strerror}") from exc
    except ValueError as exc:
        kind = "JSON" if path.suffix == ".json" else "TOML"
        raise PlanError(f"{path} is not {kind}: {exc}") from exc
    try:
        return plan_from_json(data)
    except PlanError as exc:
        raise PlanError(f"{path}: {exc}") from exc


def plan_from_json(data: Any) -> Plan:
    """Check a plan and fill in what it does not say.

    Raises:
        PlanError: a key is unknown, a value is of the wrong kind or out of range, or the plan can never promote.
    """
    try:
        checked = _Plan.model_validate(data)
    except ValidationError as exc:
        raise PlanError("; ".join(_complaint(error) for error in exc.errors())) from exc
    plan = Plan.from_json(checked.model_dump(mode="json"))
    faults = list(faults_of(plan))
    if faults:
        raise PlanError("; ".join(faults))
    return plan


def plan_to_json(plan: Plan) -> dict[str, Any]:
    """The plan in full, as `plan_from_json` reads it."""
    return plan.to_json()


Share = Annotated[float, Field(gt=0, lt=1)]
Seconds = Annotated[float, Field(ge=0, le=90 * 86400)]
Buckets = Annotated[int, Field(ge=1, le=320)]


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True, allow_inf_nan=False)


class _Errors(_Strict):
    enabled: bool = ErrorRules().enabled
    required: bool = ErrorRules().required
    alpha_share: float = Field(default=ErrorRules().alpha_share, gt=0, le=1)
    harm_ratio: float = Field(default=ErrorRules().harm_ratio, ge=1, le=100)
    harm_floor: float = Field(default=ErrorRules().harm_floor, gt=0, lt=1)
    clear_ratio: float = Field(default=ErrorRules().clear_ratio, ge=1, le=100)
    clear_floor: float = Field(default=ErrorRules().clear_floor, gt=0, lt=1)


class _Latency(_Strict):
    enabled: bool = LatencyRules().enabled
    required: bool = LatencyRules().required
    alpha_share: float = Field(default=LatencyRules().alpha_share, gt=0, le=1)
    quantiles: list[Share] = Field(default=list(LatencyRules().quantiles), min_length=1, max_length=9)
    whole: bool = LatencyRules().whole
    harm_buckets: Buckets = LatencyRules().harm_buckets
    clear_buckets: Buckets = LatencyRules().clear_buckets


class _Agreement(_Strict):
    enabled: bool = AgreementRules().enabled
    required: bool = AgreementRules().required
    alpha_share: float = Field(default=AgreementRules().alpha_share, gt=0, le=1)
    harm: Share = AgreementRules().harm
    clear: Share = AgreementRules().clear


class _Difference(_Strict):
    enabled: bool = DifferenceRules().enabled
    required: bool = DifferenceRules().required
    alpha_share: float = Field(default=DifferenceRules().alpha_share, gt=0, le=1)
    harm: Share = DifferenceRules().harm
    clear: Share = DifferenceRules().clear


class _Mistakes(_Strict):
    enabled: bool = MistakeRules().enabled
    required: bool = MistakeRules().required
    alpha_share: float = Field(default=MistakeRules().alpha_share, gt=0, le=1)
    harm_ratio: float = Field(default=MistakeRules().harm_ratio, ge=1, le=100)
    harm_floor: float = Field(default=MistakeRules().harm_floor, gt=0, lt=1)
    clear_ratio: float = Field(default=MistakeRules().clear_ratio, ge=1, le=100)
    clear_floor: float = Field(default=MistakeRules().clear_floor, gt=0, lt=1)


class _Quality(_Strict):
    enabled: bool = QualityRules().enabled
    required: bool = QualityRules().required
    alpha_share: float = Field(default=QualityRules().alpha_share, gt=0, le=1)
    harm: Share = QualityRules().harm
    clear: Share = QualityRules().clear


class _Guards(_Strict):
    errors: _Errors = _Errors()
    latency: _Latency = _Latency()
    agreement: _Agreement = _Agreement()
    difference: _Difference = _Difference()
    quality: _Quality = _Quality()
    mistakes: _Mistakes = _Mistakes()


class _Checks(_Strict):
    share_tolerance: float = Field(default=DEFAULT_PLAN.checks.share_tolerance, gt=0, le=10)
    share_alpha: float = Field(default=DEFAULT_PLAN.checks.share_alpha, ge=1e-9, le=0.5)
    drift: Annotated[Drift, Field(strict=False)] = DEFAULT_PLAN.checks.drift
    drift_alpha: float = Field(default=DEFAULT_PLAN.checks.drift_alpha, ge=1e-9, le=0.5)


class _Approvals(_Strict):
    canary: int = Field(default=DEFAULT_PLAN.approvals.canary, ge=0, le=2)
    promotion: int = Field(default=DEFAULT_PLAN.approvals.promotion, ge=0, le=2)


class _Labels(_Strict):
    expected_share: float = Field(default=DEFAULT_PLAN.labels.expected_share, gt=0, le=1)
    delay_s: Seconds = DEFAULT_PLAN.labels.delay_s


Day = Annotated[str, Field(pattern=f"^({'|'.join(DAYS)})$")]
Clock = Annotated[str, Field(pattern=r"^([01][0-9]|2[0-3]):[0-5][0-9]$|^24:00$")]


class _Hours(_Strict):
    """Times of the day in UTC, `HH:MM`."""

    days: list[Day] = Field(default=list(DAYS), min_length=1)
    begin: Clock = "00:00"
    end: Clock = "24:00"

    @model_validator(mode="after")
    def _passes(self) -> Self:
        if self.begin >= self.end:
            raise ValueError("'begin' must be before 'end'; write hours over midnight as two entries")
        return self


class _Stage(_Strict):
    weight: float = Field(default=0.0, ge=0, lt=1)
    shadow_share: float = Field(default=0.0, ge=0, le=1)
    soak_s: Seconds = DEFAULT_PLAN.stages[0].soak_s
    min_requests: int = Field(default=DEFAULT_PLAN.stages[0].min_requests, ge=1)
    clear: list[Annotated[Guard, Field(strict=False)]] = []

    @model_validator(mode="after")
    def _does_something(self) -> Self:
        if self.weight == 0 and self.shadow_share == 0:
            raise ValueError("needs a 'weight' or a 'shadow_share' above 0")
        return self


class _Plan(_Strict):
    stages: list[_Stage] = Field(
        default=[_Stage(weight=stage.weight, shadow_share=stage.shadow_share) for stage in DEFAULT_PLAN.stages],
        min_length=1,
    )
    guards: _Guards = _Guards()
    checks: _Checks = _Checks()
    approvals: _Approvals = _Approvals()
    labels: _Labels = _Labels()
    hours: list[_Hours] = []
    alpha: float = Field(default=DEFAULT_PLAN.alpha, ge=1e-9, le=0.5)
    beta: float = Field(default=DEFAULT_PLAN.beta, ge=1e-9, le=0.5)
    block_s: float = Field(default=DEFAULT_PLAN.block_s, ge=1, le=86400)
    cap_blocks: int = Field(default=DEFAULT_PLAN.cap_blocks, ge=1, le=100)
    warmup_s: Seconds = DEFAULT_PLAN.warmup_s
    bake_s: Seconds = DEFAULT_PLAN.bake_s
    hold_back: float = Field(default=DEFAULT_PLAN.hold_back, ge=0.001, le=0.5)
    alarm_free_s: float = Field(default=DEFAULT_PLAN.alarm_free_s, ge=3600, le=3650 * 86400)
    extra_bad_requests: int = Field(default=DEFAULT_PLAN.extra_bad_requests, ge=0)
    longest_s: Seconds = DEFAULT_PLAN.longest_s
    inconclusive: Annotated[Inconclusive, Field(strict=False)] = DEFAULT_PLAN.inconclusive


def _complaint(error: Mapping[str, Any]) -> str:
    place = tuple(error["loc"])
    where = ".".join(str(part + 1) if isinstance(part, int) else part for part in place) or "the plan"
    if error["type"] != "extra_forbidden":
        return f"{where}: {error['msg'].removeprefix('Value error, ')}"
    known = _known_keys(place[:-1])
    nearest = difflib.get_close_matches(str(place[-1]), known, n=1, cutoff=0.0)
    return f"unknown key '{where}': did you mean '{nearest[0]}'? Known here: {', '.join(known)}"


def _known_keys(place: tuple[str | int, ...]) -> list[str]:
    """The keys of the table at this place of a plan."""
    tables: Mapping[str, type[_Strict]] = {
        "stages": _Stage,
        "guards": _Guards,
        "checks": _Checks,
        "approvals": _Approvals,
        "labels": _Labels,
        "hours": _Hours,
        "errors": _Errors,
        "latency": _Latency,
        "agreement": _Agreement,
        "difference": _Difference,
        "quality": _Quality,
        "mistakes": _Mistakes,
    }
    names = [part for part in place if isinstance(part, str)]
    return list((tables[names[-1]] if names else _Plan).model_fields)
