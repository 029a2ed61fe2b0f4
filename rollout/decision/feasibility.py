"""What makes a plan impossible: stages that do not grow, guards that never clear, margins the wrong way round.

Knows which evidence a stage can give. Knows nothing of files, nor of single values' ranges: `rollout/plan.py` does.
"""

from collections.abc import Iterator

from rollout.decision.guards import Guard
from rollout.decision.rules import Plan

MIRRORED = frozenset({Guard.AGREEMENT, Guard.DIFFERENCE, Guard.QUALITY})
"""The guards that read copies."""


def faults_of(plan: Plan) -> Iterator[str]:
    """Every reason why the plan cannot be carried out, each with its key; none for a sound plan."""
    yield from _stage_faults(plan)
    yield from _guard_faults(plan)
    if plan.longest_s < sum(stage.soak_s for stage in plan.stages) + plan.bake_s:
        yield "longest_s: it must not be shorter than all stages' soak_s and bake_s together"


def _stage_faults(plan: Plan) -> Iterator[str]:
    weights = [stage.weight for stage in plan.stages]
    live = [weight for weight in weights if weight > 0]
    if not live:
        yield "stages: at least one needs a weight above 0, since nothing is promoted unseen"
        return
    if weights != sorted(weights) or len(set(live)) != len(live):
        yield f"stages: weights must grow from stage to stage, not {weights}"
    if plan.baking.weight <= live[-1]:
        yield f"hold_back: {plan.hold_back} leaves baking no more traffic than the last stage's weight {live[-1]}"
    for number, stage in enumerate(plan.stages, 1):
        if not stage.clear <= set(plan.guards.enabled):
            yield f"stages.{number}.clear: only enabled guards can be cleared"
        yield from (f"stages.{number}.clear: {text}" for text in _unclearable(plan, number, stage.clear))
    yield from (f"stages: {text}" for text in _unclearable(plan, len(plan.stages), plan.guards.required))


def _unclearable(plan: Plan, number: int, guards: frozenset[Guard]) -> Iterator[str]:
    """Why these guards can gather no evidence up to and in stage `number`."""
    reached = plan.stages[:number]
    if guards & MIRRORED and not any(stage.shadow_share > 0 for stage in reached):
        yield "agreement, difference and quality are read from copies: give a stage up to here a shadow_share"
    if guards & {Guard.ERRORS, Guard.MISTAKES} and reached[-1].weight == 0:
        yield "errors and mistakes are read from live traffic: the stage needs a weight"
    if Guard.LATENCY in guards and reached[-1].weight < plan.least_latency_weight:
        yield f"latency clears only from half the last weight on ({plan.least_latency_weight:g})"


def _guard_faults(plan: Plan) -> Iterator[str]:
    guards = plan.guards
    if not guards.required:
        yield "guards: at least one must be enabled and required, or nothing is ever cleared"
    total = sum(guards.rules(guard).alpha_share for guard in guards.enabled)
    if total > 1 + 1e-9:
        yield f"guards: the alpha_share of all enabled guards together must be at most 1, not {total:g}"
    margins = (
        ("errors", "_ratio and _floor", guards.errors.harm_floor, guards.errors.clear_floor),
        ("latency", "_buckets", guards.latency.harm_buckets, guards.latency.clear_buckets),
        ("agreement", "", guards.agreement.harm, guards.agreement.clear),
        ("difference", "", guards.difference.harm, guards.difference.clear),
        ("quality", "", guards.quality.harm, guards.quality.clear),
        ("mistakes", "_ratio and _floor", guards.mistakes.harm_floor, guards.mistakes.clear_floor),
    )
    for name, suffix, harm, clear in margins:
        if harm >= clear:
            yield f"guards.{name}: harm{suffix} must be below clear{suffix}"
    for name, rules in (("errors", guards.errors), ("mistakes", guards.mistakes)):
        if rules.harm_ratio > rules.clear_ratio:
            yield f"guards.{name}: harm_ratio must not be above clear_ratio"
