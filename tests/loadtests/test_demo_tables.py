"""The demo's tables say everything at 80 columns, without a wrapped cell."""

import io

from rich.console import Console

from loadtests.account import Account
from loadtests.demo.promises import Restart, judge
from loadtests.demo.story import Outcome
from loadtests.demo.tables import show

REASON = (
    "accuracy 11.8 points lower than stable's over 1,010 labels (only stable right 121 times, only the candidate 2)"
)


def _rollout(release: int, status: str, by: str, reason: str, requests: int, seconds: float) -> dict[str, object]:
    decision = {"by": by, "reason": reason, "requests": requests, "seconds": seconds}
    return {"model": "digits", "release": release, "status": status, "decision": decision, "weights": [0.05, 0.25, 0.5]}


def _shown() -> list[str]:
    account = Account()
    for release, latency_ms in (("digits/1", 123.45), ("digits/2", 1.5)):
        for _ in range(20_000):
            account.note_sent()
            account.note_answered(release, latency_ms, fallback=False, is_right=True)
    rollouts = [
        _rollout(1, "promoted", "first release", "the model had no release before", 0, 0.0),
        _rollout(2, "promoted", "cleared", "every required guard is cleared", 125_904, 140.2),
        _rollout(3, "rolled_back", "quality", REASON, 1_048, 8.4),
    ]
    restart = Restart({"errors": 125_123}, {"errors": 125_456}, "canary", "canary")
    outcome = Outcome(rollouts=rollouts, restart=restart, promises=judge(account, rollouts, restart, []))
    text = io.StringIO()
    show(Console(file=text, width=80), outcome, account)
    return text.getvalue().splitlines()


def test_latency_outcome_decider_requests_and_seconds_stand_in_their_rows() -> None:
    lines = [" ".join(line.replace("│", " ").split()) for line in _shown()]
    assert "digits/1 20,000 0 0 1.0000 123.45 123.45" in lines
    assert "digits/2 promoted cleared 125,904 140" in lines
    assert "digits/3 rolled back quality 1,048 8" in lines
    assert "kept no evidence lost by the restart 125,123 counts, then 125,456" in lines


def test_reasons_stand_below_the_table_in_full() -> None:
    assert REASON in " ".join(" ".join(_shown()).split())


def test_nothing_is_wider_than_80_columns() -> None:
    assert max(map(len, _shown())) <= 80
