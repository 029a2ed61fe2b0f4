"""What the demo promises, judged on what happened. Pure."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from loadtests.account import Account


@dataclass(frozen=True, slots=True)
class Promise:
    """One promise, whether it was kept, and what was seen."""

    text: str
    is_kept: bool
    seen: str


@dataclass(frozen=True, slots=True)
class Restart:
    """The control plane's restart in the middle of a rollout: how much each guard had counted before and after it."""

    counted_before: Mapping[str, int]
    counted_after: Mapping[str, int]
    status_before: str
    status_after: str


@dataclass(frozen=True, slots=True)
class Wanted:
    """How a rollout must end, and by which deciders."""

    status: str
    deciders: frozenset[str]
    weight_most: float = 1.0
    """The largest canary weight that it may have reached."""
    weights: frozenset[float] = frozenset()
    """The canary weights that it must have gone through."""


WANTED = {
    1: Wanted("promoted", frozenset({"first release"})),
    2: Wanted("promoted", frozenset({"cleared"}), weights=frozenset({0.05, 0.25, 0.5})),
    3: Wanted("rolled_back", frozenset({"quality"}), weight_most=0.05),
    4: Wanted("rolled_back", frozenset({"server", "breaker", "errors"})),
}


def judge(
    account: Account, rollouts: Sequence[Mapping[str, Any]], restart: Restart | None, left_behind: Sequence[str]
) -> list[Promise]:
    """Every promise of the demo."""
    return [
        Promise("no request failed", account.failed == 0, f"{account.failed:,} of {account.sent:,}"),
        Promise(
            "every request is accounted for",
            account.is_balanced and account.sent > 0,
            f"{account.answered:,} answered + {account.failed:,} failed",
        ),
        Promise("every label was taken", account.labels_failed == 0, f"{account.labels_sent:,} sent"),
        *(_ending(number, wanted, rollouts) for number, wanted in WANTED.items()),
        _survival(restart),
        Promise("nothing is left behind", not left_behind, ", ".join(left_behind) or "no process, no shared memory"),
    ]


def _survival(restart: Restart | None) -> Promise:
    """The control plane was killed in the middle of a rollout, which went on with all of its evidence."""
    text = "no evidence lost by the restart"
    if restart is None:
        return Promise(text, False, "the control plane was not killed")
    before, after = restart.counted_before, restart.counted_after
    is_kept = any(before.values()) and all(after.get(guard, 0) >= count for guard, count in before.items())
    seen = f"{sum(before.values()):,} counts, then {sum(after.values()):,}"
    if restart.status_after != restart.status_before:
        seen += f"; {restart.status_before}, then {restart.status_after}"
    return Promise(text, is_kept, seen)


def _ending(number: int, wanted: Wanted, rollouts: Sequence[Mapping[str, Any]]) -> Promise:
    text = f"digits/{number} is {wanted.status.replace('_', ' ')}"
    found = next((one for one in rollouts if one["release"] == number), None)
    if found is None or found["decision"] is None:
        return Promise(text, False, "not decided")
    by = found["decision"]["by"]
    weights = found["weights"]
    is_kept = found["status"] == wanted.status and by in wanted.deciders
    is_kept = is_kept and max(weights, default=0.0) <= wanted.weight_most and wanted.weights <= set(weights)
    way = ", ".join(f"{weight:.0%}" for weight in weights) or "no traffic"
    return Promise(text, is_kept, f"{found['status'].replace('_', ' ')} by {by}; {way}")
