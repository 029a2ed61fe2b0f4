"""Servers that answer ambiguously, twice, too early or not to the end: clients get what is whole and clear, or 502."""

from collections.abc import Iterator, Sequence
from itertools import pairwise
from typing import Any

import pytest

from gateway.config import GatewayConfig
from loadtests.fuzz.answer_case import OK, AnswerCase, Broken, Ending, answer_cases
from loadtests.fuzz.answer_judging import judge_answer
from loadtests.fuzz.case import CANARY
from loadtests.fuzz.case import sized as request_of
from loadtests.fuzz.ends import ClientEnd, Got, ServerEnd
from loadtests.fuzz.judging import byte_by_byte, in_two, whole
from loadtests.fuzz.oracle import Answered, answers_to
from loadtests.fuzz.stage import CANDIDATE, STABLE, Stage
from tests.gateway.conftest import Stage as RealStage
from tests.gateway.fakes import says, says_then_closes
from tests.gateway.harness import infer

CASES = answer_cases()
SMALL_BYTES = 1000
GOOD = b"HTTP/1.1 200 OK\r\ncontent-length: 4\r\n\r\ngood"


def test_there_are_many_cases() -> None:
    assert len(CASES) > 200
    assert len({case.name for case in CASES}) == len(CASES)


def feeds(case: AnswerCase) -> Iterator[Sequence[bytes]]:
    yield whole(case.data)
    yield byte_by_byte(case.data) if len(case.data) < 7_000 else [case.data[:7_000], case.data[7_000:]]
    if len(case.data) < SMALL_BYTES:
        yield from in_two(case.data)


@pytest.mark.parametrize("start", range(0, len(CASES), 20))
def test_however_an_answer_is_cut_it_is_the_same(start: int) -> None:
    for case in CASES[start : start + 20]:
        for pieces in feeds(case):
            judge_answer(case, pieces)


@pytest.mark.parametrize("model", [b"plain", b"canary"])
@pytest.mark.parametrize("uses", [0, 1, 2])
def test_releases_and_kept_connections_make_no_difference(model: bytes, uses: int) -> None:
    for case in CASES:
        if case.data or not uses:  # A kept connection that closes without a byte is stale, which has tests of its own.
            judge_answer(case, whole(case.data), model, uses)
            judge_answer(case, [*byte_by_byte(case.data)[:300], case.data[300:]], model, uses)


@pytest.mark.parametrize(
    "case", [case for case in CASES if isinstance(case.verdict, Broken)], ids=lambda case: case.name
)
def test_a_broken_answer_over_real_sockets_is_502(stage: RealStage, case: AnswerCase) -> None:
    ends = case.ending is not Ending.OPEN
    stage.stable.behave = says_then_closes(case.data, case.ending is Ending.RST) if ends else says(case.data)
    with stage.client() as client:
        answer = client.ask(infer())
        assert (answer.status, "x-sluice-release" in answer.headers) == (502, True)
        stage.stable.behave = says(GOOD)
        assert client.ask(infer()).body == b"good"


# What a single answer's bytes cannot show


class Play:
    """A client's requests to `plain`; stable's connections are played by hand."""

    def __init__(self, **settings: Any) -> None:
        self.stage = Stage(GatewayConfig(**settings))
        self.ends: list[ServerEnd] = []
        self.began: list[ServerEnd] = []
        stable = self.stage.servers[STABLE]
        stable.answer = lambda end, got: self.ends.append(end)
        stable.begun = self.began.append

    def client(self, data: bytes) -> ClientEnd:
        client = self.stage.client()
        self.ask(client, data)
        return client

    def ask(self, client: ClientEnd, data: bytes) -> None:
        client.send(data)
        self.stage.run()

    def say(self, data: bytes, end: ServerEnd | None = None) -> None:
        (end or self.ends[-1]).wire.feed(data)
        self.stage.run()

    def answers(self, client: ClientEnd) -> list[tuple[int, bytes]]:
        self.stage.check_errors()
        self.stage.check_client(client)
        methods = [one.head.method for one in client.handled]
        found: list[Answered] = answers_to(methods, bytes(client.received), client.has_ended)
        return [(one.status, one.body) for one in found]


@pytest.fixture
def play() -> Iterator[Play]:
    play = Play()
    with play.stage.running():
        yield play
        play.stage.settle(list(play.stage.clients.values()))


REQUEST = request_of(b"5")


@pytest.mark.parametrize("late", [b"x", GOOD, b"\r\n", b"HTTP/1.1 408 Timeout\r\n\r\n", b"\x00" * 100_000])
def test_what_a_server_says_unasked_ends_its_connection(play: Play, late: bytes) -> None:
    client = play.client(REQUEST)
    play.say(GOOD)
    play.say(late)
    play.ask(client, REQUEST)
    assert play.ends[0].is_closed and play.ends[1] is not play.ends[0]
    play.say(GOOD)
    assert play.answers(client) == [(200, b"good")] * 2


def test_a_second_answer_behind_the_first_goes_to_nobody(play: Play) -> None:
    first, second = play.client(REQUEST), play.client(REQUEST)
    play.say(GOOD + GOOD.replace(b"good", b"evil"), play.ends[0])
    assert play.answers(first) == [(200, b"good")]
    assert not second.received
    play.say(GOOD, play.ends[1])
    assert play.answers(second) == [(200, b"good")]
    assert play.ends[0].is_closed and not play.ends[1].is_closed


def test_a_server_that_speaks_before_it_was_asked_is_not_listened_to(play: Play) -> None:
    client = play.stage.client()
    client.send(REQUEST)
    play.stage.loop.run()
    end = play.stage.take_call(play.stage.dials[0])
    assert end is not None
    end.wire.feed(GOOD)
    play.stage.run()
    assert [status for status, _ in play.answers(client)] == [502]
    assert end.is_closed


@pytest.mark.parametrize(
    ("answer", "status"),
    [(GOOD, 200), (GOOD.replace(b"200 OK", b"413 Large"), 413), (b"HTTP/1.1 100 Continue\r\n\r\n" + GOOD, 200),
     (OK + b"Transfer-Encoding: chunked\r\n\r\n4\r\ngood\r\n0\r\n\r\n", 200)],
)  # fmt: skip
@pytest.mark.parametrize("reads", [0, 100, 50_000, 150_000])
def test_an_answer_before_the_whole_request_was_read_ends_its_connection(
    play: Play, answer: bytes, status: int, reads: int
) -> None:
    body = b"x" * 200_000
    client = play.stage.client()
    client.send(b"POST /v2/models/plain/infer HTTP/1.1\r\nHost: gw\r\nContent-Length: %d\r\n\r\n" % len(body) + body)
    play.stage.loop.run()
    end = _taken(play, reads)
    end.wire.feed(answer)
    play.stage.run()
    assert play.answers(client) == [(status, b"good")]
    assert end.is_closed
    play.ask(client, REQUEST)
    play.say(GOOD)
    assert play.answers(client)[1] == (200, b"good")
    assert not end.requests  # Not one whole request came of it.


def _taken(play: Play, room: int) -> ServerEnd:
    """The server takes the connection, and reads no more than this."""
    end = play.stage.take_call(play.stage.dials[0])
    assert end is not None
    end.wire.room = room
    play.stage.run()
    return end


@pytest.mark.parametrize("answer", [
    GOOD, b"HTTP/1.1 204 X\r\n\r\n", OK + b"Transfer-Encoding: chunked\r\n\r\n4\r\ngood\r\n0\r\n\r\n",
    OK + b"Content-Length: 100000\r\n\r\n" + b"x" * 100_000,
    OK + b"Transfer-Encoding: chunked\r\n\r\n186A0\r\n" + b"x" * 100_000 + b"\r\n0\r\n\r\n",
])  # fmt: skip
@pytest.mark.parametrize("cut", [1, 30, 5_000, 300_000])
def test_the_body_of_an_answer_to_head_stays_here(play: Play, answer: bytes, cut: int) -> None:
    client = play.client(CANARY.replace(b"GET", b"HEAD") + REQUEST)
    for at in range(0, len(answer), cut):
        play.say(answer[at : at + cut])
    play.say(GOOD)
    assert [body for _, body in play.answers(client)] == [b"", b"good"]
    assert len({id(end) for end in play.ends}) == 1  # Of a whole answer to GET, which was asked for.


def test_answers_to_many_clients_are_not_mixed_up_when_connections_break(play: Play) -> None:
    """Every third answer is odd in another way; each client gets its own or an error, never another's."""
    odd = [case for case in CASES if len(case.data) < 5_000]
    clients = [play.client(request_of(b"5", b"%05d" % number)) for number in range(len(odd))]
    ends = list(play.ends)
    for number, (end, case) in enumerate(zip(ends, odd, strict=True)):
        own = b"HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\n%05d" % number
        play.say(case.data if number % 3 == 0 else own, end)
        if number % 3 == 0:
            end.wire.feed_eof()
            play.stage.run()
    for number, client in enumerate(clients):
        if number % 3:
            assert play.answers(client) == [(200, b"%05d" % number)]
    assert all(one is not other for one, other in pairwise(ends))


def test_a_flood_of_interim_answers_is_no_answer(play: Play) -> None:
    client = play.client(REQUEST)
    for _ in range(33):
        play.say(b"HTTP/1.1 100 Continue\r\n\r\n")
    assert [status for status, _ in play.answers(client)] == [502]
    assert play.ends[0].is_closed


@pytest.mark.parametrize(
    "part", [b"", b"HTTP/1.1 2", OK + b"Content-Length: 5\r\n\r\nhe", b"HTTP/1.1 100 Continue\r\n\r\n"]
)
def test_a_server_that_stops_inside_its_answer_is_504_and_its_connection_closed(play: Play, part: bytes) -> None:
    client = play.client(REQUEST)
    play.say(part)
    play.stage.pass_time(10.1)
    play.stage.run()
    assert [status for status, _ in play.answers(client)] == [504]
    play.say(b"llo" + GOOD)
    assert [status for status, _ in play.answers(client)] == [504]
    assert play.ends[0].is_closed


def test_a_candidates_answer_that_comes_after_its_fallback_goes_to_nobody() -> None:
    stage = Stage(GatewayConfig())
    candidate: list[ServerEnd] = []

    def answer(end: ServerEnd, got: Got) -> None:
        stage.loop.call_soon(end.wire.feed, GOOD)

    stage.servers[STABLE].answer = answer
    stage.servers[CANDIDATE].answer = lambda end, got: candidate.append(end)
    with stage.running():
        client = stage.client()
        client.send(REQUEST.replace(b"plain", b"canary"))
        stage.run()
        assert not client.received
        stage.pass_time(1.1)
        stage.run()
        candidate[0].wire.feed(GOOD.replace(b"good", b"late"))
        stage.run()
        assert client.received.count(b"HTTP/1.1") == 1 and client.received.endswith(b"good")
        assert candidate[0].is_closed
        stage.settle([client])
