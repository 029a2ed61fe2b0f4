"""Each promise of the demo is broken by the fact that breaks it, and by that alone."""

from dataclasses import replace
from typing import Any

import pytest

from loadtests.account import Account
from loadtests.demo.promises import Promise, Restart, judge

BEFORE = {"errors": 1000, "quality": 900}
NOTHING = {"errors": 0}
RESTART = Restart(BEFORE, {"errors": 1010, "quality": 900}, "canary", "canary")


def _account() -> Account:
    account = Account()
    for _ in range(10):
        account.note_sent()
        account.note_answered("digits/1", 1.0, fallback=False, is_right=True)
    account.labels_sent = 10
    return account


def _rollout(release: int, status: str, by: str, weight: float = 0.0) -> dict[str, Any]:
    return {
        "release": release,
        "status": status,
        "decision": {"by": by},
        "weights": [w for w in (0.05, 0.25, 0.5) if w <= weight],
    }


def _rollouts() -> list[dict[str, Any]]:
    return [
        _rollout(1, "promoted", "first release"),
        _rollout(2, "promoted", "cleared", 0.5),
        _rollout(3, "rolled_back", "quality", 0.05),
        _rollout(4, "rolled_back", "server", 0.05),
    ]


def _broken(promises: list[Promise]) -> list[str]:
    return [promise.text for promise in promises if not promise.is_kept]


def test_all_is_kept_when_all_went_as_promised() -> None:
    promises = judge(_account(), _rollouts(), RESTART, [])
    assert _broken(promises) == []
    assert len(promises) == 9


def test_a_failed_request_breaks_its_promise() -> None:
    account = _account()
    account.note_sent()
    account.note_failed("503")
    assert _broken(judge(account, _rollouts(), RESTART, [])) == ["no request failed"]


def test_a_request_without_a_fate_breaks_its_promise() -> None:
    account = _account()
    account.note_sent()
    assert _broken(judge(account, _rollouts(), RESTART, [])) == ["every request is accounted for"]


def test_no_traffic_at_all_is_no_success() -> None:
    assert _broken(judge(Account(), _rollouts(), RESTART, [])) == ["every request is accounted for"]


def test_a_lost_label_breaks_its_promise() -> None:
    account = _account()
    account.labels_failed = 1
    assert _broken(judge(account, _rollouts(), RESTART, [])) == ["every label was taken"]


@pytest.mark.parametrize(
    ("release", "change"),
    [
        (1, {"status": "failed"}),
        (2, {"status": "rolled_back"}),
        (2, {"decision": {"by": "engineer"}}),
        (3, {"status": "promoted"}),
        (3, {"decision": {"by": "latency"}}),
        (3, {"weights": [0.05, 0.25]}),
        (2, {"weights": [0.05, 0.5]}),
        (4, {"status": "promoted", "decision": {"by": "cleared"}}),
        (4, {"decision": None}),
    ],
)
def test_a_rollout_that_ended_otherwise_breaks_its_promise(release: int, change: dict[str, Any]) -> None:
    rollouts = [{**one, **change} if one["release"] == release else one for one in _rollouts()]
    (broken,) = _broken(judge(_account(), rollouts, RESTART, []))
    assert broken.startswith(f"digits/{release} is ")


@pytest.mark.parametrize("release", [1, 2, 3, 4])
def test_a_rollout_that_never_was_breaks_its_promise(release: int) -> None:
    rollouts = [one for one in _rollouts() if one["release"] != release]
    (broken,) = [one for one in judge(_account(), rollouts, RESTART, []) if not one.is_kept]
    assert (broken.text[:8], broken.seen) == (f"digits/{release}", "not decided")


@pytest.mark.parametrize(
    "restart",
    [None, replace(RESTART, counted_after={**BEFORE, "quality": 0}), replace(RESTART, counted_before=NOTHING)],
)
def test_evidence_that_was_lost_breaks_its_promise(restart: Restart | None) -> None:
    assert _broken(judge(_account(), _rollouts(), restart, [])) == ["no evidence lost by the restart"]


def test_what_is_left_behind_is_named() -> None:
    (broken,) = [one for one in judge(_account(), _rollouts(), RESTART, ["process 17"]) if not one.is_kept]
    assert (broken.text, broken.seen) == ("nothing is left behind", "process 17")
