"""What is fuzzed: the client's side of the wire, the servers' side, and whole exchanges with all that may happen.

A batch is a stage that takes many inputs one after the other, all from one seed: the same seed is the same batch.
"""

import random as global_random
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from random import Random

from gateway.config import GatewayConfig
from loadtests.fuzz.driver import NARROW, NEVER, REFUSE, TAKE, Act, Driver, Piece, Speaker
from loadtests.fuzz.ends import ClientEnd, Got, ServerEnd
from loadtests.fuzz.grammar import Grammar
from loadtests.fuzz.judging import answering
from loadtests.fuzz.oracle import Answered, Read, WrongError, answers_of, answers_to, is_same
from loadtests.fuzz.stage import ROUTES, STABLE, Stage

INPUTS = 100
"""In a batch."""
STEPS_MOST = 5_000
_MODELS = [route.model for route in ROUTES]
_LIMITS: tuple[dict[str, int], ...] = (
    {},
    {"body_bytes": 50_000, "head_bytes": 700, "head_fields": 8, "request_line_bytes": 80, "field_bytes": 200},
    {"release_in_flight": 1, "release_waiting": 1, "mirror_in_flight": 1, "connections": 2},
    {"release_in_flight": 2, "requests_per_connection": 2, "mirror_bytes": 200, "body_chunks": 3},
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Failed:
    """What went wrong: the batch's seed, the input's number in it, what it was, and what must have held."""

    seed: int
    number: int
    input: str
    text: str


@dataclass(frozen=True, slots=True)
class Result:
    """One batch."""

    seed: int
    inputs: int
    failed: Failed | None


Batch = Iterator[str]
"""Runs one input at each step, and tells what the next one is before it is run."""


def run_batch(seed: int, inputs: int = INPUTS) -> Result:
    """Run the batch of this seed; the first that fails ends it."""
    random = Random(seed)
    global_random.seed(seed)  # Which the gateway picks servers by.
    target = random.choices(TARGETS, WEIGHTS)[0]
    number, current = 0, "the first input"
    try:
        for shown in target(random, inputs):
            number, current = number + 1, shown
    except (AssertionError, Exception) as exc:
        return Result(seed, number, Failed(seed, number, current, f"{type(exc).__name__}: {exc}"))
    return Result(seed, inputs, None)


def _config(random: Random) -> GatewayConfig:
    return GatewayConfig(workers=1, **random.choice(_LIMITS))  # type: ignore[arg-type]


# The client's side


def fuzz_requests(random: Random, inputs: int) -> Batch:
    """Streams of requests: what is taken is what llhttp reads, however it is cut, and one canonical request each."""
    grammar = Grammar(random)
    config = _config(random)
    is_usual = config == GatewayConfig(workers=1)
    stage = answering(config)
    with stage.running():
        for _ in range(inputs):
            data, is_valid = grammar.requests()
            yield repr(data)
            taken = _taken(_sent(stage, grammar, data, random))
            if is_usual and is_valid and not taken:
                raise WrongError("a valid request was not taken")
            if is_usual and random.random() < 0.2:
                again = _taken(_sent(stage, grammar, data, random))
                if again != taken:
                    raise WrongError(f"cut in another way it is {again!r}, not {taken!r}")
            stage.servers[STABLE].requests.clear()


def _sent(stage: Stage, grammar: Grammar, data: bytes, random: Random) -> ClientEnd:
    client = stage.client()
    for piece in grammar.pieces(data):
        client.send(piece)
        if random.random() < 0.8:
            stage.run()
    stage.run()
    stage.check_errors()
    if random.random() < 0.1:
        client.half_close()
        stage.run()
    stage.settle([client])
    stage.clients.clear()
    return client


def _taken(client: ClientEnd) -> list[tuple[bytes, bytes, bytes]]:
    return [(one.head.method, one.head.target, b"".join(one.body)) for one in client.handled]


# The servers' side


def fuzz_answers(random: Random, inputs: int) -> Batch:
    """Streams of answers: what reaches the client is what llhttp reads first; the next request gets its own answer."""
    grammar = Grammar(random)
    stage = Stage(_config(random), samples=1_000_000)
    odd: list[ServerEnd] = []

    def answer(end: ServerEnd, got: Got) -> None:
        if got.body == b"odd" and not odd:
            odd.append(end)
        else:
            stage.loop.call_soon(end.wire.feed, _GOOD % got.request_id)

    for server in stage.servers.values():
        server.answer = answer
    with stage.running():
        for _ in range(inputs):
            data, _ = grammar.answers()
            ending = random.choice((None, None, Act.FIN, Act.RST))
            yield f"{data!r}, then {ending}"
            odd.clear()
            _give_and_check(stage, grammar, data, ending, odd)


_GOOD = b"HTTP/1.1 200 OK\r\nx-echo: %s\r\ncontent-length: 4\r\n\r\ngood"
_REQUEST = b"POST /v2/models/%s/infer HTTP/1.1\r\nHost: gw\r\nContent-Length: %d\r\n\r\n%s"


def _give_and_check(stage: Stage, grammar: Grammar, data: bytes, ending: Act | None, odd: list[ServerEnd]) -> None:
    model = grammar.random.choice((b"plain", b"canary", b"pair", b"shadow"))
    client = stage.client()
    client.send(_REQUEST % (model, 3, b"odd"))
    stage.run()
    if odd:
        _say(stage, odd[0], [*grammar.pieces(data), ending])
    _time_out(stage, client)
    _check_passed(client, data, ending)
    other = stage.client()
    other.send(_REQUEST % (model, 5, b"after"))
    stage.run()
    _time_out(stage, other)
    stage.settle([client, other])
    stage.clients.clear()


def _say(stage: Stage, end: ServerEnd, pieces: list[Piece | None]) -> None:
    for piece in pieces:
        if piece is Act.FIN:
            end.wire.feed_eof()
        elif piece is Act.RST:
            end.wire.reset()
        elif isinstance(piece, bytes) and not end.wire.is_lost:
            end.wire.feed(piece)
        stage.run()


def _time_out(stage: Stage, client: ClientEnd) -> None:
    """Let the deadlines pass of what waits."""
    for _ in range(20):
        if not stage.dispatcher.in_flight and not stage.copies:
            return
        stage.pass_time(0.6)
        stage.run()
    raise WrongError("it waits for ever")


def _check_passed(client: ClientEnd, data: bytes, ending: Act | None) -> None:
    """Unless it is the gateway's own or stable's, an answer is what llhttp read first."""
    for one in answers_to([b"POST"], bytes(client.received), client.has_ended):
        is_own = one.status in (502, 503, 504) or one.fields.get(b"x-echo") is not None
        if one.status >= 200 and not is_own:
            first = next((read for read in answers_of(data) if int(read.method) >= 200), None)
            _check_one(one, first, data, ending)


def _check_one(one: Answered, first: Read | None, data: bytes, ending: Act | None) -> None:
    if first is None:
        raise WrongError(f"the client got {one!r}, llhttp reads no answer")
    status = int(first.method)
    if one.status != status and not (one.status == 400 and status == 500):
        raise WrongError(f"the client got {one!r}, llhttp reads {first!r}")
    body = first.body if one.is_whole and one.ends != "none" else first.body[: len(one.body)]
    if status < 400 and not is_same(one.body, body):
        raise WrongError(f"the client got {one!r}, llhttp reads {first!r}")
    has_end = any(name in (b"content-length", b"transfer-encoding") for name, _ in first.fields)
    if one.is_whole and has_end and status not in (204, 304) and not first.is_whole:
        raise WrongError(f"the client got a whole answer, llhttp reads a part: {one!r} {first!r}")


# Whole exchanges


def fuzz_exchanges(random: Random, inputs: int) -> Batch:
    """Several clients at once, servers of every kind, in a random order, with time passing and clients leaving."""
    grammar = Grammar(random)
    held_bytes = random.choice((1 << 30, 1 << 30, 100_000, 3_000))
    stage = Stage(_config(random), samples=random.choice((0, 1_000_000)), held_bytes=held_bytes)
    servers = _Servers(grammar)
    driver = Driver(stage, servers.answer, servers.take)
    done = 0
    with stage.running():
        while done < inputs:
            number = min(random.choice((1, 2, 3)), inputs - done)
            servers.is_good = random.random() < 0.2
            streams = [grammar.requests()[0] for _ in range(number)]
            yield from (repr(stream) for stream in streams)
            _play(driver, grammar, streams)
            done += number


class _Servers:
    """How servers take connections and answer, by chance."""

    def __init__(self, grammar: Grammar) -> None:
        self._grammar = grammar
        self.is_good = True

    def take(self, address: str) -> str:
        return TAKE if self.is_good else self._grammar.random.choice((TAKE, TAKE, TAKE, TAKE, REFUSE, NEVER, NARROW))

    def answer(self, end: ServerEnd, got: Got | None) -> list[Piece]:
        grammar, random = self._grammar, self._grammar.random
        if got is None:
            is_early = not self.is_good and random.random() < 0.03
            return list(grammar.pieces(grammar.answers()[0])) if is_early else []
        if self.is_good or random.random() < 0.4:
            return list(grammar.pieces(self._good(got)))
        pieces: list[Piece] = list(grammar.pieces(grammar.answers()[0]))
        if random.random() < 0.5:
            pieces.append(random.choice((Act.FIN, Act.RST)))
        if random.random() < 0.2:
            del pieces[random.randrange(len(pieces)) :]
        return pieces

    def _good(self, got: Got) -> bytes:
        random = self._grammar.random
        body = random.choice((b"", b"good", b"z" * 3_000, b"z" * random.choice((20_000, 70_000, 150_000))))
        head = b"HTTP/1.1 200 OK\r\nx-echo: %s\r\n" % got.request_id
        if random.random() < 0.5:
            return b"%scontent-length: %d\r\n\r\n%s" % (head, len(body), body)
        chunk = b"%x\r\n%s\r\n" % (len(body), body) if body else b""
        return b"%stransfer-encoding: chunked\r\n\r\n%s0\r\n\r\n" % (head, chunk)


def _play(driver: Driver, grammar: Grammar, streams: list[bytes]) -> None:
    random, stage = grammar.random, driver.stage
    driver.clients = [driver.client(grammar.pieces(stream), random.random() < 0.1) for stream in streams]
    for _ in range(STEPS_MOST):
        chance = random.random()
        if chance < 0.03:
            _disturb(driver, random.choice(driver.clients), random)
        elif chance < 0.05:
            stage.pass_time(random.choice((0.01, 0.3, 1.1, 3.0, 20.0)))
        elif chance < 0.055:
            stage.change({model for model in _MODELS if random.random() < 0.8})
        elif chance < 0.058:
            stage.drain(random.random() < 0.5)
        elif not driver.step(random.randrange):
            break
    else:
        raise WrongError(f"still busy after {STEPS_MOST} steps")
    stage.check_errors()
    _calm(driver)
    stage.drain(False)
    stage.settle([one.end for one in driver.clients])
    for server in stage.servers.values():
        server.requests.clear()
    stage.clients.clear()
    stage.change({*_MODELS})


def _disturb(driver: Driver, speaker: Speaker, random: Random) -> None:
    """Something that a client may do at any time."""
    wire = speaker.end.wire
    match random.randrange(5):
        case 0:
            driver.leave(speaker, by_reset=True)
        case 1:
            speaker.end.half_close()
            speaker.pieces.clear()
        case 2:
            wire.take(0)
        case 3:
            wire.take(random.choice((1_000, 50_000)))
        case _:
            wire.take(None)


def _calm(driver: Driver) -> None:
    """Nobody takes or says anything more; all time passes."""
    for pieces in driver.said.values():
        pieces.clear()
    for dial in list(driver.stage.dials):
        driver.stage.refuse_call(dial)
    for end in list(driver.ends.values()):
        end.wire.take(None)
        if end.is_closed:
            driver.forget(end)


TARGETS: tuple[Callable[[Random, int], Batch], ...] = (fuzz_requests, fuzz_answers, fuzz_exchanges)
WEIGHTS = (4, 3, 3)
