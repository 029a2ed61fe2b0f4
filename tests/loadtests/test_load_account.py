"""The books balance whatever happens, and say by whom."""

import json

from hypothesis import given
from hypothesis import strategies as st

from loadtests.account import NOBODY, Account


def test_what_is_still_in_flight_does_not_balance() -> None:
    account = Account()
    account.note_sent()
    assert not account.is_balanced
    account.note_answered("digits/1", 1.0, fallback=False, is_right=None)
    assert account.is_balanced


def test_what_was_withdrawn_is_neither_answered_nor_failed() -> None:
    account = Account()
    account.note_sent()
    account.note_withdrawn()
    assert (account.answered, account.failed, account.is_balanced) == (0, 0, True)


@given(st.lists(st.sampled_from(["answered", "failed", "withdrawn", "in flight"])))
def test_books_balance_exactly_when_every_fate_is_known(fates: list[str]) -> None:
    account = Account()
    for fate in fates:
        account.note_sent()
        if fate == "answered":
            account.note_answered("digits/1", 1.0, fallback=False, is_right=None)
        elif fate == "failed":
            account.note_failed("broken")
        elif fate == "withdrawn":
            account.note_withdrawn()
    assert account.is_balanced == ("in flight" not in fates)
    assert (account.sent, account.answered) == (len(fates), fates.count("answered"))


def test_each_release_has_its_page() -> None:
    account = Account()
    for release, fallback, is_right in (
        ("digits/1", False, True),
        ("digits/2", True, False),
        ("digits/1", False, None),
    ):
        account.note_sent()
        account.note_answered(release, 2.0, fallback, is_right)
    account.note_sent()
    account.note_failed("ServerDisconnectedError")
    one, two = account.pages["digits/1"], account.pages["digits/2"]
    assert (one.answered, one.judged, one.right, one.fallbacks) == (2, 1, 1, 0)
    assert (two.answered, two.judged, two.right, two.fallbacks) == (1, 1, 0, 1)
    assert account.pages[NOBODY].failed == 1
    assert account.reasons == {"ServerDisconnectedError": 1}


def test_books_as_json_hold_quantiles_and_accuracy() -> None:
    account = Account()
    for latency_ms in range(1, 102):
        account.note_sent()
        account.note_answered("digits/1", float(latency_ms), fallback=False, is_right=latency_ms > 1)
    said = json.loads(json.dumps(account.to_json()))
    page = said["releases"]["digits/1"]
    assert (said["sent"], said["balanced"]) == (101, True)
    assert (page["p50_ms"], page["p99_ms"], page["accuracy"]) == (51.0, 100.0, 100 / 101)
