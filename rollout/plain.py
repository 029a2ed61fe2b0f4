"""A plan in plain words. Pure."""

from collections.abc import Iterator

from gateway.windows import BUCKETS_PER_OCTAVE
from rollout.decision.guards import ErrorRules, Guard, MistakeRules
from rollout.decision.rules import Drift, Inconclusive, Plan, Stage
from rollout.decision.words import percent

_INCONCLUSIVE = {
    Inconclusive.HOLD: "it is held for someone to look at",
    Inconclusive.EXTEND: "it gets as long once more, then it is held",
    Inconclusive.ROLL_BACK: "it is rolled back",
    Inconclusive.PROMOTE_IF_UNHARMED: (
        "it is promoted if everything was measured and no harm was shown; this gives up the beta guarantee: a release"
        " that is worse than allowed may go live"
    ),
}


def told(plan: Plan) -> Iterator[str]:
    """The plan as sentences, one a line."""
    for number, stage in enumerate(plan.stages, 1):
        yield f"Stage {number}: {_stage(plan, number - 1, stage)}."
    yield (
        f"Baking: {percent(plan.baking.weight)} of the traffic for {length(plan.bake_s)}, the old release still warm;"
        f" a false alarm comes at most once in {length(plan.alarm_free_s)}. Then it is promoted."
    )
    for guard in plan.guards.enabled:
        yield f"{guard.value.capitalize()}: {_guard(plan, guard)}."
    yield (
        f"A release within all harm margins is taken back with a chance of at most {percent(plan.alpha)}, one beyond a"
        f" clear margin is promoted with at most {percent(plan.beta)}, however often it is tried."
    )
    block = length(plan.block_s)
    yield f"Bursts shorter than {block} decide nothing: {plan.cap_blocks} blocks of that length must agree."
    yield from _people(plan)
    yield f"Without a decision after {length(plan.longest_s)}, {_INCONCLUSIVE[plan.inconclusive]}."


def length(seconds: float) -> str:
    """A time for people: `90 s`, `12 min`, `4.5 h`, `30 days`."""
    for unit, size in (("days", 86400.0), ("h", 3600.0), ("min", 60.0)):
        if seconds >= 2 * size:
            return f"{seconds / size:.3g} {unit}"
    return f"{seconds:.3g} s"


def _stage(plan: Plan, index: int, stage: Stage) -> str:
    shares = []
    if stage.weight:
        shares.append(f"answers {percent(stage.weight)} of the traffic")
    if stage.shadow_share:
        shares.append(f"gets copies of {percent(stage.shadow_share)} of the {'rest' if stage.weight else 'traffic'}")
    needed = [guard.value for guard in Guard if guard in plan.must_clear(index)]
    cleared = f" and {', '.join(needed)} {'is' if len(needed) == 1 else 'are'} cleared" if needed else ""
    waits = f"until {length(stage.soak_s)} and {stage.min_requests:,} requests have passed{cleared}"
    return f"the candidate {' and '.join(shares)}, {waits}"


def _guard(plan: Plan, guard: Guard) -> str:
    rules = plan.guards.rules(guard)
    use = "must be cleared" if rules.required else "can only take it back"
    return f"{_margins(plan, guard)}; {use}"


def _margins(plan: Plan, guard: Guard) -> str:
    guards = plan.guards
    match guard:
        case Guard.ERRORS:
            return f"failures of the candidate beside stable's; {_rates(guards.errors)}"
        case Guard.MISTAKES:
            return f"wrong answers where a label told, each release's own; {_rates(guards.mistakes)}"
        case Guard.LATENCY:
            rules = guards.latency
            levels = ", ".join(f"p{100 * p:g}" for p in rules.quantiles)
            harm, clear = (2 ** (b / BUCKETS_PER_OCTAVE) for b in (rules.harm_buckets, rules.clear_buckets))
            return f"{levels}; up to {harm:.3g}x stable's is no harm, {clear:.3g}x or more is never promoted"
        case Guard.QUALITY:
            harm, clear = 100 * guards.quality.harm, 100 * guards.quality.clear
            return (
                "accuracy on the same labelled requests as stable;"
                f" {harm:g} points lower is no harm, {clear:g} points lower or more is never promoted"
            )
        case Guard.AGREEMENT:
            return f"answers that differ from stable's; {_shares(guards.agreement.harm, guards.agreement.clear)}"
        case Guard.DIFFERENCE:
            return f"how far answers lie apart; {_shares(guards.difference.harm, guards.difference.clear)}"


def _shares(harm: float, clear: float) -> str:
    return f"up to {percent(harm)} is no harm, {percent(clear)} or more is never promoted"


def _rates(rules: ErrorRules | MistakeRules) -> str:
    def bound(ratio: float, floor: float) -> str:
        times = f"{ratio:g} times " if ratio != 1 else ""
        return f"{times}stable's rate and {100 * floor:g} points"

    harm, clear = bound(rules.harm_ratio, rules.harm_floor), bound(rules.clear_ratio, rules.clear_floor)
    return f"up to {harm} is no harm, {clear} or more is never promoted"


def _people(plan: Plan) -> Iterator[str]:
    if plan.extra_bad_requests:
        yield f"A stage is entered when it is shown to cost at most {plan.extra_bad_requests:,} extra bad requests."
    for count, what in ((plan.approvals.canary, "the first live traffic"), (plan.approvals.promotion, "baking")):
        if count:
            yield f"{'One person' if count == 1 else f'{count} different people'} must approve before {what}."
    if plan.hours:
        times = "; ".join(f"{', '.join(one.days)} from {one.begin} to {one.end}" for one in plan.hours)
        yield f"Stages are left only {times} (UTC)."
    if plan.checks.drift is not Drift.OFF:
        what = "held" if plan.checks.drift is Drift.HOLD else "marked"
        yield f"When its answers are distributed unlike stable's, it is {what}; that never takes it back."
