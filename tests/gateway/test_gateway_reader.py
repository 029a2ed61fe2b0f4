"""What hostile requests cost the loop, and single faults that were found: in-process, on virtual connections."""

import random
import sys
import time
from collections.abc import Iterable

import pytest

from gateway.config import GatewayConfig
from gateway.heads import RequestReader
from gateway.remembered import HEADS_BYTES
from loadtests.fuzz.case import END, HOST, LINE, in_chunks, post, sized
from loadtests.fuzz.ends import ClientEnd, Got, ServerEnd
from loadtests.fuzz.judging import answering
from loadtests.fuzz.oracle import Answered, answers_to
from loadtests.fuzz.stage import STABLE, Stage
from loadtests.fuzz.wire import READ_BYTES

LOOP_S = 0.05
"""How long a hostile request may hold the loop in all (facts/http.md, 2.4, family 21)."""


def in_reads(data: bytes) -> list[bytes]:
    return [data[at : at + READ_BYTES] for at in range(0, len(data), READ_BYTES)]


def drops(data: bytes, size: int = 1) -> list[bytes]:
    return [data[at : at + size] for at in range(0, len(data), size)]


def answers(client: ClientEnd) -> list[Answered]:
    found = answers_to([one.head.method for one in client.handled], bytes(client.received), client.has_ended)
    return [one for one in found if one.status != 100]


def loop_time_s(stage: Stage, pieces: Iterable[bytes]) -> tuple[float, ClientEnd]:
    client = stage.client()
    began = time.process_time()
    for piece in pieces:
        client.send(piece)
        stage.run()
    spent_s = time.process_time() - began
    stage.check_errors()
    stage.check_client(client)
    return spent_s, client


HOSTILE = {
    "20,000 fields": (post(b"".join(b"X%d: y\r\n" % n for n in range(20_000))), 431),
    "one name 20,000 times": (post(b"X: y\r\n" * 20_000), 431),
    "99 fields of 300 bytes": (post(b"".join(b"X%d: " % n + b"y" * 300 + b"\r\n" for n in range(98))), 200),
    "Connection 98 times": (post(b"".join(b"Connection: x%d\r\n" % n for n in range(98))), 200),
    "Connection names 1,300": (post(b"Connection: " + b",".join(b"x%d" % n for n in range(1_300)) + b"\r\n"), 200),
    "300,000 chunks of one byte": (in_chunks(b"1\r\nx\r\n" * 300_000 + END), 400),
    "1,000,000 trailers": (in_chunks(b"0\r\n" + b"X: y\r\n" * 1_000_000 + b"\r\n"), 431),
    "100 trailers of 300 bytes": (in_chunks(b"0\r\n" + (b"X: " + b"y" * 300 + b"\r\n") * 99 + b"\r\n"), 200),
    "64 KB of extensions": (in_chunks(b"5;" + b"a" * 65_536 + b"\r\nhello\r\n" + END), 400),
    "200 bytes of extension on 2,000 chunks": (
        in_chunks((b"10;" + b"a" * 200 + b"\r\n" + b"x" * 16 + b"\r\n") * 2_000 + END), 200,
    ),
    "100,000 zeros": (in_chunks(b"0" * 100_000 + b"5\r\nhello\r\n" + END), 400),
    "a request line of 2 MB": (b"GET /" + b"a" * 2_000_000, 414),
    "a head of 2 MB": (LINE + HOST + b"X: " + b"a" * 2_000_000, 431),
    "4 MB of empty lines": (b"\r\n" * 2_000_000, 400),
    "4 MB behind a refusal": (sized(b"99999999", b"x" * 4_000_000), 413),
}  # fmt: skip


@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_requests_do_not_hold_the_loop_up(name: str) -> None:
    data, status = HOSTILE[name]
    spent: list[float] = []
    for _ in range(3):
        stage = answering()
        with stage.running():
            spent_s, client = loop_time_s(stage, in_reads(data))
            assert [one.status for one in answers(client)] == [status]
            spent.append(spent_s)
    assert min(spent) < LOOP_S


SLOW = {
    "a head of 32,000 bytes": (post(b"".join(b"X%d: " % n + b"y" * 7_000 + b"\r\n" for n in range(4))), 200, 1),
    "a head that is too long": (LINE + HOST + b"X: " + b"a" * 40_000, 431, 1),
    "a trailer of 30,000 bytes": (in_chunks(b"0\r\nX: " + b"y" * 30_000 + b"\r\n\r\n"), 200, 1),
    "a body of 100,000 bytes": (sized(b"100000", b"x" * 100_000), 200, 1),
    "1,000 chunks": (in_chunks((b"10\r\n" + b"x" * 16 + b"\r\n") * 1_000 + END), 200, 1),
}


@pytest.mark.parametrize("name", SLOW)
def test_what_comes_in_drops_costs_little_a_drop(name: str) -> None:
    data, status, size = SLOW[name]
    pieces = drops(data, size)
    stage = answering()
    with stage.running():
        spent_s, client = loop_time_s(stage, pieces)
        assert [one.status for one in answers(client)] == [status]
    assert spent_s / len(pieces) < 50e-6


@pytest.mark.parametrize("cut", [None, 1, 7, 1000])
def test_a_thousand_pipelined_requests_are_answered_one_after_the_other(cut: int | None) -> None:
    stage = answering()
    with stage.running():
        data = b"".join(sized(b"4", b"%04d" % n) for n in range(1000))
        client = stage.client()
        most = 0
        for piece in [data] if cut is None else drops(data, cut):
            client.send(piece)
            most = max(most, stage.dispatcher.in_flight)
            stage.run()
        assert most <= 1
        assert [one.body for one in stage.servers[STABLE].requests] == [b"%04d" % n for n in range(1000)]
        assert [one.status for one in answers(client)] == [200] * 1000
        stage.settle([client])


@pytest.mark.parametrize("size", [1, 2, 7, 100, 1_000])
@pytest.mark.parametrize("is_chunked", [False, True])
def test_a_body_in_drops_takes_little_more_memory_than_it_is_accounted_for(size: int, is_chunked: bool) -> None:
    body = random.Random(size).randbytes(60_000)
    stage = answering()
    with stage.running():
        client = stage.client()
        client.send(sized(b"60000", b"") if not is_chunked else in_chunks(b"ea60\r\n"))
        for piece in drops(body, size)[:-1]:
            client.send(piece)
            stage.run()
        (connection,) = stage.front.connections
        request = connection._request
        assert request is not None
        assert request.held_bytes == request.size == len(b"".join(request.body))
        assert sum(map(sys.getsizeof, request.body)) + sys.getsizeof(request.body) < 1.3 * request.size
        client.send(drops(body, size)[-1] + (b"\r\n" + END if is_chunked else b""))
        stage.run()
        assert [one.body for one in stage.servers[STABLE].requests] == [body]
        stage.settle([client])


# Faults that were found


def test_a_target_with_an_authority_is_known_by_its_method_too() -> None:
    stage = answering()
    with stage.running():
        for method, action, status in (
            (b"GET", b"", 200), (b"DELETE", b"", 405), (b"POST", b"", 405), (b"GET", b"/infer", 405),
            (b"POST", b"/infer", 200), (b"GET", b"/infer", 405), (b"HEAD", b"", 200),
        ):  # fmt: skip
            client = stage.client()
            client.send(b"%s http://gw/v2/models/plain%s HTTP/1.1\r\nHost: gw\r\n\r\n" % (method, action))
            stage.run()
            assert [one.status for one in answers(client)] == [status]
            stage.settle([client])


@pytest.mark.parametrize("ids", [(b"a", b"b c"), (b"b c", b"a"), (b"a", b"\xff"), (b"a", b"b"), (b"\xff", b"a", b"")])
def test_the_first_valid_request_id_is_the_requests(ids: tuple[bytes, ...]) -> None:
    stage = answering()
    stage.dispatcher.next_second(10)  # It is recorded too.
    with stage.running():
        client = stage.client()
        client.send(post(b"".join(b"X-Request-Id: %s\r\n" % one for one in ids)))
        stage.run()
        stage.check_errors()
        assert [one.fields[b"x-request-id"] for one in answers(client)] == [b"a"]
        assert [one.request_id for one in stage.servers[STABLE].requests] == [b"a"]
        stage.settle([client])


def test_empty_lines_are_bounded_however_they_come() -> None:
    stage = answering()
    with stage.running():
        client = stage.client()
        for piece in drops(b"\r\n" * 9):
            client.send(piece)
        assert [one.status for one in answers(client)] == [400]
        client = stage.client()
        for _ in range(50):  # A client that ends each body with one may go on as long as it likes.
            client.send(b"\r\n" + sized(b"5"))
            stage.run()
        assert [one.status for one in answers(client)] == [200] * 50


def test_an_old_client_that_expects_is_not_told_to_go_on() -> None:
    stage = answering()
    with stage.running():
        client = stage.client()
        client.send(LINE.replace(b"1.1", b"1.0") + HOST + b"Expect: 100-continue\r\nContent-Length: 5\r\n\r\n")
        stage.run()
        assert not client.received
        client.send(b"hello")
        stage.run()
        assert [one.status for one in answers(client)] == [200]


@pytest.mark.parametrize("data", [sized(b"5", b""), in_chunks(b"5\r\nhello\r\n")])
def test_an_early_refusal_closes_before_anything_behind_it_is_read(data: bytes) -> None:
    """The ledger is full: 503, and what would have been the body is never a request."""
    stage = Stage(GatewayConfig(), held_bytes=0)
    with stage.running():
        client = stage.client()
        client.send(data)
        stage.run()
        client.send(post())
        stage.run()
        assert [(one.status, one.fields[b"connection"]) for one in answers(client)] == [(503, b"close")]
        stage.settle([client])


def test_a_refused_body_leaves_nothing_on_the_ledger() -> None:
    """Two that are too much together: the second is refused, however it comes, and the next one has room again."""
    stage = Stage(GatewayConfig(), held_bytes=1_500)
    with stage.running():
        for pieces in ([sized(b"1000", b"x" * 1_000)], [sized(b"1000", b"x" * 500), b"x" * 500]):
            first = stage.client()
            first.send(sized(b"1000", b"x" * 1_000))
            second = stage.client()
            for piece in pieces:
                second.send(piece)
            assert [(one.status, one.fields[b"connection"]) for one in answers(second)] == [(503, b"close")]
            assert stage.memory.held_bytes == 1_000
            first.leave(by_reset=True)
            stage.run()
            stage.settle([first, second])


def test_a_time_that_is_up_before_its_connection_is_begun_ends_that_attempt() -> None:
    """The candidate's connection is asked for, and its half of the deadline ends before the task for it ran once."""
    stage = Stage(GatewayConfig())
    said: list[bytes] = []

    def answer(end: ServerEnd, got: Got) -> None:
        said.append(end.server.address)
        stage.loop.call_soon(end.wire.feed, b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\n{}")

    for server in stage.servers.values():
        server.answer = answer
    with stage.running():
        client = stage.client()
        client.send(sized(b"5").replace(b"plain", b"canary"))
        stage.pass_time(1.1)
        stage.run()
        assert [one.fields.get(b"x-sluice-fallback") for one in answers(client)] == [b"canary/2"]
        assert said == [STABLE.encode()]
        stage.settle([client])


def test_an_answer_is_recorded_whatever_length_it_claims() -> None:
    stage = Stage(GatewayConfig(), samples=10)
    claim = b"Inference-Header-Content-Length: " + b"9" * 5_000

    def answer(end: ServerEnd, got: Got) -> None:
        stage.loop.call_soon(end.wire.feed, b"HTTP/1.1 200 OK\r\n%s\r\nContent-Length: 2\r\n\r\n{}" % claim)

    stage.servers[STABLE].answer = answer
    with stage.running():
        client = stage.client()
        client.send(sized(b"5"))
        stage.run()
        assert [one.status for one in answers(client)] == [200]
        stage.settle([client])


def test_what_is_remembered_of_heads_is_bounded_and_the_oldest_goes_first() -> None:
    limits = GatewayConfig()
    reader = RequestReader(
        limits.request_line_bytes, limits.field_bytes, limits.head_bytes, limits.head_fields, limits.body_bytes
    )
    heads = [LINE + HOST + b"x-user: %06d" % n + b"y" * 900 for n in range(6_000)]
    for head in heads:
        assert reader[head].values[b"x-user"] == head[-906:]
    assert sum(map(len, reader)) <= HEADS_BYTES
    assert list(reader) == heads[-len(reader) :]


@pytest.mark.parametrize(
    "seldom",
    [b"x-request-id: a", b"traceparent: 00-" + b"1" * 32 + b"-" + b"2" * 16 + b"-01", b"x: " + b"y" * 2_000],
)
def test_heads_that_hardly_come_again_are_not_remembered(seldom: bytes) -> None:
    reader = RequestReader(8_192, 8_192, 32_768, 100, 1_000)
    assert reader[LINE + HOST + seldom].line == LINE[:-2]
    assert not reader
    assert reader[LINE + HOST + b"x: y"] is reader[LINE + HOST + b"x: y"]
