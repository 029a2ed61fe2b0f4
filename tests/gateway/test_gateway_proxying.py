"""A request's way through the gateway and back, judged at both sides by raw bytes."""

import gzip
import json
import time

import pytest

from tests.gateway.conftest import Stage
from tests.gateway.fakes import after, echoes, http_answer, says, says_then_closes
from tests.gateway.harness import chunked, eventually, get, infer

MODEL = b"POST /v2/models/plain/infer HTTP/1.1\r\nHost: gw\r\n"


def test_a_json_request_reaches_stable_and_its_answer_names_the_release(stage: Stage) -> None:
    with stage.client() as client:
        answer = client.ask(infer(body=b'{"inputs": [1]}', headers=b"Content-Type: application/json\r\n"))
    assert (answer.status, answer.body) == (200, b'{"outputs": []}')
    assert answer.headers["x-sluice-release"] == "plain/1"
    assert answer.headers["content-type"] == "application/json"
    assert "x-sluice-fallback" not in answer.headers
    (received,) = stage.stable.requests
    assert received.line == b"POST /v2/models/plain/versions/1/infer HTTP/1.1"
    assert received.body == b'{"inputs": [1]}'
    assert received.header(b"host") == stage.stable.address.encode()
    assert received.header(b"x-request-id") == answer.headers["x-request-id"].encode()


def test_binary_tensors_pass_byte_for_byte_both_ways(stage: Stage) -> None:
    stage.stable.behave = echoes
    body = json.dumps({"inputs": []}).encode() + bytes(range(256)) * 64
    with stage.client() as client:
        answer = client.ask(infer(body=body, headers=b"Inference-Header-Content-Length: 14\r\n"))
    assert answer.body == body
    assert answer.headers["inference-header-content-length"] == "14"
    assert stage.stable.requests[0].header(b"inference-header-content-length") == b"14"


def test_a_compressed_body_is_not_touched(stage: Stage) -> None:
    body = gzip.compress(b'{"inputs": []}' * 100)
    stage.stable.behave = says(http_answer(body, headers=b"content-encoding: gzip\r\n"))
    with stage.client() as client:
        answer = client.ask(infer(body=body, headers=b"Content-Encoding: gzip\r\nAccept-Encoding: gzip\r\n"))
    assert answer.body == body
    assert answer.headers["content-encoding"] == "gzip"
    assert stage.stable.requests[0].body == body
    assert stage.stable.requests[0].header(b"accept-encoding") == b"gzip"


def test_a_chunked_upload_is_framed_anew_and_its_extensions_and_trailers_are_dropped(stage: Stage) -> None:
    data = b"5;a=b\r\nhello\r\n" + chunked(b" ", b"world", trailers=b"X-Auth: admin\r\nHost: evil\r\n")
    with stage.client() as client:
        assert client.ask(MODEL + b"Transfer-Encoding: Chunked\r\n\r\n" + data).status == 200
        assert client.ask(infer()).status == 200
    first, _ = stage.stable.requests
    assert first.body == b"hello world"
    assert first.header(b"content-length") == b"11"
    assert b"evil" not in first.head and b"x-auth" not in first.head and b"transfer-encoding" not in first.head


def test_every_split_of_a_request_gives_the_same_request(stage: Stage) -> None:
    data = MODEL + b"Transfer-Encoding: chunked\r\nX-A: b\r\n\r\n" + chunked(b"hello", b"you", trailers=b"T: x\r\n")
    with stage.client() as client:
        for at in range(1, len(data), 3):
            client.send(data[:at])
            time.sleep(0.001)
            assert client.ask(data[at:]).status == 200
        for byte in data:
            client.send(bytes((byte,)))
        assert client.answer().status == 200
    assert {received.body for received in stage.stable.requests} == {b"helloyou"}
    assert (
        len({tuple(h for h in received.headers if h[0] != b"x-request-id") for received in stage.stable.requests}) == 1
    )


def test_expect_is_answered_and_not_forwarded(stage: Stage) -> None:
    with stage.client() as client:
        assert client.ask(MODEL + b"Content-Length: 2\r\nExpect: 100-continue\r\n\r\n").status == 100
        assert client.ask(b"{}").status == 200
    assert stage.stable.requests[0].header(b"expect") is None


def test_expect_behind_another_request_is_answered_in_its_turn(stage: Stage) -> None:
    stage.stable.behave = after(0.05, says(http_answer(b"{}")))
    with stage.client() as client:
        assert client.ask(infer() + MODEL + b"Content-Length: 2\r\nExpect: 100-continue\r\n\r\n").status == 200
        assert client.answer().status == 100
        assert client.ask(b"{}").status == 200


def test_a_query_is_ignored(stage: Stage) -> None:
    with stage.client() as client:
        assert client.ask(infer().replace(b"/infer", b"/infer?a=/v2/repository/index")).status == 200
    assert stage.stable.requests[0].line == b"POST /v2/models/plain/versions/1/infer HTTP/1.1"


@pytest.mark.parametrize(
    "request_bytes",
    [
        infer(version="/versions/2"),
        infer(headers=b"X-Sluice-Release: plain/2\r\n"),
        infer(headers=b"X-Sluice-Release: 2\r\n"),
    ],
)
def test_a_release_can_be_pinned(stage: Stage, request_bytes: bytes) -> None:
    with stage.client() as client:
        assert client.ask(request_bytes).headers["x-sluice-release"] == "plain/2"
    assert stage.candidate.requests[0].line == b"POST /v2/models/plain/versions/2/infer HTTP/1.1"
    assert not stage.stable.requests


@pytest.mark.parametrize(
    "request_bytes",
    [
        infer("unknown"),
        infer(version="/versions/9"),
        infer(version="/versions/x"),
        infer(headers=b"X-Sluice-Release: plain/9\r\n"),
        infer(headers=b"X-Sluice-Release: half/2\r\n"),
        infer(headers=b"X-Sluice-Release: \r\n"),
        infer(headers=b"X-Sluice-Release: two\r\n"),
        get("/v2/models/unknown"),
    ],
)
def test_an_unknown_model_or_release_is_404_in_the_protocols_form(stage: Stage, request_bytes: bytes) -> None:
    with stage.client() as client:
        answer = client.ask(request_bytes)
        assert client.ask(infer()).status == 200
    assert answer.status == 404
    assert isinstance(answer.json()["error"], str)
    assert len(stage.stable.requests) == 1 and not stage.candidate.requests


def test_a_request_id_is_kept_or_made(stage: Stage) -> None:
    with stage.client() as client:
        kept = client.ask(infer(headers=b"X-Request-Id: my-id.7\r\n")).headers["x-request-id"]
        made = {client.ask(infer(headers=headers)).headers["x-request-id"] for headers in (
            b"", b"X-Request-Id: two words\r\n", b"X-Request-Id: " + b"x" * 129 + b"\r\n", b"X-Request-Id: \xff\r\n",
        )}  # fmt: skip
    assert kept == "my-id.7"
    assert len(made) == 4 and "my-id.7" not in made
    assert stage.stable.requests[0].header(b"x-request-id") == b"my-id.7"


def test_hop_by_hop_named_and_reserved_headers_stay_here(stage: Stage) -> None:
    headers = (
        b"Connection: close, X-Secret\r\nConnection: X-Other,\tX-Third\r\nX-Secret: 1\r\nX-Other: 2\r\nX-Third: 3\r\n"
        b"Keep-Alive: 5\r\nTE: trailers\r\nProxy-Authorization: x\r\nX-Sluice-Key: k\r\nX-Sluice-Fake: 1\r\n"
        b"Upgrade: h2c\r\nTraceparent: 00-a-b-01\r\nX-Kept: yes\r\n"
    )
    with stage.client() as client:
        answer = client.ask(infer(headers=headers))
        assert client.rest() == b""
    assert answer.headers["connection"] == "close"
    names = [name for name, _ in stage.stable.requests[0].headers]
    assert names == [b"host", b"traceparent", b"x-kept", b"content-length", b"accept-encoding", b"x-request-id"]
    assert stage.stable.requests[0].header(b"accept-encoding") == b"identity"


def test_the_servers_reserved_and_hop_by_hop_headers_stay_here_too(stage: Stage) -> None:
    told = b"X-Sluice-Release: evil/9\r\nX-Request-Id: evil\r\nKeep-Alive: 9\r\nX-Kept: yes\r\n"
    stage.stable.behave = says(http_answer(b"{}", headers=told))
    with stage.client() as client:
        answer = client.ask(infer())
    assert answer.headers["x-sluice-release"] == "plain/1"
    assert answer.headers["x-request-id"] != "evil"
    assert "keep-alive" not in answer.headers
    assert answer.headers["x-kept"] == "yes"


@pytest.mark.parametrize("body", [b"", b"hello", b"x" * 300_000])
def test_a_chunked_answer_is_passed_on(stage: Stage, body: bytes) -> None:
    stage.stable.behave = says(
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n" + chunked(*filter(None, [body]))
    )
    with stage.client() as client:
        assert client.ask(infer()).body == body
        assert client.ask(infer()).body == body
    assert len({received.connection for received in stage.stable.requests}) == 1


@pytest.mark.parametrize("size", [5, 300_000])
def test_an_answer_that_ends_with_its_connection_is_whole(stage: Stage, size: int) -> None:
    stage.stable.behave = says_then_closes(b"HTTP/1.1 200 OK\r\n\r\n" + b"y" * size)
    with stage.client() as client:
        assert client.ask(infer()).body == b"y" * size
        assert client.ask(infer()).status == 200


@pytest.mark.parametrize("size", [5, 300_000])
def test_an_http_1_0_client_is_answered_without_chunks_and_closed(stage: Stage, size: int) -> None:
    stage.stable.behave = says(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n" + chunked(b"z" * size))
    with stage.client() as client:
        client.send(b"POST /v2/models/plain/infer HTTP/1.0\r\nConnection: keep-alive\r\nContent-Length: 2\r\n\r\n{}")
        head, _, body = client.rest().partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 200") and b"transfer-encoding" not in head.lower()
    assert b"connection: close" in head
    assert body == b"z" * size


@pytest.mark.parametrize("path", ["/v2", "/v2/health/live", "/v2/health/ready", "/v2/models/plain/ready"])
def test_head_is_answered_like_get_without_the_body(stage: Stage, path: str) -> None:
    with stage.client() as client:
        whole = client.ask(get(path))
        client.send(get(path, method="HEAD"))
        head = client.answer(to_head=True)
        assert client.ask(get("/v2/health/live")).body == b"{}"
    assert (head.status, head.headers["content-length"]) == (whole.status, str(len(whole.body)))
    assert all(received.line.startswith(b"GET ") for received in stage.stable.requests)


def test_head_of_an_error_has_no_body_either(stage: Stage) -> None:
    with stage.client() as client:
        client.send(get("/v2/models/plain/infer", method="HEAD") + get("/nowhere", method="HEAD"))
        assert [client.answer(to_head=True).status, client.answer(to_head=True).status] == [405, 404]
        assert client.ask(infer()).status == 200


@pytest.mark.parametrize(
    ("method", "path", "allow"), [("OPTIONS", "/v2", "GET, HEAD"), ("GET", "/v2/models/plain/infer", "POST"),
                                  ("PUT", "/v1/feedback", "POST")],
)  # fmt: skip
def test_another_method_is_405_and_says_which_are_allowed(stage: Stage, method: str, path: str, allow: str) -> None:
    with stage.client() as client:
        answer = client.ask(get(path, method=method))
    assert (answer.status, answer.headers["allow"]) == (405, allow)


@pytest.mark.parametrize("path", ["/v2/models/plain", "/v2/models/plain/config", "/v2/models/plain/stats"])
def test_metadata_passes_through_to_stable(stage: Stage, path: str) -> None:
    with stage.client() as client:
        assert client.ask(get(path)).status == 200
    tail = path.removeprefix("/v2/models/plain").encode()
    assert stage.stable.requests[0].line == b"GET /v2/models/plain/versions/1%s HTTP/1.1" % tail


def test_the_body_of_a_get_never_reaches_a_server(stage: Stage) -> None:
    smuggled = get("/v2/repository/index", method="POST")
    with stage.client() as client:
        for _ in range(2):
            answer = client.ask(get("/v2/models/plain", b"Content-Length: %d\r\n" % len(smuggled)) + smuggled)
            assert answer.status == 200
    assert len(stage.stable.requests) == 2
    assert not any(b"repository" in raw for raw in stage.stable.raw)


def test_pipelined_requests_are_answered_in_order(stage: Stage) -> None:
    stage.stable.behave = echoes
    with stage.client() as client:
        client.send(b"".join(infer(body=b"%d" % n) + get("/v2/health/live") for n in range(10)))
        answers = [client.answer().body for _ in range(20)]
    assert answers == [part for n in range(10) for part in (b"%d" % n, b"{}")]


def test_a_thousand_pipelined_requests_are_answered_one_after_the_other(stage: Stage) -> None:
    with stage.client() as client:
        client.send(infer() * 1000)
        assert {client.answer().status for _ in range(1000)} == {200}
    assert len(stage.stable.requests) == 1000


def test_a_half_closed_client_is_answered_and_then_closed(stage: Stage) -> None:
    stage.stable.behave = after(0.1, says(http_answer(b"{}")))
    with stage.client() as client:
        client.send(infer() + infer())
        client.half_close()
        assert [client.answer().status, client.answer().headers["connection"]] == [200, "close"]
        assert client.rest() == b""


def test_an_upgrade_is_not_taken_up_and_its_body_is_still_the_body(stage: Stage) -> None:
    headers = b"Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: x\r\n"
    with stage.client() as client:
        client.send(infer(body=b"abc", headers=headers) + get("/v2/health/live", headers) + infer(body=b"d"))
        assert [client.answer().status for _ in range(3)] == [200, 200, 200]
    assert [received.body for received in stage.stable.requests] == [b"abc", b"d"]
    assert b"upgrade" not in stage.stable.requests[0].head.lower()


def test_twenty_megabytes_pass_both_ways(stage: Stage) -> None:
    stage.stable.behave = echoes
    body = bytes(range(256)) * 80_000
    with stage.client() as client:
        assert client.ask(infer(body=body)).body == body
        assert client.ask(infer(body=b"x")).body == b"x"


def test_a_sticky_key_decides_the_release(stage: Stage) -> None:
    with stage.client() as client:
        seen = {
            user: {
                client.ask(infer("half", headers=b"X-User: u%d\r\n" % user)).headers["x-sluice-release"] for _ in "ab"
            }
            for user in range(40)
        }
    assert all(len(releases) == 1 for releases in seen.values())
    assert {release for releases in seen.values() for release in releases} == {"half/1", "half/2"}


def test_generated_tokens_are_passed_on_as_they_come(stage: Stage) -> None:
    async def tokens(received: object, stream: object) -> None:
        await stream.send(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\none\r\n")  # type: ignore[attr-defined]
        await stream.reader.readexactly(1)  # type: ignore[attr-defined]

    stage.stable.behave = tokens
    with stage.client() as client:
        client.send(infer().replace(b"/infer", b"/generate_stream"))
        eventually(lambda: b"one" in client.sock.recv(65536))
        client.reset()
    stage.stable.close_connections()
