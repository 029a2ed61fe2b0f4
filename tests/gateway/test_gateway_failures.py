"""Failing servers: what the client sees, and who is charged."""

import time
from pathlib import Path

import pytest

from tests.gateway.conftest import Stage
from tests.gateway.fakes import (
    OK,
    Behaviour,
    FakeServer,
    LoopThread,
    Received,
    Stream,
    after,
    hangs,
    http_answer,
    says,
    says_then_closes,
)
from tests.gateway.harness import Client, chunked, eventually, get, infer, route, running, table

ANSWER = http_answer(b"{}")
TOO_LARGE = http_answer(b"x" * 200_000, b"500 Internal Server Error")
FAILING: dict[str, tuple[Behaviour, str]] = {
    "500": (says(http_answer(b'{"error": "x"}', b"500 Internal Server Error")), "server_error"),
    "500 with much to say": (says(TOO_LARGE), "server_error"),
    "503": (says(http_answer(b"{}", b"503 Unavailable")), "server_error"),
    "no versions": (
        says(http_answer(b'{"error": "Request for \'m\' has no available versions"}', b"404 Not Found")), "unavailable",
    ),
    "nothing loaded": (
        says(http_answer(b'{"error": "Request for unknown model: \'m\' is not found"}', b"404 Not Found")),
        "unavailable",
    ),
    "reset": (says_then_closes(b"", reset=True), "reset"),
    "close": (says_then_closes(b""), "reset"),
    "half a head": (says_then_closes(b"HTTP/1.1 200 OK\r\nContent-Le"), "reset"),
    "short body": (says_then_closes(b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhello"), "reset"),
    "garbage": (says(b"\x00\x01\x02 what\r\n\r\n"), "reset"),
    "bare LF": (says(b"HTTP/1.1 200 OK\nContent-Length: 2\n\n{}"), "reset"),
    "CL and TE": (
        says(b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n"), "reset",
    ),
    "two CLs": (says(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nContent-Length: 3\r\n\r\n{}x"), "reset"),
    "switching protocols": (says(b"HTTP/1.1 101 Switching\r\nConnection: Upgrade\r\nUpgrade: x\r\n\r\n"), "reset"),
    "broken chunk": (says(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n"), "reset"),
    "hang": (hangs, "timeout"),
    "hang after the head": (says(b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhello"), "timeout"),
    "1xx for ever": (says(b"HTTP/1.1 100 Continue\r\n\r\n" * 3), "timeout"),
}  # fmt: skip


@pytest.mark.parametrize("name", FAILING)
def test_a_failing_candidate_is_answered_by_stable_and_charged_once(stage: Stage, name: str) -> None:
    stage.candidate.behave, outcome = FAILING[name]
    model = stage.fresh("canary")
    with stage.client() as client:
        for _ in range(2):
            answer = client.ask(infer(model))
            assert (answer.status, answer.body) == (200, b'{"outputs": []}')
            assert answer.headers["x-sluice-release"] == f"{model}/1"
            assert answer.headers["x-sluice-fallback"] == f"{model}/2"
    stage.counts_are(model, {outcome: 2})
    assert stage.gateway.metric("sluice_fallbacks_total", model=model) == 2
    assert not stage.gateway.counted(model, release="1")


def test_a_candidate_that_refuses_connections_is_answered_by_stable(stage: Stage) -> None:
    model = stage.fresh("refused")
    with stage.client() as client:
        assert client.ask(infer(model)).headers["x-sluice-fallback"] == f"{model}/2"
    stage.counts_are(model, {"unavailable": 1})


@pytest.mark.parametrize("head", [b"Content-Length: 900000", b"Transfer-Encoding: chunked"])
def test_a_candidate_that_breaks_inside_its_answer_breaks_the_clients_connection(stage: Stage, head: bytes) -> None:
    part = b"20000\r\n" + b"y" * 0x20000 if b"chunked" in head else b"y" * 0x20000
    stage.candidate.behave = says_then_closes(b"HTTP/1.1 200 OK\r\n%s\r\n\r\n%s" % (head, part))
    model = stage.fresh("canary")
    with stage.client() as client, pytest.raises(ConnectionError):
        client.ask(infer(model))
    stage.counts_are(model, {"reset": 1})
    assert not stage.stable.requests


def test_fallback_of_a_large_body_sends_it_whole(stage: Stage) -> None:
    stage.candidate.behave = FAILING["500"][0]
    body = bytes(range(256)) * 20_000
    with stage.client() as client:
        assert client.ask(infer("canary", body)).status == 200
    assert stage.stable.requests[0].body == stage.candidate.requests[0].body == body


def test_when_stable_fails_too_its_own_answer_is_passed_on(stage: Stage) -> None:
    stage.candidate.behave = FAILING["reset"][0]
    stage.stable.behave = says(http_answer(b'{"error": "no"}', b"503 Busy", b"Retry-After: 7\r\n"))
    model = stage.fresh("canary")
    with stage.client() as client:
        answer = client.ask(infer(model))
        assert (answer.status, answer.headers["retry-after"], answer.json()) == (503, "7", {"error": "no"})
        assert answer.headers["x-sluice-release"] == f"{model}/1"
    stage.counts_are(model, {"reset": 1})


def test_a_kept_connection_that_the_server_closed_is_nobodys_failure(stage: Stage) -> None:
    model = stage.fresh("plain")
    with stage.client() as client:
        for _ in range(3):
            assert client.ask(infer(model)).status == 200
            stage.stable.behave = _closes_the_next(stage.stable)
        assert client.ask(infer(model)).status == 200
    stage.counts_are(model, {"ok": 4})


def _closes_the_next(server: FakeServer) -> Behaviour:
    async def behave(received: Received, stream: Stream) -> None:
        server.behave = OK
        stream.close()

    return behave


def test_idle_connections_closed_by_a_restart_cost_nothing(stage: Stage) -> None:
    model = stage.fresh("plain")
    with stage.client() as client:
        for _ in range(5):
            assert client.ask(infer(model)).status == 200
            stage.stable.close_connections()
    stage.counts_are(model, {"ok": 5})


def test_a_stable_server_that_is_down_is_retried_on_the_other(loop_thread: LoopThread, tmp_path: Path) -> None:
    servers = [FakeServer(loop_thread), FakeServer(loop_thread)]
    servers[0].stop()
    with running(tmp_path, table(route("pair", {1: [server.address for server in servers]}))) as gateway:
        with Client(gateway.address) as client:
            for _ in range(40):
                assert client.ask(infer("pair")).status == 200
            servers[0].start()
            eventually(lambda: client.ask(infer("pair")).status == 200 and servers[0].requests, 12.0)
            servers[1].stop()
            for _ in range(10):
                assert client.ask(infer("pair")).status == 200
        eventually(lambda: gateway.counted("pair").get("ok", 0) >= 51)
        assert set(gateway.counted("pair")) == {"ok"}
        assert 0 < gateway.metric("sluice_retries_total", model="pair") < 20
    servers[0].stop()


def test_a_5xx_of_one_stable_server_is_tried_on_the_other(stage: Stage) -> None:
    stage.first.behave = FAILING["500"][0]
    with stage.client() as client:
        assert {client.ask(infer("pair")).status for _ in range(10)} == {200}


def test_when_all_are_down_it_is_503_with_retry_after(stage: Stage) -> None:
    model = stage.fresh("down")
    with stage.client() as client:
        answer = client.ask(infer(model))
        assert (answer.status, answer.headers["retry-after"]) == (503, "1")
        assert client.ask(get(f"/v2/models/{model}/ready")).status == 503
    stage.counts_are(model, {"unavailable": 1})


def test_no_answer_within_the_deadline_is_504(stage: Stage) -> None:
    stage.first.behave = stage.second.behave = hangs
    model = stage.fresh("pair")
    with stage.client() as client:
        began = time.monotonic()
        answer = client.ask(infer(model))
        assert answer.status == 504 and "error" in answer.json()
        assert 1.9 < time.monotonic() - began < 3.0
    stage.counts_are(model, {"timeout": 1})


def test_the_deadline_is_shared_by_candidate_and_stable(stage: Stage) -> None:
    stage.candidate.behave = stage.stable.behave = hangs
    with stage.client() as client:
        began = time.monotonic()
        assert client.ask(infer("canary")).status == 504
        assert time.monotonic() - began < 1.6


@pytest.mark.parametrize(
    ("status", "text"),
    [
        (b"500 Internal Server Error", b'{"error":"failed to parse the request JSON buffer: Invalid value. at 0"}'),
        (b"500 Internal Server Error", b'{"error":"Unable to parse \'data\': Shape does not match"}'),
        (b"400 Bad Request", b'{"error":"unexpected shape for input"}'),
        (b"404 Not Found", b'{"error":"unknown"}'),
    ],
)
def test_a_clients_fault_is_400_and_nobodys_failure(stage: Stage, status: bytes, text: bytes) -> None:
    stage.candidate.behave = says(http_answer(text, status))
    model = stage.fresh("canary")
    with stage.client() as client:
        answer = client.ask(infer(model))
        assert (answer.status, answer.body) == (400 if status.startswith(b"500") else int(status[:3]), text)
        assert "x-sluice-fallback" not in answer.headers
    stage.counts_are(model, {"client_error": 1})
    assert not stage.stable.requests


def test_a_backends_own_parse_error_is_its_failure(stage: Stage) -> None:
    stage.candidate.behave = says(
        http_answer(b'{"error": "ValueError: failed to parse"}', b"500 Internal Server Error")
    )
    with stage.client() as client:
        assert client.ask(infer("canary")).headers["x-sluice-fallback"] == "canary/2"


TRACEBACK = b'{"error": "Traceback (most recent call last):\\n  File \\"/secret/model.py\\", line 3"}'


@pytest.mark.parametrize(
    "answer",
    [
        http_answer(TRACEBACK, b"500 Internal Server Error"),
        http_answer(TRACEBACK, b"400 Bad Request"),
        http_answer(b'{"error":"failed to parse ' + TRACEBACK, b"500 Internal Server Error"),
        http_answer(b"\x1f\x8b unreadable secret", b"500 Internal Server Error", b"content-encoding: gzip\r\n"),
        http_answer(b"secret" * 20_000, b"500 Internal Server Error"),
        b"HTTP/1.1 500 X\r\nTransfer-Encoding: chunked\r\n\r\n" + chunked(TRACEBACK[:30], TRACEBACK[30:]),
    ],
)
def test_a_servers_inside_never_reaches_the_client(stage: Stage, answer: bytes) -> None:
    stage.stable.behave = says(answer)
    with stage.client() as client:
        seen = client.ask(infer(headers=b"X-Request-Id: r1\r\n"))
    assert seen.status in (400, 500)
    assert seen.json()["error"] == "release plain/1 failed to answer this request (request id r1)"
    assert b"secret" not in seen.body


def test_an_answer_that_came_twice_is_given_once_and_its_connection_dropped(stage: Stage) -> None:
    stage.stable.behave = says(http_answer(b"first") + http_answer(b"second"))
    with stage.client() as client:
        for _ in range(3):
            assert client.ask(infer()).body == b"first"
    assert len({received.connection for received in stage.stable.requests}) == 3


def test_an_answer_before_the_whole_request_was_read_ends_its_connection(stage: Stage) -> None:
    stage.shadow.reads = False
    with stage.client() as client:
        client.send(infer("shadow", b"x" * 20_000_000, version="/versions/2"))
        eventually(lambda: stage.shadow.raw)
        time.sleep(0.2)
        stage.shadow.say_unasked(ANSWER)
        assert client.answer().status == 200
        stage.shadow.reads = True
        assert client.ask(infer("shadow", version="/versions/2")).status == 200
    assert len(stage.shadow.requests) == 1  # On a connection of its own.


def test_a_client_that_goes_away_is_nobodys_failure_and_its_connection_serves_on(stage: Stage) -> None:
    model = stage.fresh("plain")
    stage.stable.behave = after(0.3, OK)
    for _ in range(3):
        client = stage.client()
        client.send(infer(model))
        eventually(lambda: stage.stable.requests)
        client.reset()
        time.sleep(0.5)
    stage.stable.behave = OK
    with stage.client() as client:
        assert client.ask(infer(model)).status == 200
    stage.counts_are(model, {"client_gone": 3, "ok": 1})
    assert len({received.connection for received in stage.stable.requests}) == 1


def test_a_client_that_goes_away_before_a_failure_is_not_answered_by_stable(stage: Stage) -> None:
    model = stage.fresh("canary")
    stage.candidate.behave = after(0.2, FAILING["500"][0])
    client = stage.client()
    client.send(infer(model))
    eventually(lambda: stage.candidate.requests)
    client.reset()
    stage.counts_are(model, {"client_gone": 1})
    assert not stage.stable.requests


@pytest.mark.parametrize("model", ["plain", "canary"])
def test_clients_that_go_away_at_any_moment_leave_nothing_behind(stage: Stage, model: str) -> None:
    body = b"x" * 300_000
    stage.stable.behave = after(0.005, says(http_answer(b"y" * 300_000)))
    stage.candidate.behave = after(0.003, FAILING["500"][0])
    for number in range(60):
        client = stage.client()
        client.send(infer(model, body)[: 5_000 * number + 100] if number < 30 else infer(model, body))
        time.sleep(0.0005 * (number % 30))
        client.reset()
    eventually(lambda: stage.gateway.metric("sluice_requests_in_flight") == 0)
    with stage.client() as client:
        assert client.ask(infer(model)).status == 200


def test_a_slow_reader_is_waited_for_and_its_slowness_is_not_the_releases(stage: Stage) -> None:
    size = 20_000_000
    stage.candidate.behave = says(http_answer(b"y" * size))
    model = stage.fresh("canary")
    pid = stage.gateway.worker_pids()[0]
    with stage.client(receive_bytes=8192) as client:
        client.send(infer(model))
        time.sleep(1.5)  # Longer than the deadline.
        resident = _resident_mb(pid)
        assert len(client.answer().body) == size
        assert client.ask(infer(model)).status == 200  # Whose server sent on while its connection was not read.
    assert _resident_mb(pid) < resident + 20 < 200
    stage.counts_are(model, {"ok": 2})


def test_a_connection_that_was_paused_serves_again(stage: Stage) -> None:
    stage.stable.behave = says(http_answer(b"y" * 6_000_000))
    with stage.client(receive_bytes=8192) as client:
        for _ in range(4):
            client.send(infer())
            time.sleep(0.1)
            assert len(client.answer().body) == 6_000_000


def _resident_mb(pid: int) -> float:
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return int(next(line for line in lines if line.startswith("VmRSS")).split()[1]) / 1024
