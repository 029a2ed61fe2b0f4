"""Feeds a case to a stage in pieces, with a canary behind it, and judges what came of it at both sides."""

import json
from collections.abc import Iterable, Iterator, Sequence

from gateway.config import GatewayConfig
from loadtests.fuzz.case import CANARY, Answered, Case, Forwarded, Refused
from loadtests.fuzz.ends import ClientEnd, Got, ServerEnd
from loadtests.fuzz.oracle import Answered as Answer
from loadtests.fuzz.oracle import WrongError, answers_to
from loadtests.fuzz.stage import STABLE, Stage

CANARY_LINE = b"GET /v2/models/plain/versions/1 HTTP/1.1"


def answering(config: GatewayConfig | None = None) -> Stage:
    """A stage whose stable server answers each request at once, and says which."""
    stage = Stage(config or GatewayConfig())

    def answer(end: ServerEnd, got: Got) -> None:
        text = b"HTTP/1.1 200 OK\r\nx-echo: %s\r\ncontent-length: 2\r\n\r\n{}" % got.request_id
        stage.loop.call_soon(end.wire.feed, text)

    for server in stage.servers.values():
        server.answer = answer
    return stage


def judge(stage: Stage, case: Case, pieces: Iterable[bytes]) -> None:
    """Feed the pieces of the case and its canary; raise WrongError for anything but what the case asks for."""
    requests = stage.servers[STABLE].requests
    requests.clear()
    client = stage.client()
    for piece in pieces:
        client.send(piece)
        stage.run()
    stage.check_errors()
    stage.check_client(client)
    answers = answers_to([one.head.method for one in client.handled], bytes(client.received), client.has_ended)
    answers = [one for one in answers if one.status != 100]
    verdict = case.verdict
    if isinstance(verdict, Refused):
        _check_refused(client, answers, requests, verdict)
    else:
        _check_answers(client, answers, requests, verdict)
    for one in answers:
        if b"SeCrEt" in one.body and one.status != 404:
            raise WrongError(f"the answer tells what was asked: {one!r}")
    client.leave(by_reset=False)
    stage.run()
    stage.check_rest()
    stage.clients.clear()


def _check_refused(client: ClientEnd, answers: list[Answer], requests: list[Got], verdict: Refused) -> None:
    if requests or client.handled:
        raise WrongError(f"it was taken: {client.handled!r} {requests!r}")
    if len(answers) != 1 or answers[0].status not in verdict.statuses or not client.has_ended:
        raise WrongError(f"not one refusal with {set(verdict.statuses)} and a close: {answers!r}")
    text = json.loads(answers[0].body)
    if answers[0].fields.get(b"connection") != b"close" or not text["error"]:
        raise WrongError(f"the refusal does not say that it is the last: {answers!r}")


def _check_answers(
    client: ClientEnd, answers: list[Answer], requests: list[Got], verdict: Answered | Forwarded
) -> None:
    closes = isinstance(verdict, Forwarded) and verdict.closes
    first = verdict.status if isinstance(verdict, Answered) else 200
    expected = [first] if closes else [first, 200]
    if [one.status for one in answers] != expected or client.has_ended is not closes:
        raise WrongError(f"the case and its canary were not answered {expected}: {answers!r}")
    canaries = requests[1:] if isinstance(verdict, Forwarded) else requests
    if [(one.target, one.body) for one in canaries] != [(CANARY_LINE.split(b" ")[1], b"")] * (not closes):
        raise WrongError(f"not the canary alone: {requests!r}")
    if isinstance(verdict, Forwarded):
        _check_forwarded(requests[0], verdict)


def _check_forwarded(got: Got, verdict: Forwarded) -> None:
    """`ServerEnd` has already checked that it was canonical, and one."""
    line = b"%s %s HTTP/1.1" % (got.method, got.target)
    is_same = line == verdict.line and got.body == verdict.body
    has_fields = all(got.fields.get(name) == value for name, value in verdict.fields.items())
    if not is_same or not has_fields or any(name in got.fields for name in verdict.absent):
        raise WrongError(f"not forwarded as {verdict!r}: {got!r}")


def whole(data: bytes) -> list[bytes]:
    return [data]


def byte_by_byte(data: bytes) -> list[bytes]:
    return [data[at : at + 1] for at in range(len(data))]


def in_two(data: bytes) -> Iterator[Sequence[bytes]]:
    """Every way to cut it once."""
    return ((data[:at], data[at:]) for at in range(1, len(data)))


def across_the_edge(data: bytes) -> Iterator[Sequence[bytes]]:
    """Cut in up to three around the end of the first head."""
    edge = data.find(b"\r\n\r\n")
    for first in range(max(1, edge), min(edge + 4, len(data) - 1)):
        for second in range(first + 1, min(edge + 6, len(data))):
            yield data[:first], data[first:second], data[second:]


def with_canary(case: Case) -> bytes:
    return case.data + CANARY
