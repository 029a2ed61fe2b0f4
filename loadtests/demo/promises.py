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
    """The control plane's restart in the middle of a rollout: the requests that its evidence held before and after."""

    requests_before: int
    requests_after: int
    status_before: str
    status_after: str


@dataclass(frozen=True, slots=True)
class Wanted:
    """How a rollout must end, and by which deciders."""

    status: str
    deciders: frozenset[str]
    weight_most: float = 1.0
    """The largest canary weight that it may have reached."""


WANTED = {
    1: Wanted("promoted", frozenset({"first release"})),
    2: Wanted("promoted", frozenset({"cleared"})),
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
    is_kept = restart.requests_after >= restart.requests_before > 0
    seen = f"{restart.requests_before:,} requests, then {restart.requests_after:,}"
    if restart.status_after != restart.status_before:
        seen += f"; {restart.status_before}, then {restart.status_after}"
    return Promise(text, is_kept, seen)


def _ending(number: int, wanted: Wanted, rollouts: Sequence[Mapping[str, Any]]) -> Promise:
    text = f"digits/{number} is {wanted.status.replace('_', ' ')}"
    found = next((one for one in rollouts if one["release"] == number), None)
    if found is None or found["decision"] is None:
        return Promise(text, False, "not decided")
    by = found["decision"]["by"]
    is_kept = (
        found["status"] == wanted.status and by in wanted.deciders and found["weight_reached"] <= wanted.weight_most
    )
    return Promise(text, is_kept, f"{found['status'].replace('_', ' ')} by {by}, at {found['weight_reached']:.0%}")
