"""The plan: what the release engineer asked for, as the engine reads it.

Knows stages, guards, margins and budgets. Knows nothing of files or their checks: `rollout/plan.py` reads and refuses
plans; what arrives here is sound. The defaults are the ones of an empty plan.
"""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from enum import StrEnum
from typing import Any


class Guard(StrEnum):
    """What is watched, in the order in which guards are asked."""

    ERRORS = "errors"
    LATENCY = "latency"
    AGREEMENT = "agreement"
    QUALITY = "quality"


class Inconclusive(StrEnum):
    """What happens when the longest duration has passed without a decision."""

    HOLD = "hold"
    ROLL_BACK = "roll_back"


@dataclass(frozen=True, slots=True)
class GuardRules:
    """What all guards have.

    An enabled guard takes the candidate back when harm is shown, at an error of `alpha_share` of the plan's alpha.
    A required one must also be cleared before promotion.
    """

    enabled: bool = True
    required: bool = True
    alpha_share: float = 0.0


@dataclass(frozen=True, slots=True)
class ErrorRules(GuardRules):
    """Charged failures. Boundaries: candidate's rate = ratio * (stable's rate + floor), rates and floors as shares."""

    alpha_share: float = 0.4
    harm_ratio: float = 1.0
    harm_floor: float = 0.001
    clear_ratio: float = 1.25
    clear_floor: float = 0.002


@dataclass(frozen=True, slots=True)
class LatencyRules(GuardRules):
    """Latency at these quantiles. Margins in buckets of ratio 2^(1/32): 2 is a factor 1.044, 8 is 1.189, 32 is 2."""

    alpha_share: float = 0.3
    quantiles: tuple[float, ...] = (0.5, 0.95, 0.99)
    harm_buckets: int = 2
    clear_buckets: int = 8


@dataclass(frozen=True, slots=True)
class AgreementRules(GuardRules):
    """Mirrored answers that differ, as shares. Off unless asked for: a better model disagrees too."""

    enabled: bool = False
    alpha_share: float = 0.1
    harm: float = 0.02
    clear: float = 0.05


@dataclass(frozen=True, slots=True)
class QualityRules(GuardRules):
    """Accuracy lost against stable on the same labelled requests, as shares: 0.02 is two points."""

    alpha_share: float = 0.2
    harm: float = 0.005
    clear: float = 0.02


@dataclass(frozen=True, slots=True)
class Guards:
    """The rules of every guard; the fields are named as `Guard` names them."""

    errors: ErrorRules = ErrorRules()
    latency: LatencyRules = LatencyRules()
    agreement: AgreementRules = AgreementRules()
    quality: QualityRules = QualityRules()

    def rules(self, guard: Guard) -> GuardRules:
        match guard:
            case Guard.ERRORS:
                return self.errors
            case Guard.LATENCY:
                return self.latency
            case Guard.AGREEMENT:
                return self.agreement
            case Guard.QUALITY:
                return self.quality

    @property
    def enabled(self) -> tuple[Guard, ...]:
        return tuple(guard for guard in Guard if self.rules(guard).enabled)

    @property
    def required(self) -> frozenset[Guard]:
        return frozenset(guard for guard in self.enabled if self.rules(guard).required)


@dataclass(frozen=True, slots=True)
class Stage:
    """One step: the candidate answers `weight` of the traffic (0: none yet) and gets copies of a share of the rest.

    It is left when it has soaked, the candidate had `min_requests` in it (copies count where the weight is 0), and the
    guards in `clear` are cleared. The last stage needs every required guard cleared.
    """

    weight: float = 0.0
    shadow_share: float = 0.0
    soak_s: float = 120.0
    min_requests: int = 100
    clear: frozenset[Guard] = frozenset()


DEFAULT_STAGES = (
    Stage(weight=0.0, shadow_share=1.0),
    Stage(weight=0.05, shadow_share=1.0),
    Stage(weight=0.25, shadow_share=1.0),
    Stage(weight=0.5, shadow_share=1.0),
)


@dataclass(frozen=True, slots=True)
class Plan:
    """Times in seconds, errors and shares in (0, 1).

    `alpha` bounds the chance to take back a candidate that is within the harm margins, over the whole rollout and all
    guards; `beta` the chance to promote one outside a clear margin. One block of `block_s` may add at most a
    `cap_blocks`-th of the evidence that is needed, so bursts must be shorter than a block. For `warmup_s` after each
    change of the route nothing is compared. After the last stage stable keeps `hold_back` of the traffic for `bake_s`.
    """

    stages: tuple[Stage, ...] = DEFAULT_STAGES
    guards: Guards = Guards()
    alpha: float = 0.05
    beta: float = 0.05
    block_s: float = 60.0
    cap_blocks: int = 3
    warmup_s: float = 10.0
    bake_s: float = 600.0
    hold_back: float = 0.05
    longest_s: float = 14400.0
    inconclusive: Inconclusive = Inconclusive.HOLD

    def alpha_of(self, guard: Guard) -> float:
        return self.alpha * self.guards.rules(guard).alpha_share

    def must_clear(self, stage: int) -> frozenset[Guard]:
        """The guards that must be cleared before this stage is left; baking counts as the stage after the last."""
        if stage >= len(self.stages) - 1:
            return self.guards.required
        return self.stages[stage].clear

    @property
    def baking(self) -> Stage:
        """The stage after the last: all traffic but the hold-back, with as many requests as the last stage needed."""
        return Stage(weight=1.0 - self.hold_back, soak_s=self.bake_s, min_requests=self.stages[-1].min_requests)

    @property
    def least_latency_weight(self) -> float:
        """Latency at a small weight says little about a large one (batches, queues): below this it clears nothing."""
        return self.stages[-1].weight / 2

    def to_json(self) -> dict[str, Any]:
        """The shape that plans are written in, complete."""
        data = asdict(self)
        for stage in data["stages"]:
            stage["clear"] = [guard.value for guard in Guard if guard in stage["clear"]]
        data["stages"] = list(data["stages"])
        data["guards"]["latency"]["quantiles"] = list(self.guards.latency.quantiles)
        data["inconclusive"] = self.inconclusive.value
        return data

    @staticmethod
    def from_json(data: Mapping[str, Any]) -> "Plan":
        """Read what `to_json` wrote. It is trusted: engineers' plans go through `rollout.plan`."""
        guards = data["guards"]
        latency = {**guards["latency"], "quantiles": tuple(guards["latency"]["quantiles"])}
        return Plan(
            **{
                **data,
                "stages": tuple(
                    Stage(**{**stage, "clear": frozenset(map(Guard, stage["clear"]))}) for stage in data["stages"]
                ),
                "guards": Guards(
                    ErrorRules(**guards["errors"]),
                    LatencyRules(**latency),
                    AgreementRules(**guards["agreement"]),
                    QualityRules(**guards["quality"]),
                ),
                "inconclusive": Inconclusive(data["inconclusive"]),
            }
        )
