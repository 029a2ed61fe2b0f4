"""Has a virtual server give an answer in pieces; judges what the client got, and if the connection is used again."""

from collections.abc import Sequence

from gateway.config import GatewayConfig
from loadtests.fuzz.answer_case import AnswerCase, Broken, Cut, Ending, Passed
from loadtests.fuzz.ends import ClientEnd, Got, ServerEnd
from loadtests.fuzz.oracle import Answered, WrongError, answers_to
from loadtests.fuzz.stage import CANDIDATE, STABLE, Stage

_GOOD = b"HTTP/1.1 200 OK\r\nx-echo: %s\r\ncontent-length: 4\r\n\r\ngood"


def judge_answer(case: AnswerCase, pieces: Sequence[bytes], model: bytes = b"plain", uses: int = 0) -> None:
    """The server answers one request with the pieces, on a connection that was used so often; all others well."""
    stage = Stage(GatewayConfig())
    odd: list[ServerEnd] = []
    turns = 0

    def answer(end: ServerEnd, got: Got) -> None:
        nonlocal turns
        turns += end.server.address == address
        if end.server.address == address and turns == uses + 1:
            odd.append(end)
        else:
            stage.loop.call_soon(end.wire.feed, _GOOD % got.request_id)

    address = (CANDIDATE if model == b"canary" else STABLE).encode()
    for server in stage.servers.values():
        server.answer = answer
    with stage.running():
        client = stage.client()
        for _ in range(uses + 1):
            client.send(_request(model, b"hello"))
            stage.run()
        _give(stage, odd[0], case, pieces)
        answers = _answers(client)[uses:]
        _check(case, answers, client, model)
        stage.settle([client, _check_kept(stage, case, odd[0], model)])


def _request(model: bytes, body: bytes) -> bytes:
    head = b"POST /v2/models/%s/infer HTTP/1.1\r\nHost: gw\r\nContent-Length: %d\r\n\r\n"
    return head % (model, len(body)) + body


def _give(stage: Stage, end: ServerEnd, case: AnswerCase, pieces: Sequence[bytes]) -> None:
    for piece in pieces:
        if not end.is_closed:
            end.wire.feed(piece)
        stage.run()
    if case.ending is Ending.FIN:
        end.wire.feed_eof()
    elif case.ending is Ending.RST:
        end.wire.reset()
    stage.run()
    stage.check_errors()


def _answers(client: ClientEnd) -> list[Answered]:
    return answers_to([one.head.method for one in client.handled], bytes(client.received), client.has_ended)


def _check(case: AnswerCase, answers: list[Answered], client: ClientEnd, model: bytes) -> None:
    if len(answers) != 1:
        raise WrongError(f"not one answer: {answers!r}")
    one, verdict = answers[0], case.verdict
    if isinstance(verdict, Cut) and not (client.is_closed or not one.is_whole):
        verdict = Broken()  # The fault was read together with the start.
    if isinstance(verdict, Cut):
        if one.is_whole or not client.is_closed or one.body != verdict.start[: len(one.body)] or not one.body:
            raise WrongError(f"not the start of it and a broken connection: {one!r}"[:500])
        return
    if client.has_ended:
        raise WrongError("the client's connection was closed")
    if isinstance(verdict, Passed):
        status, body = verdict.status, verdict.body
    else:
        status, body = (200, b"good") if model == b"canary" else (502, one.body)
    if (one.status, one.body, one.is_whole) != (status, body, True):
        raise WrongError(f"not {status} and {body[:80]!r}: {one!r}"[:500])
    if isinstance(verdict, Passed) and any(one.fields.get(name) != value for name, value in verdict.fields.items()):
        raise WrongError(f"fields were changed: {one!r}")
    if (b"x-sluice-fallback" in one.fields) != (isinstance(verdict, Broken) and model == b"canary"):
        raise WrongError(f"answered by the wrong release: {one!r}")
    if b"evil" in b" ".join(one.fields.values()) or b"set-cookie" in one.fields:
        raise WrongError(f"the server set what it must not: {one!r}")


def _check_kept(stage: Stage, case: AnswerCase, end: ServerEnd, model: bytes) -> ClientEnd:
    """Is the next request, another client's, answered well, and on the right connection?"""
    before = len(end.requests)
    other = stage.client()
    other.send(_request(model, b"again"))
    stage.run()
    stage.check_client(other)
    answers = _answers(other)
    if [(one.status, one.body) for one in answers] != [(200, b"good")]:
        raise WrongError(f"the next one was answered {answers!r}")
    is_kept = isinstance(case.verdict, Passed) and case.verdict.is_kept
    if (len(end.requests) > before) is not is_kept or end.is_closed is is_kept:
        raise WrongError(f"the connection {'was not' if is_kept else 'was'} used again")
    return other
