"""Guards: what is watched of a candidate, and where its margins lie.

Knows margins and shares of alpha. Knows nothing of stages, or of how evidence is gathered. The defaults are those of an
empty plan.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Any


class Guard(StrEnum):
    """What is watched, in the order in which guards are asked."""

    ERRORS = "errors"
    LATENCY = "latency"
    AGREEMENT = "agreement"
    DIFFERENCE = "difference"
    QUALITY = "quality"
    MISTAKES = "mistakes"


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
    """Latency at these quantiles, and for harm, with `whole`, everywhere between them too.

    Margins in buckets of ratio 2^(1/32): 2 is a factor 1.044, 8 is 1.189, 32 is 2.
    """

    alpha_share: float = 0.3
    quantiles: tuple[float, ...] = (0.5, 0.95, 0.99)
    whole: bool = True
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
class DifferenceRules(GuardRules):
    """How far mirrored answers lie apart on average, each difference a share of the largest that counts (0 to 1).

    Off unless asked for: a better model differs too.
    """

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
class MistakeRules(GuardRules):
    """Wrong answers where a label told, each release's own: for models whose requests cannot be mirrored.

    Boundaries as those of errors. Takes four to five times the labels that `quality` takes, so it is off.
    """

    enabled: bool = False
    alpha_share: float = 0.2
    harm_ratio: float = 1.0
    harm_floor: float = 0.005
    clear_ratio: float = 1.0
    clear_floor: float = 0.02


@dataclass(frozen=True, slots=True)
class Guards:
    """The rules of every guard; the fields are named as `Guard` names them."""

    errors: ErrorRules = ErrorRules()
    latency: LatencyRules = LatencyRules()
    agreement: AgreementRules = AgreementRules()
    difference: DifferenceRules = DifferenceRules()
    quality: QualityRules = QualityRules()
    mistakes: MistakeRules = MistakeRules()

    def rules(self, guard: Guard) -> GuardRules:
        found: GuardRules = getattr(self, guard)
        return found

    @property
    def enabled(self) -> tuple[Guard, ...]:
        return tuple(guard for guard in Guard if self.rules(guard).enabled)

    @property
    def required(self) -> frozenset[Guard]:
        return frozenset(guard for guard in self.enabled if self.rules(guard).required)

    @staticmethod
    def from_json(data: Mapping[str, Any]) -> "Guards":
        """Read what `asdict` wrote. It is trusted."""
        latency = data["latency"]
        return Guards(
            ErrorRules(**data["errors"]),
            LatencyRules(**{**latency, "quantiles": tuple(latency["quantiles"])}),
            AgreementRules(**data["agreement"]),
            DifferenceRules(**data["difference"]),
            QualityRules(**data["quality"]),
            MistakeRules(**data["mistakes"]),
        )


DEFAULT_GUARDS = Guards()
