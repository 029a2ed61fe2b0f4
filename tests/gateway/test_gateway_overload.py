"""Too many requests at once, bodies and connections; and a candidate that only fails, stopped on the spot."""

import contextlib
import errno
import socket
import threading
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

from gateway.lanes import OPENS_AFTER, OPENS_UNPROVEN_AFTER, PROBE_S, Breaker
from tests.gateway.fakes import OK, FakeServer, LoopThread, after, hangs, http_answer, says
from tests.gateway.harness import Client, Gateway, eventually, get, infer, route, running, table

BROKEN = says(http_answer(b'{"error": "x"}', b"500 Internal Server Error"))


@pytest.fixture
def pair(loop_thread: LoopThread) -> Iterator[tuple[FakeServer, FakeServer]]:
    servers = FakeServer(loop_thread), FakeServer(loop_thread)
    yield servers
    for server in servers:
        server.stop()


def canary(stable: FakeServer, candidate: FakeServer, **more: object) -> dict[str, object]:
    servers = {1: [stable.address], 2: [candidate.address]}
    return table(route("m", servers, candidate={"release": 2, "weight": 1.0}, **more))


def ask_at_once(gateway: Gateway, number: int, model: str = "m") -> Counter[int]:
    """The statuses of this many requests, each on a connection of its own, sent together."""
    clients = [Client(gateway.address) for _ in range(number)]
    for client in clients:
        client.send(infer(model))
    statuses = Counter(client.answer().status for client in clients)
    for client in clients:
        client.sock.close()
    return statuses


# Room


def test_more_than_a_release_may_have_wait_and_are_then_refused(server: FakeServer, tmp_path: Path) -> None:
    settings = {"release_in_flight": 2, "release_waiting": 3, "wait_timeout_s": 5.0}
    server.behave = after(0.3, OK)
    with running(tmp_path, table(route("m", {1: [server.address]})), **settings) as gateway:
        assert ask_at_once(gateway, 9) == {200: 5, 503: 4}
        assert len({received.connection for received in server.requests}) == 2
        eventually(lambda: gateway.counted("m") == {"ok": 5, "shed": 4})
        with Client(gateway.address) as client:
            assert client.ask(infer("m")).status == 200


def test_who_waits_too_long_is_told_when_to_come_again(server: FakeServer, tmp_path: Path) -> None:
    settings = {"release_in_flight": 1, "wait_timeout_s": 0.2}
    server.behave = after(1.0, OK)
    with running(tmp_path, table(route("m", {1: [server.address]})), **settings) as gateway:
        first, second = Client(gateway.address), Client(gateway.address)
        with first, second:
            first.send(infer("m"))
            eventually(lambda: server.requests)
            began = time.monotonic()
            refused = second.ask(infer("m"))
            assert time.monotonic() - began < 0.7
            assert (refused.status, refused.headers["retry-after"]) == (503, "1")
            assert first.answer().status == 200
        assert len(server.requests) == 1


def test_who_goes_away_while_waiting_leaves_no_place_taken(server: FakeServer, tmp_path: Path) -> None:
    settings = {"release_in_flight": 1, "release_waiting": 2, "wait_timeout_s": 5.0}
    server.behave = after(0.5, OK)
    with running(tmp_path, table(route("m", {1: [server.address]})), **settings) as gateway:
        with Client(gateway.address) as first:
            first.send(infer("m"))
            eventually(lambda: server.requests)
            for _ in range(4):
                gone = Client(gateway.address)
                gone.send(infer("m"))
                time.sleep(0.02)
                gone.reset()
            with Client(gateway.address) as last:
                assert last.ask(infer("m")).status == 200
            assert first.answer().status == 200
        eventually(lambda: gateway.counted("m") == {"ok": 2, "client_gone": 4})
        assert len(server.requests) == 2


def test_a_candidate_without_room_is_answered_by_stable(pair: tuple[FakeServer, FakeServer], tmp_path: Path) -> None:
    stable, candidate = pair
    candidate.behave = after(0.5, OK)
    settings = {"release_in_flight": 3, "release_waiting": 0}
    with running(tmp_path, canary(stable, candidate), **settings) as gateway:
        assert ask_at_once(gateway, 6) == {200: 6}
        eventually(lambda: gateway.counted("m") == {"ok": 3, "unavailable": 3})
    assert (len(candidate.requests), len(stable.requests)) == (3, 3)


# The breaker


def test_a_candidate_that_only_fails_soon_gets_no_traffic(pair: tuple[FakeServer, FakeServer], tmp_path: Path) -> None:
    stable, candidate = pair
    candidate.behave = BROKEN
    with running(tmp_path, canary(stable, candidate)) as gateway, Client(gateway.address) as client:
        for _ in range(200):
            answer = client.ask(infer("m"))
            assert (answer.status, answer.headers["x-sluice-fallback"]) == (200, "m/2")
        assert OPENS_UNPROVEN_AFTER <= len(candidate.requests) <= OPENS_UNPROVEN_AFTER + 3
        eventually(lambda: sum(gateway.counted("m", release="2").values()) == 200)
        assert not gateway.counted("m", release="1")
        candidate.behave = OK
        eventually(lambda: "x-sluice-fallback" not in client.ask(infer("m")).headers)
        assert "x-sluice-fallback" not in client.ask(infer("m")).headers


def test_a_candidate_that_fell_silent_gets_no_more_traffic_within_a_second(
    pair: tuple[FakeServer, FakeServer], tmp_path: Path
) -> None:
    stable, candidate = pair
    candidate.behave = hangs
    with running(tmp_path, canary(stable, candidate, deadline_s=4.0)) as gateway:
        waiting = [Client(gateway.address) for _ in range(5)]
        for client in waiting:
            client.send(infer("m"))
        time.sleep(1.0)
        began = time.monotonic()
        with Client(gateway.address) as client:
            for _ in range(20):
                assert client.ask(infer("m")).headers["x-sluice-fallback"] == "m/2"
        assert time.monotonic() - began < 1.0
        assert len(candidate.requests) == 5
        assert [client.answer().status for client in waiting] == [200] * 5
        for client in waiting:
            client.sock.close()


def test_a_slow_candidate_is_not_silent_when_stable_is_as_slow(
    pair: tuple[FakeServer, FakeServer], tmp_path: Path
) -> None:
    stable, candidate = pair
    stable.behave = candidate.behave = after(1.2, OK)
    routes = table(
        route(
            "m", {1: [stable.address], 2: [candidate.address]}, candidate={"release": 2, "weight": 0.5},
            sticky_header="x-user",
        )
    )  # fmt: skip
    with running(tmp_path, routes) as gateway:
        for _ in range(2):
            clients = [Client(gateway.address) for _ in range(30)]
            for number, client in enumerate(clients):
                client.send(infer("m", headers=b"X-User: u%d\r\n" % number))
            assert not [1 for client in clients if "x-sluice-fallback" in client.answer().headers]
            for client in clients:
                client.sock.close()


def test_an_open_breaker_lets_one_request_try_now_and_then() -> None:
    breaker = Breaker()
    for _ in range(OPENS_UNPROVEN_AFTER - 1):
        assert not breaker.failed(0.0)
    assert breaker.lets_pass(0.0)
    assert breaker.failed(0.0)
    assert [breaker.lets_pass(at) for at in (0.0, PROBE_S - 0.01, PROBE_S, PROBE_S + 0.01)] == [
        False,
        False,
        True,
        False,
    ]
    assert not breaker.failed(PROBE_S)
    assert not breaker.lets_pass(2 * PROBE_S) and breaker.lets_pass(3 * PROBE_S)
    breaker.answered()
    assert all(breaker.lets_pass(3 * PROBE_S) for _ in range(10))


def test_who_answered_well_before_may_fail_more_often_in_a_row() -> None:
    breaker = Breaker()
    breaker.answered()
    assert not any(breaker.failed(0.0) for _ in range(OPENS_AFTER - 1))
    assert breaker.lets_pass(0.0)
    assert breaker.failed(0.0)
    assert not breaker.lets_pass(0.0)


# Deadlines


def test_a_client_may_shorten_its_deadline_and_not_lengthen_it(server: FakeServer, tmp_path: Path) -> None:
    server.behave = after(1.5, OK)
    with running(tmp_path, table(route("m", {1: [server.address]}, deadline_s=1.0))) as gateway:
        for asked_ms, least_s, most_s in ((b"200", 0.2, 0.6), (b"60000", 1.0, 1.4)):
            with Client(gateway.address) as client:
                began = time.monotonic()
                answer = client.ask(infer("m", headers=b"X-Sluice-Deadline-Ms: %s\r\n" % asked_ms))
                assert answer.status == 504 and least_s <= time.monotonic() - began < most_s
        for wrong in (b"0", b"-1", b"1.5", b"soon", b"", b"9" * 30):
            with Client(gateway.address) as client:
                answer = client.ask(infer("m", headers=b"X-Sluice-Deadline-Ms: %s\r\n" % wrong))
                assert answer.status == 400 and "milliseconds" in answer.json()["error"]
    assert not any(received.header(b"x-sluice-deadline-ms") for received in server.requests)


# Bytes and connections


def test_bodies_beyond_what_a_worker_may_hold_are_refused(server: FakeServer, tmp_path: Path) -> None:
    settings = {"held_bytes": 8_000_000}
    with running(tmp_path, table(route("m", {1: [server.address]})), **settings) as gateway:
        slow = [Client(gateway.address) for _ in range(4)]
        for client in slow:
            client.send(infer("m", b"x" * 2_000_000)[:1_900_000])
        with Client(gateway.address) as client:
            refused = eventually(lambda: _refused(gateway))
            assert refused.headers["retry-after"] == "1" and refused.headers["connection"] == "close"
            assert client.ask(get("/v2/health/ready")).status == 200
        for client in slow:
            client.sock.close()
        eventually(lambda: _refused(gateway) is None)


def _refused(gateway: Gateway) -> object:
    with Client(gateway.address) as client:
        answer = client.ask(infer("m", b"x" * 1_000_000))
        return answer if answer.status == 503 else None


def test_a_thousand_large_bodies_stay_within_the_ledger(server: FakeServer, tmp_path: Path) -> None:
    limit = 100_000_000
    with running(tmp_path, table(route("m", {1: [server.address]})), held_bytes=limit) as gateway:
        pid = gateway.worker_pids()[0]
        before = _peak_bytes(pid)
        threads = [threading.Thread(target=_upload, args=(gateway, 64 * 2**20, 20_000_000)) for _ in range(40)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert _peak_bytes(pid) - before < 1.3 * limit
        with Client(gateway.address) as client:
            assert client.ask(infer("m")).status == 200


@pytest.mark.parametrize(
    "chunks",
    [
        (b"4000\r\n" + b"x" * 16384 + b"\r\n" + (b"1;" + b"a" * 250 + b"\r\nx\r\n") * 900) * 65,
        b"10\r\nxxxxxxxxxxxxxxxx\r\n" * 65_000,
    ],
    ids=["little in much", "many small ones"],
)
def test_chunks_hold_no_more_than_they_are_accounted_for(server: FakeServer, tmp_path: Path, chunks: bytes) -> None:
    limit = 30_000_000
    head = b"POST /v2/models/m/infer HTTP/1.1\r\nHost: gw\r\nTransfer-Encoding: chunked\r\n\r\n"
    with running(tmp_path, table(route("m", {1: [server.address]})), held_bytes=limit) as gateway:
        pid = gateway.worker_pids()[0]
        before = _peak_bytes(pid)
        clients = [Client(gateway.address) for _ in range(25)]
        for client in clients:
            with contextlib.suppress(OSError):
                client.send(head + chunks)
        eventually(lambda: gateway.metric("sluice_held_bytes") > limit / 2)
        assert _peak_bytes(pid) - before < 1.3 * limit
        for client in clients:
            client.sock.close()


def _upload(gateway: Gateway, size: int, sent: int) -> None:
    """Send part of a large body, unless it is refused."""
    with Client(gateway.address) as client:
        try:
            client.send(infer("m", b"x" * size)[:sent])
            time.sleep(0.3)
        except (BrokenPipeError, ConnectionResetError):
            pass


def _peak_bytes(pid: int) -> int:
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return int(next(line for line in lines if line.startswith("VmHWM")).split()[1]) * 1024


def test_too_many_connections_are_told_so_and_the_others_serve_on(server: FakeServer, tmp_path: Path) -> None:
    with running(tmp_path, table(route("m", {1: [server.address]})), connections=20) as gateway:
        clients = [Client(gateway.address) for _ in range(20)]
        assert {client.ask(infer("m")).status for client in clients} == {200}
        with Client(gateway.address) as one_more:
            refused = one_more.answer()
            assert (refused.status, refused.headers["connection"]) == (503, "close")
        assert {client.ask(infer("m")).status for client in clients} == {200}
        clients.pop().sock.close()
        eventually(lambda: _is_let_in(gateway))
        for client in clients:
            client.sock.close()


def _is_let_in(gateway: Gateway) -> bool:
    with Client(gateway.address) as client:
        return client.ask(infer("m")).status == 200


def test_a_connection_ends_after_its_requests_and_its_last_answer_says_so(server: FakeServer, tmp_path: Path) -> None:
    routes = table(route("m", {1: [server.address]}))
    with running(tmp_path, routes, requests_per_connection=3) as gateway, Client(gateway.address) as client:
        said = [client.ask(infer("m")).headers.get("connection") for _ in range(3)]
        assert said == [None, None, "close"]
        assert client.rest() == b""


@pytest.mark.parametrize("rest", ["nothing more", "a trickle"])
def test_a_body_that_hardly_comes_is_cut(server: FakeServer, tmp_path: Path, rest: str) -> None:
    settings = {"body_read_timeout_s": 1.0, "body_bytes_per_s": 1000}
    routes = table(route("m", {1: [server.address]}))
    with running(tmp_path, routes, **settings) as gateway, Client(gateway.address) as client:
        began = time.monotonic()
        client.send(infer("m", b"x" * 100_000)[:500])
        while rest == "a trickle" and time.monotonic() - began < 9.0:
            try:
                client.send(b"x")
            except (BrokenPipeError, ConnectionResetError):
                break
            time.sleep(0.1)
        took = time.monotonic() - began
        if rest == "nothing more":
            assert client.answer().status == 408 and 0.9 < time.monotonic() - began < 3.0
        else:
            assert 5.0 < took < 8.5
    assert not server.requests


@pytest.mark.parametrize("half_closes", [False, True])
def test_who_leaves_answers_unread_is_cut_though_his_requests_are_over(
    server: FakeServer, tmp_path: Path, half_closes: bool
) -> None:
    """Each answer is whole at the gateway, and only its client's buffers are full."""
    server.behave = says(http_answer(b"x" * 30_000))
    settings = {"write_timeout_s": 1.0, "drain_timeout_s": 1.0}
    with running(tmp_path, table(route("m", {1: [server.address]})), **settings) as gateway:
        with Client(gateway.address, receive_bytes=4096) as client:
            client.send(infer("m") * 400)
            began = time.monotonic()
            if half_closes:
                client.half_close()
            eventually(lambda: gateway.metric("sluice_held_bytes") > 0)
            eventually(lambda: gateway.metric("sluice_connections") == 0, 8.0)
            assert time.monotonic() - began < 5.0
        eventually(lambda: gateway.metric("sluice_held_bytes") == 0)


def test_who_reads_too_slowly_is_reset_and_neither_side_keeps_his_answer(server: FakeServer, tmp_path: Path) -> None:
    """The kernel would keep some megabytes for him, and go on after the gateway closed."""
    server.behave = says(http_answer(b"x" * 1_500_000))
    routes = table(route("m", {1: [server.address]}))
    with running(tmp_path, routes, write_timeout_s=1.0) as gateway:
        slow = [Client(gateway.address, receive_bytes=4096) for _ in range(20)]
        for client in slow:
            client.send(infer("m"))
        eventually(lambda: gateway.metric("sluice_connections") == 20)
        eventually(lambda: gateway.metric("sluice_connections") == 0, 5.0)
        for client in slow:
            assert client.sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR) == errno.ECONNRESET
            client.sock.close()
        eventually(lambda: gateway.metric("sluice_held_bytes") == 0)


def test_a_model_may_take_smaller_bodies_than_the_gateway(server: FakeServer, tmp_path: Path) -> None:
    routes = table(route("m", {1: [server.address]}, body_bytes=1000))
    with running(tmp_path, routes) as gateway, Client(gateway.address) as client:
        assert [client.ask(infer("m", b"x" * size)).status for size in (1000, 1001, 1000)] == [200, 413, 200]
    assert len(server.requests) == 2
