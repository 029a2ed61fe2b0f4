"""Ambiguous or oversized requests: answered once, the connection closed, nothing upstream, the canary never answered.

The families are those of HTTP Garden, Http11Probe and the advisories of servers that got them wrong.
"""

import contextlib
import re
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

from loadtests.fuzz.case import CANARY, Answered, Case, Forwarded, Refused, in_chunks, post, sized
from loadtests.fuzz.cases import cases
from loadtests.fuzz.judging import (
    CANARY_LINE,
    across_the_edge,
    answering,
    byte_by_byte,
    in_two,
    judge,
    whole,
    with_canary,
)
from tests.gateway.conftest import Stage
from tests.gateway.fakes import FakeServer, LoopThread, http_answer, says
from tests.gateway.harness import Client, Gateway, chunked, eventually, get, infer, route, running, table

CASES = cases()
SMALL_BYTES = 1000
LINE = b"POST /v2/models/plain/infer HTTP/1.1\r\n"
HOST = b"Host: gw\r\n"
TWO_LENGTHS = post(b"Content-Length: 0\r\nContent-Length: 31\r\n")


def by_name(chosen: list[Case]) -> Any:
    return pytest.mark.parametrize("case", chosen, ids=[case.name for case in chosen])


def test_there_are_cases_of_every_family() -> None:
    assert len(CASES) > 500
    assert len({case.name for case in CASES}) == len(CASES)
    assert {case.family for case in CASES} == {*range(1, 24)} - {17, 20}  # Which have tests of their own.


def said(client: Client) -> list[int]:
    """The status of each answer that came until the gateway closed, but not 100."""
    return [int(status) for status in re.findall(rb"HTTP/1\.1 ([0-9]{3}) ", client.rest()) if status != b"100"]


@by_name([case for case in CASES if isinstance(case.verdict, Refused)])
def test_what_has_more_than_one_reading_is_refused_once(stage: Stage, case: Case) -> None:
    assert isinstance(case.verdict, Refused)
    with stage.client() as client:
        with contextlib.suppress(BrokenPipeError, ConnectionResetError):  # Refused and closed before it was whole.
            client.send(case.data)
            client.send(CANARY)
        answers = said(client)
    assert len(answers) == 1 and answers[0] in case.verdict.statuses, answers
    assert not stage.stable.requests and not any(stage.stable.raw)


def test_odd_requests_are_answered_or_forwarded_and_then_their_canary_is(stage: Stage) -> None:
    for case in CASES:
        if isinstance(case.verdict, Refused):
            continue
        stage.stable.reset()
        closes = isinstance(case.verdict, Forwarded) and case.verdict.closes
        with stage.client() as client:
            client.send(case.data + CANARY)
            client.half_close()
            answers = said(client)
        first = case.verdict.status if isinstance(case.verdict, Answered) else 200
        assert answers == ([first] if closes else [first, 200]), case.name
        forwarded = [received.line for received in stage.stable.requests]
        mine = [case.verdict.line] if isinstance(case.verdict, Forwarded) else []
        assert forwarded == mine + [CANARY_LINE] * (not closes), case.name


@pytest.mark.parametrize("family", sorted({case.family for case in CASES}))
def test_however_a_case_is_cut_it_is_the_same(family: int) -> None:
    """Byte by byte, cut once at every place, and across the head's edge; judged at both sides (`judging.judge`)."""
    stage = answering()
    with stage.running():
        for case in CASES:
            if case.family == family:
                for pieces in feeds(case):
                    judge(stage, case, pieces)


def feeds(case: Case) -> Iterator[Sequence[bytes]]:
    data = with_canary(case)
    yield whole(data)
    yield byte_by_byte(data[:50_000])
    yield from across_the_edge(data)
    if len(data) < SMALL_BYTES:
        yield from in_two(data)


def test_a_refusal_behind_a_good_request_comes_in_its_turn(stage: Stage) -> None:
    with stage.client() as client:
        client.send(infer() + TWO_LENGTHS + CANARY)
        assert client.answer().status == 200
        refused = client.answer()
        assert (refused.status, refused.headers["connection"]) == (400, "close")
        assert client.rest() == b""
    assert len(stage.stable.requests) == 1


def test_nothing_behind_a_connection_close_is_answered(stage: Stage) -> None:
    with stage.client() as client:
        client.send(infer(headers=b"Connection: close\r\n") + CANARY)
        assert client.answer().headers["connection"] == "close"
        assert client.rest() == b""
    assert len(stage.stable.requests) == 1


@pytest.mark.parametrize(
    "path",
    ["//v2/models/plain", "/v2/models/../models/plain", "/v2/models/plain/", "/v2/models/pl%61in",
     "/v2/models/plain;x", "/v2/models/plain%2finfer", "/v2/models/%00"],
)  # fmt: skip
def test_a_path_has_one_spelling(stage: Stage, path: str) -> None:
    with stage.client() as client:
        assert client.ask(get(path)).status == 404
    assert not stage.stable.requests


def test_odd_but_clear_requests_are_forwarded_in_the_one_form(stage: Stage) -> None:
    with stage.client() as client:
        assert client.ask(b"\r\n" + LINE + b"hOsT:gw:80\r\ncontent-LENGTH: \t2\r\nX:\r\n\r\n{}").status == 200
        assert client.ask(infer().replace(b" /v2", b" http://GW/v2")).status == 200
        assert client.ask(in_chunks(b"0005;a=" + b"b" * 200 + b"\r\nhello\r\n000\r\n\r\n")).status == 200
    for received, body in zip(stage.stable.requests, (b"{}", b'{"inputs": []}', b"hello"), strict=True):
        assert received.line == b"POST /v2/models/plain/versions/1/infer HTTP/1.1"
        assert received.body == body
    assert (b"x", b"") in stage.stable.requests[0].headers


@pytest.fixture(scope="module")
def strict(loop_thread: LoopThread, tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Gateway, FakeServer]]:
    """A gateway with short times and small limits."""
    server = FakeServer(loop_thread)
    limits = {
        "head_timeout_s": 0.5,
        "body_timeout_s": 1.0,
        "idle_timeout_s": 1.0,
        "body_bytes": 1000,
        "write_timeout_s": 1.0,
    }
    with running(tmp_path_factory.mktemp("strict"), table(route("plain", {1: [server.address]})), **limits) as gateway:
        yield gateway, server
    server.stop()


def test_a_body_beyond_the_limit_is_413_and_the_answer_can_be_read(strict: tuple[Gateway, FakeServer]) -> None:
    gateway, server = strict
    body = b"x" * 1_001
    for data in (infer(body=body), in_chunks(chunked(body)), sized(b"1001", b"")):
        with Client(gateway.address) as client:
            assert client.ask(data).status == 413
            client.send(b"x" * 1_000_000)  # A client that goes on sending still reads its answer.
            assert client.rest() == b""
    assert not server.requests


@pytest.mark.parametrize("start", [b"P", LINE + HOST, LINE + HOST + b"Content-Length: 5\r\n\r\nhe"])
def test_a_slow_request_is_cut_in_time(strict: tuple[Gateway, FakeServer], start: bytes) -> None:
    with Client(strict[0].address) as client:
        client.send(start)
        began = time.monotonic()
        assert client.answer().status == 408
        assert client.rest() == b""
    assert time.monotonic() - began < 3.5


def test_a_slow_head_behind_an_answered_request_is_cut_in_time(strict: tuple[Gateway, FakeServer]) -> None:
    with Client(strict[0].address) as client:
        assert client.ask(infer() + b"POST /v2").status == 200
        assert client.answer().status == 408


def test_dripping_bytes_do_not_make_a_head_live_longer(strict: tuple[Gateway, FakeServer]) -> None:
    with Client(strict[0].address) as client:
        began = time.monotonic()
        with pytest.raises((BrokenPipeError, ConnectionResetError)):
            for byte in LINE * 100:
                client.send(bytes((byte,)))
                time.sleep(0.05)
    assert time.monotonic() - began < 6.0


def test_an_idle_connection_is_closed(strict: tuple[Gateway, FakeServer]) -> None:
    with Client(strict[0].address) as client:
        assert client.ask(infer()).status == 200
        assert client.rest() == b""


def test_a_client_that_leaves_its_answers_unread_is_asked_no_more_and_cut(strict: tuple[Gateway, FakeServer]) -> None:
    gateway, server = strict
    server.reset(says(http_answer(b"x" * 1_000_000)))
    with Client(gateway.address, receive_bytes=4096) as client:
        for _ in range(30):
            client.send(infer())
            time.sleep(0.02)
        assert len(server.requests) < 20  # What the kernel's buffers took, and not more.
        eventually(lambda: _is_gone(client), 8.0)
    assert resident_mb(gateway.worker_pids()[0]) < 120


def _is_gone(client: Client) -> bool:
    try:
        client.sock.send(b"x")
    except OSError:
        return True
    return False


def resident_mb(pid: int) -> float:
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return int(next(line for line in lines if line.startswith("VmRSS")).split()[1]) / 1024
