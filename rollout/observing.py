"""From what gateways reported to what the engine is told: windows and predictions in, one Observed fact out. Pure.

Only requests that chance assigned are compared, only under one weight at a time, and only those of this rollout's two
releases. A window whose counts cannot be true is left out, so a gateway that lies can hold a rollout but never pass it.
"""

from collections import defaultdict
from collections.abc import Iterable, Sequence

from gateway.windows import Role, Window
from rollout.decision.counts import Agreement, ArmCounts, Comparison, PairedLabels
from rollout.decision.events import Observed
from rollout.decision.guards import Guard
from rollout.decision.rules import Drift, Plan
from rollout.decision.state import Rollout
from rollout.store.observations import Judged, Prediction

NOT_COUNTED = frozenset({Guard.DIFFERENCE, Guard.MISTAKES})
"""Guards that the engine knows, and whose counts gateways do not report yet."""


def not_counted(plan: Plan) -> list[str]:
    """The keys of a plan that ask for what nobody counts yet."""
    guards = [f"guards.{guard.value}" for guard in plan.guards.enabled if guard in NOT_COUNTED]
    return [*guards, *(["checks.drift"] if plan.checks.drift is not Drift.OFF else [])]


def observed(
    state: Rollout, windows: Iterable[Window], predictions: Iterable[Prediction], judged: Iterable[Judged]
) -> Observed:
    """The fact for one rollout, from everything that came since the last one."""
    sound = [window for window in windows if is_sound(window)]
    warm: list[Window] = []
    cold: list[Window] = []
    for window in sound:
        (cold if _is_cold(state, window) else warm).append(window)
    return Observed(
        comparisons=_comparisons(state, warm),
        cold=_arm([one for one in cold if one.role is Role.ANSWERED and one.release == state.release]),
        mirrored=_arm([one for one in sound if one.role is Role.MIRRORED and one.release == state.release]),
        agreement=_agreement(state, predictions),
        quality=_quality(state, judged),
    )


def is_sound(window: Window) -> bool:
    """Does every good answer have exactly one latency?"""
    return window.ok == sum(window.histogram.values())


def _is_cold(state: Rollout, window: Window) -> bool:
    """Did it begin while the route or a pool was still cold, by the gateway's clock? It may arrive later.

    A clock that is behind shows a window under a route before that route was there; then only the arrival counts.
    """
    return 0 <= window.started_at - state.changed_at < state.plan.warmup_s


def _comparisons(state: Rollout, windows: Sequence[Window]) -> tuple[Comparison, ...]:
    by_weight: dict[tuple[int, float], list[Window]] = defaultdict(list)
    for window in windows:
        if window.role is Role.ANSWERED and window.weight > 0:
            by_weight[(window.revision, window.weight)].append(window)
    return tuple(
        Comparison(
            weight,
            _arm([one for one in group if one.release == state.stable]),
            _arm([one for one in group if one.release == state.release]),
        )
        for (_, weight), group in sorted(by_weight.items())
    )


def _arm(windows: Sequence[Window]) -> ArmCounts:
    histogram: dict[int, int] = defaultdict(int)
    for window in windows:
        for bucket, count in window.histogram.items():
            histogram[bucket] += count
    failures = sum(window.charged for window in windows)
    requests = sum(window.ok for window in windows) + failures
    assigned = sum(sum(window.outcomes.values()) for window in windows)
    return ArmCounts(requests, failures, dict(histogram), assigned - requests)


def _is_pair(state: Rollout, prediction: Prediction) -> bool:
    return (
        prediction.release == state.stable
        and prediction.mirrored_release == state.release
        and len(prediction.predicted) == len(prediction.mirrored_predicted or ())
    )


def _agreement(state: Rollout, predictions: Iterable[Prediction]) -> Agreement:
    agreed = disagreed = 0
    for one in predictions:
        if _is_pair(state, one):
            same = sum(a == b for a, b in zip(one.predicted, one.mirrored_predicted or (), strict=True))
            agreed += same
            disagreed += len(one.predicted) - same
    return Agreement(agreed, disagreed)


def _quality(state: Rollout, judged: Iterable[Judged]) -> PairedLabels:
    """Each row of a labelled, mirrored request: whose class was the true one?"""
    better = equal = worse = 0
    for one in judged:
        prediction = one.prediction
        if not _is_pair(state, prediction) or len(one.truth) != len(prediction.predicted):
            continue
        rows = zip(one.truth, prediction.predicted, prediction.mirrored_predicted or (), strict=True)
        for truth, stables, candidates in rows:
            better += candidates == truth != stables
            worse += stables == truth != candidates
            equal += (stables == truth) == (candidates == truth)
    return PairedLabels(better, equal, worse)
