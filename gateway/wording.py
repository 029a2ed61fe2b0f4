"""How a request reads to a server and an answer to its client: heads written anew from their parsed parts. Pure."""

import re

from gateway.answers import CLOSE, error_body
from gateway.heads import CHUNKED, END, AnswerHead, Request
from gateway.lanes import Lane
from gateway.paths import Asked
from gateway.upstream import Chunks, Server
from gateway.windows import Outcome

JOIN_BYTES = 64 * 1024
"""Requests up to this size are written as one piece."""
_CLIENT_TEXT = re.compile(rb'\s*\{\s*"error"\s*:\s*"(failed to parse|Unable to parse)')
"""How Triton starts the texts of 500 answers that are the client's fault (a body that is not valid)."""
_CLOSING_END = b"\r\n" + CLOSE + b"\r\n"
_TELLING = (b"Traceback", b'File \\"')
"""What shows that an error's text tells of the server's inside."""


def request_parts(request: Request, asked: Asked, lane: Lane, server: Server, request_id: bytes) -> Chunks:
    """The request as it goes to a server: its head written anew, its body as it came (which only POST has)."""
    head = request.head
    own = b"\r\n" if head.has_id else b"x-request-id: %s\r\n\r\n" % request_id
    if not head.is_post:
        return [b"".join((b"GET ", lane.path, asked.action, server.line_end, head.forwarded, own))]
    if head.length == CHUNKED:
        own = b"content-length: %d\r\n%s" % (request.size, own)
    if request.size <= JOIN_BYTES:
        return [b"".join((b"POST ", lane.path, asked.action, server.line_end, head.forwarded, own, *request.body))]
    return [b"".join((b"POST ", lane.path, asked.action, server.line_end, head.forwarded, own)), *request.body]


def answer_lines(
    answer: AnswerHead, own_lines: bytes, request_id: bytes, close: bool, takes_chunks: bool, whole_size: int | None
) -> tuple[bytes, bool]:
    """An answer's head, and is its body to be sent in chunks? `whole_size` is the body's when all of it is there."""
    end = _CLOSING_END if close else END
    if answer.length >= 0:
        return b"".join((answer.lines, own_lines, request_id, end)), False
    if whole_size is not None:
        return b"".join((answer.lines, b"content-length: %d\r\n" % whole_size, own_lines, request_id, end)), False
    framing = b"transfer-encoding: chunked\r\n" if takes_chunks else b""
    return b"".join((answer.lines, framing, own_lines, request_id, end)), takes_chunks


def no_answer(outcome: Outcome, deadline_s: float) -> tuple[int, str]:
    """The status and the text for a client whose request no server answered."""
    match outcome:
        case Outcome.TIMEOUT:
            return 504, f"no answer within {deadline_s:g} s"
        case Outcome.UNAVAILABLE:
            return 503, "no server of this release can be reached"
        case Outcome.SHED:
            return 503, "too many requests wait for this model; try again in a second"
        case _:
            return 502, "the server broke the connection before it answered"


def one_chunk(body: Chunks) -> Chunks:
    """A part of a body as one chunk; nothing for an empty one, which would end the body."""
    size = sum(map(len, body))
    return [b"%x\r\n" % size, *body, b"\r\n"] if size else []


def last_chunk(body: Chunks) -> Chunks:
    return [*one_chunk(body), b"0\r\n\r\n"]


def is_clients_fault(text: bytes) -> bool:
    """Does a 500's text say that the body was not valid?"""
    return _CLIENT_TEXT.match(text) is not None


def shown_error(answer: AnswerHead, text: bytes, is_cut: bool, release: bytes, request_id: bytes) -> bytes | None:
    """What to show instead of an error's text that is cut, cannot be read here, or tells of the server's inside."""
    is_readable = not is_cut and answer.values.get(b"content-encoding", b"identity") == b"identity"
    if is_readable and not any(word in text for word in _TELLING):
        return None
    return error_body(
        f"release {release.decode()} failed to answer this request (request id {request_id.decode('latin-1')})"
    )


def shown_head(answer: AnswerHead, body: bytes) -> AnswerHead:
    """The head of an answer whose body was replaced."""
    passed = b"content-type: application/json\r\ncontent-length: %d\r\n" % len(body)
    return AnswerHead(answer.status, answer.keep_alive, len(body), passed, {})
