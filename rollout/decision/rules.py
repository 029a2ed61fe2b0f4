"""The plan: what the release engineer asked for, as the engine reads it.

Knows stages, guards, margins and budgets. Knows nothing of files or their checks: `rollout/plan.py` reads and refuses
plans; what arrives here is sound. The defaults are the ones of an empty plan.
"""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from enum import StrEnum
from typing import Any

from rollout.decision.guards import DEFAULT_GUARDS, Guard, Guards


class Inconclusive(StrEnum):
    """What happens when the longest duration has passed without a decision.

    `EXTEND` waits as long once more, then holds. `PROMOTE_IF_UNHARMED` gives up the beta guarantee: what was neither
    harmed nor cleared goes live.
    """

    HOLD = "hold"
    EXTEND = "extend"
    ROLL_BACK = "roll_back"
    PROMOTE_IF_UNHARMED = "promote_if_unharmed"


class Drift(StrEnum):
    """What happens when the candidate's answers are distributed unlike stable's. It never takes a candidate back."""

    OFF = "off"
    WARN = "warn"
    HOLD = "hold"


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


@dataclass(frozen=True, slots=True)
class Checks:
    """Is what was counted fit to be compared? A failed check holds a rollout; it neither promotes nor takes back.

    The candidate's share of the requests may be off from its weight by a factor of `1 + share_tolerance`, at an error
    of `share_alpha`. `drift` says what follows when answers are distributed unlike stable's, at an error of
    `drift_alpha`.
    """

    share_tolerance: float = 0.05
    share_alpha: float = 1e-4
    drift: Drift = Drift.OFF
    drift_alpha: float = 1e-3


@dataclass(frozen=True, slots=True)
class Approvals:
    """How many different people must approve, before the first live traffic and before baking (nearly all of it)."""

    canary: int = 0
    promotion: int = 0


@dataclass(frozen=True, slots=True)
class Labels:
    """What is known of labels beforehand: the share of requests that get one, and how late it comes."""

    expected_share: float = 1.0
    delay_s: float = 900.0


DAYS = ("mon", "tue", "wed", "thu", "fri", "sat", "sun")
_DAY_S = 86400
_THURSDAY = 3
"""The day of the week of the clock's second 0."""


@dataclass(frozen=True, slots=True)
class Hours:
    """A time of the week in UTC at which a rollout may go on: these days from `begin` to `end`, as `HH:MM`."""

    days: tuple[str, ...] = DAYS
    begin: str = "00:00"
    end: str = "24:00"

    def hold(self, now: float) -> bool:
        """Is this time of Unix seconds within them?"""
        day, second = divmod(int(now), _DAY_S)
        time = f"{second // 3600:02}:{second % 3600 // 60:02}"
        return DAYS[(day + _THURSDAY) % 7] in self.days and self.begin <= time < self.end


ATTEMPT_SHARE = 0.2
"""What an attempt leaves of alpha and beta for those after it."""

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
    guards, and over all attempts with the same pair of releases; `beta` the chance to promote one outside a clear
    margin. One block of `block_s` may add at most a `cap_blocks`-th of the evidence that is needed, so bursts must be
    shorter than a block. For `warmup_s` after each change of the route or of a pool nothing is compared. After the last
    stage stable keeps `hold_back` of the traffic for `bake_s`; there false alarms come at most once in `alarm_free_s`.

    A stage is entered only when it is shown that it costs at most `extra_bad_requests` (0: no such bound). Stages are
    left only in `hours` (none: always).
    """

    stages: tuple[Stage, ...] = DEFAULT_STAGES
    guards: Guards = DEFAULT_GUARDS
    checks: Checks = Checks()
    approvals: Approvals = Approvals()
    labels: Labels = Labels()
    hours: tuple[Hours, ...] = ()
    alpha: float = 0.05
    beta: float = 0.05
    block_s: float = 60.0
    cap_blocks: int = 3
    warmup_s: float = 10.0
    bake_s: float = 600.0
    hold_back: float = 0.05
    alarm_free_s: float = 30.0 * _DAY_S
    extra_bad_requests: int = 0
    longest_s: float = 14400.0
    inconclusive: Inconclusive = Inconclusive.HOLD

    def attempted(self, attempt: int) -> "Plan":
        """This plan for the n-th attempt (from 1) with the same pair of releases.

        The first spends four fifths of both errors, each later one a fifth of the one before: all together never more
        than the plan says. (Any series that adds up to one would do; most releases are tried once.)
        """
        share = (1 - ATTEMPT_SHARE) * ATTEMPT_SHARE ** (attempt - 1)
        return replace(self, alpha=self.alpha * share, beta=self.beta * share)

    def alpha_of(self, guard: Guard) -> float:
        return self.alpha * self.guards.rules(guard).alpha_share

    @property
    def late_alpha(self) -> float:
        """One over the blocks to a false alarm of one guard while baking, on average. All share `alarm_free_s`."""
        return min(0.5, self.block_s / self.alarm_free_s / max(1, len(self.guards.enabled)))

    def may_go_on(self, now: float) -> bool:
        """Is this time within the plan's hours?"""
        return not self.hours or any(hours.hold(now) for hours in self.hours)

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
        data["checks"]["drift"] = self.checks.drift.value
        data["hours"] = [{**hours, "days": list(hours["days"])} for hours in data["hours"]]
        data["inconclusive"] = self.inconclusive.value
        return data

    @staticmethod
    def from_json(data: Mapping[str, Any]) -> "Plan":
        """Read what `to_json` wrote. It is trusted: engineers' plans go through `rollout.plan`."""
        stages = (Stage(**{**stage, "clear": frozenset(map(Guard, stage["clear"]))}) for stage in data["stages"])
        hours = (Hours(**{**one, "days": tuple(one["days"])}) for one in data["hours"])
        return Plan(
            **{
                **data,
                "stages": tuple(stages),
                "guards": Guards.from_json(data["guards"]),
                "checks": Checks(**{**data["checks"], "drift": Drift(data["checks"]["drift"])}),
                "approvals": Approvals(**data["approvals"]),
                "labels": Labels(**data["labels"]),
                "hours": tuple(hours),
                "inconclusive": Inconclusive(data["inconclusive"]),
            }
        )
