"""Ambiguous or oversized requests: answered once, the connection closed, nothing upstream, the canary never answered.

The families are those of HTTP Garden, Http11Probe and the advisories of servers that got them wrong.
"""

import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.gateway.conftest import Stage
from tests.gateway.fakes import FakeServer, LoopThread, http_answer, says
from tests.gateway.harness import Client, Gateway, chunked, eventually, get, infer, route, running, table

CANARY = get("/v2/models/plain?canary")
LINE = b"POST /v2/models/plain/infer HTTP/1.1\r\n"
HOST = b"Host: gw\r\n"
TE = b"Transfer-Encoding: chunked\r\n"


def post(headers: bytes, body: bytes = b"") -> bytes:
    return LINE + HOST + headers + b"\r\n" + body


def sized(length: bytes, body: bytes = b"hello") -> bytes:
    return post(b"Content-Length: " + length + b"\r\n", body)


def coded(coding: bytes, body: bytes = b"0\r\n\r\n") -> bytes:
    return post(b"Transfer-Encoding: " + coding + b"\r\n", body)


def in_chunks(body: bytes) -> bytes:
    return post(TE, body)


REFUSED = {
    "CL and TE": post(b"Content-Length: 5\r\n" + TE, b"0\r\n\r\nG"),
    "TE and CL": post(TE + b"Content-Length: 5\r\n", b"0\r\n\r\nG"),
    "two CLs": post(b"Content-Length: 0\r\nContent-Length: 31\r\n"),
    "two equal CLs": post(b"Content-Length: 5\r\nContent-Length: 5\r\n", b"hello"),
    "list CL": sized(b"5, 5"),
    "CL plus": sized(b"+5"),
    "CL underscore": sized(b"1_0"),
    "CL negative": sized(b"-48"),
    "CL hex": sized(b"0x10"),
    "CL leading zero": sized(b"05"),
    "CL letters": sized(b"1Z"),
    "CL empty": sized(b""),
    "CL of 20 digits": sized(b"9" * 20),
    "CL of 5000 digits": sized(b"9" * 5000),
    "CL inner space": sized(b"1 0"),
    "CL fraction": sized(b"5.0"),
    "TE ,chunked": coded(b",chunked"),
    "TE vertical tab": coded(b"\x0bchunked"),
    "TE chunked, identity": coded(b"chunked, identity"),
    "TE gzip, chunked": coded(b"gzip, chunked"),
    "TE quoted": coded(b'"chunked"'),
    "TE parameter": coded(b"chunked;x=1"),
    "TE xchunked": coded(b"xchunked"),
    "TE identity": coded(b"identity"),
    "TE empty": coded(b""),
    "TE twice": post(TE + TE, b"0\r\n\r\n"),
    "TE space before colon": post(b"Transfer-Encoding : chunked\r\n", b"0\r\n\r\n"),
    "TE leading space": post(b"X: y\r\n Transfer-Encoding: chunked\r\n", b"0\r\n\r\n"),
    "TE folded name": post(b"Transfer-\r\nEncoding: chunked\r\n", b"0\r\n\r\n"),
    "TE underscore": post(b"Transfer_Encoding: chunked\r\n"),
    "CL underscore name": post(b"Content_Length: 5\r\n"),
    "TE after bare CR": post(b"X: X\rTransfer-Encoding: chunked\r\n", b"0\r\n\r\n"),
    "TE on HTTP/1.0": LINE.replace(b"1.1", b"1.0") + HOST + TE + b"\r\n0\r\n\r\n",
    "chunk size underscore": in_chunks(b"0_2e\r\n"),
    "chunk size plus": in_chunks(b"+2\r\nab\r\n0\r\n\r\n"),
    "chunk size negative": in_chunks(b"-0x0\r\n\r\n"),
    "chunk size 0x": in_chunks(b"0x1\r\na\r\n0\r\n\r\n"),
    "chunk size leading space": in_chunks(b" 5\r\nhello\r\n0\r\n\r\n"),
    "chunk size trailing space": in_chunks(b"5 \r\nhello\r\n0\r\n\r\n"),
    "chunk size empty": in_chunks(b"\r\nhello\r\n0\r\n\r\n"),
    "chunk size with letters": in_chunks(b"1these\r\na\r\n0\r\n\r\n"),
    "chunk size of 17 digits": in_chunks(b"1" + b"0" * 16 + b"\r\nhello\r\n"),
    "chunk size of 400000 zeros": in_chunks(b"0" * 400_000 + b"5\r\nhello\r\n0\r\n\r\n"),
    "chunk line LF": in_chunks(b"5\nhello\r\n0\r\n\r\n"),
    "chunk line CR CR": in_chunks(b"5\r\rhello\r\n0\r\n\r\n"),
    "chunk extension LF": in_chunks(b"5;a\nhello\r\n0\r\n\r\n"),
    "chunk extension CR": in_chunks(b"5;a\rhello\r\n0\r\n\r\n"),
    "chunk end LF": in_chunks(b"5\r\nhello\n0\r\n\r\n"),
    "chunk end other": in_chunks(b"5\r\nhelloXX0\r\n\r\n"),
    "last chunk end other": in_chunks(b"0\r\nXX"),
    "chunk extension NUL": in_chunks(b"5;\x00\r\nhello\r\n0\r\n\r\n"),
    "chunk extension of 400 KB": in_chunks(b"5;" + b"a" * 400_000 + b"\r\nhello\r\n0\r\n\r\n"),
    "chunks of one byte": in_chunks(chunked(*[b"x"] * 100_000)),
    "trailer CL": in_chunks(b"0\r\nContent-Length: 5\r\n\r\n"),
    "trailer TE": in_chunks(b"0\r\n" + TE + b"\r\n"),
    "trailer of 100 KB": in_chunks(b"0\r\nX: " + b"a" * 100_000 + b"\r\n\r\n"),
    "many trailers": in_chunks(b"0\r\n" + b"X: y\r\n" * 200 + b"\r\n"),
    "no Host": LINE + b"Content-Length: 0\r\n\r\n",
    "two Hosts": post(HOST),
    "Host list": LINE + b"Host: a, b\r\n\r\n",
    "Host NUL": LINE + b"Host: a\x00.b\r\n\r\n",
    "Host user": LINE + b"Host: u@a\r\n\r\n",
    "Host path": LINE + b"Host: a/b\r\n\r\n",
    "Host space": LINE + b"Host: a b\r\n\r\n",
    "Host empty": LINE + b"Host:\r\n\r\n",
    "folded line": post(b"X: b\r\n c\r\n"),
    "bare LF head": LINE.replace(b"\r", b"") + b"Host: gw\n\n",
    "bare LF field": LINE + HOST + b"X: y\n\r\n",
    "bare CR field": LINE + HOST + b"X: y\r\rZ: z\r\n\r\n",
    "no colon": post(b"Xyz\r\n"),
    "empty name": post(b": x\r\n"),
    "space in name": post(b"X Y: z\r\n"),
    "leading space": LINE + b" Host: gw\r\n\r\n",
    "NUL in value": post(b"X: a\x00b\r\n"),
    "RTSP": LINE.replace(b" HTTP", b" RTSP") + HOST + b"\r\n",
    "control in value": post(b"X: a\x01b\r\n"),
    "DEL in value": post(b"X: a\x7fb\r\n"),
    "high byte in name": post(b"X\xff: a\r\n"),
    "tab in request line": LINE.replace(b" ", b"\t") + HOST + b"\r\n",
    "HTTP/1.9": LINE.replace(b"1.1", b"1.9") + HOST + b"\r\n",
    "HTTP/2.0": LINE.replace(b"1.1", b"2.0") + HOST + b"\r\n",
    "HTTP/0.9": LINE.replace(b"1.1", b"0.9") + HOST + b"\r\n",
    "no version": b"GET /v2\r\n\r\n",
    "fragment": LINE.replace(b"infer ", b"infer#b ") + HOST + b"\r\n",
    "star with GET": b"GET * HTTP/1.1\r\nHost: gw\r\n\r\n",
    "CONNECT": b"CONNECT gw:80 HTTP/1.1\r\nHost: gw\r\n\r\n",
    "absolute form": b"GET http://evil/v2 HTTP/1.1\r\nHost: gw\r\n\r\n",
    "high byte in path": LINE.replace(b"plain", b"pl\xff") + HOST + b"\r\n",
    "NUL in path": LINE.replace(b"plain", b"pl\x00") + HOST + b"\r\n",
    "unknown method": b"FOO /v2 HTTP/1.1\r\nHost: gw\r\n\r\n",
    "HTTP/2 preface": b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
    "TLS hello": b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + b"\x00" * 50,
    "Expect other": post(b"Expect: 100-continueX\r\nContent-Length: 2\r\n", b"{}"),
    "Expect twice": post(b"Expect: 100-continue\r\nExpect: 100-continue\r\nContent-Length: 2\r\n", b"{}"),
    "request line too long": LINE.replace(b"infer", b"infer?" + b"a" * 9_000) + HOST + b"\r\n",
    "field too large": post(b"X: " + b"a" * 40_000 + b"\r\n"),
    "fields too large": post((b"X: " + b"a" * 1_000 + b"\r\n") * 40),
    "too many fields": post(b"X: y\r\n" * 101),
    "head without end": LINE + HOST + b"X: " + b"a" * 200_000,
    "leading CRLFs": b"\r\n" * 200_000,
}  # fmt: skip
STATUS = {
    "CL of 20 digits": 413, "CL of 5000 digits": 413, "HTTP/1.9": 505, "HTTP/2.0": 505, "HTTP/0.9": 505,
    "unknown method": 501, "HTTP/2 preface": 505, "Expect other": 417, "request line too long": 414,
    "field too large": 431, "fields too large": 431, "too many fields": 431, "head without end": 431,
    "many trailers": 431,
}  # fmt: skip
EITHER = {"trailer of 100 KB": {400, 431}, "no version": {400, 505}}


def said(client: Client) -> list[bytes]:
    """The status lines of everything that came until the gateway closed."""
    data = client.rest()
    return [line for line in data.split(b"\r\n") if line.startswith(b"HTTP/1.1 ")] if data else []


def check_refused(stage: Stage, data: bytes, pieces: int, statuses: set[int]) -> None:
    with stage.client() as client:
        size = max(1, -(-len(data) // pieces))
        try:
            for at in range(0, len(data), size):
                client.send(data[at : at + size])
                if pieces > 1:
                    time.sleep(0.0002)
            client.send(CANARY)
        except (BrokenPipeError, ConnectionResetError):
            pass  # It was refused and closed before it was whole.
        answers = said(client)
    assert len(answers) == 1, answers
    assert int(answers[0].split(b" ")[1]) in statuses
    assert not stage.stable.requests and not any(stage.stable.raw)


@pytest.mark.parametrize("name", REFUSED)
def test_what_is_ambiguous_or_too_large_is_refused_once(stage: Stage, name: str) -> None:
    statuses = EITHER.get(name) or {STATUS.get(name, 400)}
    check_refused(stage, REFUSED[name], 1, statuses)
    check_refused(stage, REFUSED[name], 12, statuses)


@pytest.mark.parametrize("name", [name for name, data in REFUSED.items() if len(data) < 200])
def test_the_same_when_it_comes_byte_by_byte(stage: Stage, name: str) -> None:
    check_refused(stage, REFUSED[name], 200, EITHER.get(name) or {STATUS.get(name, 400)})


def test_a_refusal_behind_a_good_request_comes_in_its_turn(stage: Stage) -> None:
    with stage.client() as client:
        client.send(infer() + REFUSED["two CLs"] + CANARY)
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
    for data in (infer(body=body), post(TE, chunked(body)), sized(b"1001", b"")):
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
