"""The open-loop schedule against a real server: every request has its fate, its release and its true latency."""

import asyncio
import threading
import time
from collections import Counter

import numpy as np
import pytest

from gateway.routes import DEFAULT_STICKY_HEADER
from loadtests.account import Account
from loadtests.errors import LoadError
from loadtests.rows import Rows
from loadtests.schedule import CLIENTS, Load, Traffic, metadata_of
from tests.loadtests.tiny_model import Reply, TinyModel

ROWS = Rows("image", np.random.default_rng(0).random((5, 8, 8), dtype=np.float32), np.arange(5))


def _send(tiny: TinyModel, rate: float = 100.0, seconds: float = 0.5, **load: float) -> Account:
    traffic = Traffic(Load(tiny.url, "digits", rate, **load), ROWS)
    return asyncio.run(traffic.run(seconds))


def test_every_request_arrives_once_and_is_answered(tiny: TinyModel) -> None:
    account = _send(tiny)
    assert account.sent == len(tiny.received) == account.answered
    assert 45 <= account.sent <= 51
    assert account.is_balanced
    assert not account.reasons


def test_requests_carry_rows_in_both_forms_and_half_of_the_clients_are_sticky(tiny: TinyModel) -> None:
    _send(tiny, rate=400.0)
    kinds = Counter(one.is_binary for one in tiny.received)
    sticky = [one.headers[DEFAULT_STICKY_HEADER] for one in tiny.received if DEFAULT_STICKY_HEADER in one.headers]
    assert all((ROWS.inputs == one.row).all(axis=(1, 2)).any() for one in tiny.received)
    assert kinds[True] and kinds[False] > kinds[True]
    assert 0.3 < len(sticky) / len(tiny.received) < 0.7
    assert len(set(sticky)) <= CLIENTS / 2


def test_answers_are_booked_by_release_with_fallbacks_and_accuracy(tiny: TinyModel) -> None:
    tiny.answer = lambda n: Reply(label=3, release=f"digits/{1 + n % 2}", is_fallback=n % 2 == 0)
    account = _send(tiny)
    one, two = account.pages["digits/1"], account.pages["digits/2"]
    truths = sum((one.row == ROWS.inputs[3]).all() for one in tiny.received)
    assert abs(one.answered - two.answered) <= 1
    assert (one.fallbacks, two.fallbacks) == (one.answered, 0)
    assert one.right + two.right == truths
    assert one.judged == one.answered


def test_each_answer_gets_its_own_label_back(tiny: TinyModel) -> None:
    account = _send(tiny)
    assert account.labels_sent == account.answered == len(tiny.labels)
    assert account.labels_failed == 0
    assert len({label["request_id"] for label in tiny.labels}) == account.answered
    for label in tiny.labels:
        row = tiny.received[int(label["request_id"].removeprefix("request-")) - 1].row
        assert (row == ROWS.inputs[label["label"]]).all()


def test_labels_that_are_refused_are_counted(tiny: TinyModel) -> None:
    tiny.feedback_status = 503
    account = _send(tiny, seconds=0.2)
    assert account.labels_failed == account.labels_sent > 0


def test_failures_are_booked_by_reason(tiny: TinyModel) -> None:
    replies = (Reply(500, text='{"error": "broken"}'), Reply(0), Reply(text="<html>"), Reply())
    tiny.answer = lambda n: replies[n % 4]
    account = _send(tiny, seconds=1.0)
    assert account.is_balanced
    assert set(account.reasons) == {
        '500 {"error": "broken"}', "ServerDisconnectedError", "an answer that is not one"
    }  # fmt: skip
    assert account.failed == sum(account.reasons.values()) == account.sent - account.answered
    assert account.labels_sent == account.answered


def test_a_server_that_never_answers_is_a_timeout(tiny: TinyModel) -> None:
    over = threading.Event()
    tiny.answer = lambda _: Reply(label=int(over.wait(10)))
    account = _send(tiny, rate=20, seconds=0.2, timeout_s=0.3)
    over.set()
    assert account.failed == account.sent > 0
    assert all("Timeout" in reason for reason in account.reasons)


def test_a_stalled_server_neither_thins_the_load_nor_hides_the_wait(tiny: TinyModel) -> None:
    opens = time.monotonic() + 0.6
    tiny.answer = lambda _: time.sleep(max(0.0, opens - time.monotonic())) or Reply()
    account = _send(tiny, rate=50, seconds=0.5)
    latencies_ms = sorted(account.pages["digits/1"].latencies_ms)
    assert account.sent >= 22
    assert latencies_ms[-1] > 400
    assert latencies_ms[len(latencies_ms) // 2] > 150


def test_latency_runs_from_the_scheduled_time_also_when_the_sender_is_late(tiny: TinyModel) -> None:
    async def send_with_a_stall() -> Account:
        asyncio.get_running_loop().call_later(0.2, time.sleep, 0.4)
        return await Traffic(Load(tiny.url, "digits", 50), ROWS).run(0.7)

    latencies_ms = asyncio.run(send_with_a_stall()).pages["digits/1"].latencies_ms
    assert sum(latency > 200 for latency in latencies_ms) >= 8
    assert max(latencies_ms) > 350


def test_stop_waits_for_what_is_under_way(tiny: TinyModel) -> None:
    tiny.answer = lambda _: time.sleep(0.2) or Reply()

    async def stop_early() -> Account:
        traffic = Traffic(Load(tiny.url, "digits", 50), ROWS)
        asyncio.get_running_loop().call_later(0.2, traffic.stop)
        return await traffic.run()

    account = asyncio.run(stop_early())
    assert account.sent == account.answered > 0


def test_no_gateway_and_no_model_are_told_apart(tiny: TinyModel) -> None:
    with pytest.raises(LoadError, match="has no model 'other': no such model"):
        asyncio.run(metadata_of(tiny.url, "other"))
    with pytest.raises(LoadError, match=r"no gateway answers at http://127\.0\.0\.1:1 "):
        asyncio.run(metadata_of("http://127.0.0.1:1", "digits"))
