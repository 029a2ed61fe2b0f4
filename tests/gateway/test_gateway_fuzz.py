"""A short run of the fuzzer with fixed seeds, and proofs that it would see what it looks for."""

from random import Random

import pytest

from gateway.config import GatewayConfig
from loadtests.fuzz import __main__ as command
from loadtests.fuzz.case import CANARY, post, sized
from loadtests.fuzz.ends import ClientEnd
from loadtests.fuzz.grammar import Grammar
from loadtests.fuzz.judging import answering
from loadtests.fuzz.oracle import WrongError, answers_of, answers_to, check_canonical, requests_of
from loadtests.fuzz.stage import Stage
from loadtests.fuzz.targets import INPUTS, TARGETS, WEIGHTS, run_batch

SEEDS = range(1_000_000, 1_000_200)


@pytest.mark.parametrize("start", range(SEEDS.start, SEEDS.stop, 20))
def test_a_short_run_finds_nothing(start: int) -> None:
    for seed in range(start, start + 20):
        result = run_batch(seed)
        assert result.failed is None, f"python -m loadtests.fuzz --batch {seed}\n{result.failed}"
        assert result.inputs == INPUTS


def test_the_same_seed_makes_the_same_inputs() -> None:
    assert len(TARGETS) == len(WEIGHTS)
    for target in TARGETS:
        assert list(target(Random(7), 20)) == list(target(Random(7), 20))


def test_about_a_third_of_the_inputs_is_valid_and_all_of_them_are_taken() -> None:
    grammar = Grammar(Random(3))
    stage = answering()
    valid = 0
    with stage.running():
        for _ in range(300):
            data, is_valid = grammar.requests()
            valid += is_valid
            client = stage.client()
            for piece in grammar.pieces(data):
                client.send(piece)
                stage.run()
            answers = answers_to([one.head.method for one in client.handled], bytes(client.received), client.has_ended)
            if is_valid and not any(one.status == 503 for one in answers):
                assert client.handled
                assert len([one for one in answers if one.status >= 200]) == len(client.handled)
            stage.settle([client])
            stage.clients.clear()
    assert 60 < valid < 140


def test_a_batch_can_be_had_again(capsys: pytest.CaptureFixture[str]) -> None:
    assert command.main(["--batch", "5"]) == 0
    assert "It holds." in capsys.readouterr().out


def test_a_run_over_processes_tells_its_speed_and_memory(capsys: pytest.CaptureFixture[str]) -> None:
    assert command.main(["--inputs", "400", "--processes", "2", "--seed", "3000000"]) == 0
    shown = capsys.readouterr().out
    assert "400 inputs" in shown and "0 failed" in shown and "MB" in shown


# Would it see a fault?


def after(stage: Stage, data: bytes) -> ClientEnd:
    client = stage.client()
    client.send(data)
    stage.run()
    return client


@pytest.mark.parametrize("more", [
    b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n", b"HTTP/1.1 100 Continue\r\n\r\n" * 3, b"x",
    b"HTTP/1.1 200 OK\r\ncontent-length: 1\r\ncontent-length: 1\r\n\r\nx", b"HTTP/1.1 200 OK\r\n\r\n",
    b"HTTP/1.1 400 Bad\r\nconnection: close\r\ncontent-length: 0\r\n\r\n" * 2,
])  # fmt: skip
def test_an_answer_too_many_would_be_seen(more: bytes) -> None:
    stage = answering()
    with stage.running():
        client = after(stage, sized(b"5"))
        stage.check_client(client)
        client.received += more
        with pytest.raises(WrongError):
            stage.check_client(client)


def test_answers_in_the_wrong_order_would_be_seen() -> None:
    stage = answering()
    with stage.running():
        client = after(stage, post(b"X-Request-Id: a\r\n") + post(b"X-Request-Id: b\r\n"))
        stage.check_client(client)
        first, second = bytes(client.received).split(b"{}")[:2]
        client.received[:] = second + b"{}" + first + b"{}"
        with pytest.raises(WrongError):
            stage.check_client(client)


def test_a_request_that_llhttp_does_not_read_would_be_seen() -> None:
    stage = answering()
    with stage.running():
        client = after(stage, sized(b"5") + CANARY)
        client.sent[:] = [b"".join(client.sent).replace(b"Content-Length: 5", b"Content-Length: 6")]
        with pytest.raises(WrongError):
            stage.check_client(client)


def test_what_is_held_at_rest_would_be_seen() -> None:
    stage = Stage(GatewayConfig())
    with stage.running():
        client = after(stage, sized(b"5"))
        with pytest.raises(WrongError, match="held at rest"):
            stage.check_rest()
        stage.settle([client])
        stage.memory.held_bytes += 1
        with pytest.raises(WrongError, match="bytes"):
            stage.check_rest()


HEAD = b"POST /v2/models/m/versions/1/infer HTTP/1.1\r\nhost: s:1\r\ncontent-length: 5\r\nx-request-id: a"


@pytest.mark.parametrize("wrong", [
    HEAD.replace(b"POST", b"PUT"), HEAD.replace(b"/1/", b"/01/"), HEAD.replace(b"host: s:1", b"host: evil"),
    HEAD.replace(b"host: ", b"Host: "), HEAD.replace(b"host: ", b"host:"), HEAD + b"\r\ncontent-length: 5",
    HEAD + b"\r\ntransfer-encoding: chunked", HEAD + b"\r\nconnection: close", HEAD + b"\r\nx-sluice-key: k",
    HEAD.replace(b": 5", b": 05"), HEAD.replace(b"content-length: 5\r\n", b""), HEAD + b"\r\nx: a\x00",
    HEAD + b"\r\n x: a",
    HEAD.replace(b"POST", b"GET"), HEAD + b"\r\nx: a ", HEAD.replace(b"\r\nx-request-id: a", b""),
])  # fmt: skip
def test_a_request_that_is_not_canonical_would_be_seen(wrong: bytes) -> None:
    check_canonical(HEAD, b"s:1")
    with pytest.raises(WrongError):
        check_canonical(wrong, b"s:1")


def test_llhttp_is_heard_through_upgrades_closes_and_trailers() -> None:
    upgrade = post(b"Connection: upgrade\r\nUpgrade: x\r\nContent-Length: 3\r\n", b"abc")
    trailer = post(b"Transfer-Encoding: chunked\t\r\n", b"3\r\nabc\r\n0\r\nConnection: close\r\n\r\n")
    read = requests_of(upgrade + trailer + CANARY)
    assert [one.body for one in read] == [b"abc", b"abc", b""]
    assert [one.body for one in answers_of(b"HTTP/1.1 100 X\r\n\r\nHTTP/1.1 200 X\r\n\r\nab")] == [b"", b"ab"]
