"""Slow readers on either side: what waits in a worker stays small, whatever the size of bodies and answers."""

from collections.abc import Iterator

import pytest

from gateway.config import GatewayConfig
from gateway.front import DRIPS_PER_TICK
from loadtests.fuzz.case import CANARY, in_chunks, sized
from loadtests.fuzz.driver import Driver, Piece
from loadtests.fuzz.ends import ClientEnd, Got, ServerEnd
from loadtests.fuzz.oracle import answers_to
from loadtests.fuzz.stage import Stage
from loadtests.fuzz.wire import HIGH_BYTES, READ_BYTES

PIECE = b"x" * 64_000
PIECES = 200
MOST_BYTES = 2 * HIGH_BYTES + READ_BYTES
"""What may wait for a client: up to the mark where it counts as slow, what is held back of an answer, and one read."""
OK = b"HTTP/1.1 200 OK\r\n"
ANSWERS: dict[str, list[Piece]] = {
    "a length": [OK + b"content-length: %d\r\n\r\n" % (PIECES * len(PIECE)), *[PIECE] * PIECES],
    "chunks": [OK + b"transfer-encoding: chunked\r\n\r\n", *[b"fa00\r\n" + PIECE + b"\r\n"] * PIECES, b"0\r\n\r\n"],
    "until close": [OK + b"\r\n", *[PIECE] * PIECES],
}
WAITS = sized(b"5", b"").replace(b"Host", b"Expect: 100-continue\r\nHost")
LIVE = b"GET /v2/health/live HTTP/1.1\r\nHost: gw\r\n\r\n"


@pytest.fixture
def stage() -> Iterator[Stage]:
    stage = Stage(GatewayConfig())
    with stage.running():
        yield stage
        stage.settle(list(stage.clients.values()))


def played(stage: Stage, answer: list[Piece]) -> Driver:
    def answering(end: ServerEnd, got: Got | None) -> list[Piece]:
        return [] if got is None else list(answer)

    return Driver(stage, answering)


def quietly(driver: Driver) -> None:
    while driver.step():
        pass


def unread(stage: Stage) -> int:
    """Bytes that servers sent and the gateway left to the kernel."""
    return sum(end.wire.unread for server in stage.servers.values() for end in server.ends)


@pytest.mark.parametrize("path", [b"/infer", b"/generate_stream"])
@pytest.mark.parametrize("how", ANSWERS)
def test_a_client_that_does_not_read_stops_its_server(stage: Stage, how: str, path: bytes) -> None:
    driver = played(stage, ANSWERS[how])
    client = driver.client([sized(b"5").replace(b"/infer", path)], is_slow=True).end
    quietly(driver)
    assert client.wire.most_unsent < MOST_BYTES
    assert unread(stage) > (PIECES - 10) * len(PIECE)
    for _ in range(PIECES + 20):
        client.wire.take(len(PIECE))
        quietly(driver)
        assert client.wire.most_unsent < MOST_BYTES
    if how == "until close":
        for end in list(driver.ends.values()):
            end.wire.feed_eof()
        quietly(driver)
    client.wire.take(None)
    quietly(driver)
    (answer,) = answers_to([b"POST"], bytes(client.received), client.has_ended)
    assert (answer.is_whole, len(answer.body)) == (True, PIECES * len(PIECE))


def filled(stage: Stage, least: int, most: int) -> ClientEnd:
    """A client that left so many bytes of small answers unread."""
    client = stage.client()
    client.wire.room = 0
    while client.wire.get_write_buffer_size() <= least:
        client.send(LIVE)
        stage.run()
    assert client.wire.get_write_buffer_size() <= most
    return client


def test_telling_a_client_to_go_on_does_not_hide_that_it_is_slow(stage: Stage) -> None:
    driver = played(stage, ANSWERS["a length"])
    client = filled(stage, HIGH_BYTES - 72, HIGH_BYTES)
    for piece in (WAITS, b"hello"):
        client.send(piece)
        quietly(driver)
    assert client.wire.most_unsent < MOST_BYTES
    assert unread(stage) > 0
    client.wire.take(None)
    quietly(driver)
    assert b"100 Continue" not in client.received
    assert len(client.received) > PIECES * len(PIECE)


def test_a_client_that_reads_is_told_to_go_on_behind_other_answers(stage: Stage) -> None:
    client = filled(stage, 1_000, 2_000)
    client.send(WAITS)
    client.wire.take(None)
    assert client.received.endswith(b"100 Continue\r\n\r\n")


def test_pipelined_requests_wait_while_their_answers_are_not_read(stage: Stage) -> None:
    driver = played(stage, [OK + b"content-length: 40000\r\n\r\n" + PIECE[:40_000]])
    client = driver.client([CANARY * 50], is_slow=True).end
    quietly(driver)
    assert len(client.handled) < 4 and client.wire.most_unsent < MOST_BYTES
    client.wire.take(None)
    quietly(driver)
    assert len(client.handled) == 50
    assert [one.status for one in answers_to([b"GET"] * 50, bytes(client.received), False)] == [200] * 50


def test_a_server_that_does_not_read_is_sent_one_body_and_no_copy_of_it(stage: Stage) -> None:
    body = PIECE * 10
    client = stage.client()
    client.send(sized(b"%d" % len(body), body))
    stage.loop.run()
    end = stage.take_call(stage.dials[0])
    assert end is not None
    end.wire.room = 1_000
    stage.run()
    assert stage.memory.held_bytes == len(body)
    assert end.wire.most_unsent < len(body) + 1_000
    client.leave(by_reset=True)
    stage.run()
    stage.pass_time(10.1)
    stage.run()
    assert stage.memory.held_bytes == 0 and end.is_closed


@pytest.mark.parametrize(
    "begin", [LIVE[:-4], sized(b"5", b"he"), in_chunks(b"5\r\nhe")], ids=["heads", "bodies", "chunks"]
)
def test_who_drips_waits_for_his_turn_when_thousands_do(stage: Stage, begin: bytes) -> None:
    """A tick reads so many pieces, whole requests are answered at once, and everybody is read on in the end."""
    dripping = [stage.client() for _ in range(5 * DRIPS_PER_TICK)]
    for client in dripping:
        client.send(begin)
        stage.loop.run()

    def reading() -> int:
        return sum(client.wire.is_reading() for client in dripping)

    assert reading() == DRIPS_PER_TICK
    usual = stage.client()
    usual.send(LIVE)
    stage.loop.run()
    assert len(answers_to([b"GET"], bytes(usual.received), False)) == 1
    stage.tick()
    assert reading() == DRIPS_PER_TICK + DRIPS_PER_TICK // 2
    stage.run()
    assert reading() == len(dripping)


def test_who_drips_and_leaves_is_forgotten(stage: Stage) -> None:
    for _ in range(2 * DRIPS_PER_TICK):
        client = stage.client()
        client.send(LIVE[:9])
        stage.loop.run()
        client.leave(by_reset=True)
    stage.run()
    assert not stage.front.connections and not list(stage.front.tick())
