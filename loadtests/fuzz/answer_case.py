"""Answers that proxies got wrong (family 20), and odd ones that are clear: bytes, an ending, and what must follow."""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from enum import Enum

from loadtests.fuzz.case import END, named

OK = b"HTTP/1.1 200 OK\r\n"
CHUNKED = b"Transfer-Encoding: chunked\r\n"
LARGE = 100_000
"""More than the gateway holds back of an answer."""


class Ending(Enum):
    """What the server does behind the bytes."""

    OPEN = "stays"
    FIN = "closes"
    RST = "resets"


@dataclass(frozen=True, slots=True)
class Passed:
    """The client gets this; the connection serves again if it `is_kept`."""

    body: bytes = b"hello"
    status: int = 200
    is_kept: bool = True
    fields: Mapping[bytes, bytes] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Broken:
    """Nothing of it reaches the client: 502, or stable's answer for a candidate's. Never kept."""


@dataclass(frozen=True, slots=True)
class Cut:
    """A large answer that began and broke: the client gets the start of it and its connection is broken. Never kept."""

    start: bytes


@dataclass(frozen=True, slots=True)
class AnswerCase:
    name: str
    data: bytes
    verdict: Passed | Broken | Cut
    ending: Ending = Ending.OPEN


def sized(length: bytes, body: bytes = b"hello") -> bytes:
    return OK + b"Content-Length: " + length + b"\r\n\r\n" + body


def coded(coding: bytes, body: bytes = b"5\r\nhello\r\n" + END) -> bytes:
    return OK + b"Transfer-Encoding: " + coding + b"\r\n\r\n" + body


def in_chunks(body: bytes) -> bytes:
    return OK + CHUNKED + b"\r\n" + body


def with_field(line: bytes) -> bytes:
    return OK + line + b"\r\nContent-Length: 5\r\n\r\nhello"


def with_status(line: bytes) -> bytes:
    return line + b"\r\nContent-Length: 5\r\n\r\nhello"


_GOOD = sized(b"5")


def _broken(kind: str, cases: Mapping[str, bytes], ending: Ending = Ending.OPEN) -> Iterator[AnswerCase]:
    return (AnswerCase(f"{kind}: {name}, {ending.value}", data, Broken(), ending) for name, data in cases.items())


def _clear() -> Iterator[AnswerCase]:
    for name, data in {
        "a length": _GOOD, "a length with tabs": sized(b"\t5 "), "chunks": in_chunks(b"5\r\nhello\r\n" + END),
        "two chunks": in_chunks(b"1\r\nh\r\n4\r\nello\r\n" + END), "a coding in upper case": coded(b"CHUNKED"),
        "an extension": in_chunks(b"5;a=b\r\nhello\r\n" + END),
        "trailers": in_chunks(b"5\r\nhello\r\n0\r\nX: y\r\n\r\n"),
        "a host in a trailer": in_chunks(b"5\r\nhello\r\n0\r\nHost: x\r\nX-Request-Id: evil\r\n\r\n"),
        "no reason": with_status(b"HTTP/1.1 200"), "an empty reason": with_status(b"HTTP/1.1 200 "),
        "a reason in Latin-1": with_status(b"HTTP/1.1 200 gr\xfc\xdf"),
        "a reason with a tab": with_status(b"HTTP/1.1 200 a\tb"),
        "100 before it": b"HTTP/1.1 100 Continue\r\n\r\n" + _GOOD,
        "103 with fields before it": b"HTTP/1.1 103 Early Hints\r\nLink: </x>\r\nContent-Length: 7\r\n\r\n" + _GOOD,
        "32 interim ones before it": b"HTTP/1.1 102 Processing\r\n\r\n" * 32 + _GOOD,
        "keep-alive": with_field(b"Connection: keep-alive\r\nKeep-Alive: timeout=5"),
        "reserved fields": with_field(b"X-Request-Id: evil\r\nX-Sluice-Release: evil/1\r\nX-Sluice-Fallback: x"),
        "hop-by-hop fields": with_field(b"Upgrade: h2c\r\nTE: x\r\nTrailer: y\r\nProxy-Authenticate: z"),
        "underscores": with_field(b"Content_Length: 9\r\nTransfer_Encoding: chunked"),
        "100 fields": with_field(b"X: y\r\n" * 99 + b"X: y"),
        "a field of 60,000 bytes": with_field(b"X: " + b"y" * 60_000),
    }.items():  # fmt: skip
        yield AnswerCase(name, data, Passed())
    high = with_field(b"X-High: \x85a\xff")
    yield AnswerCase("high bytes in a value", high, Passed(fields={b"x-high": b"\x85a\xff"}))
    yield AnswerCase("no body", sized(b"0", b""), Passed(b""))
    yield AnswerCase("no chunk", in_chunks(END), Passed(b""))
    yield AnswerCase("204", b"HTTP/1.1 204 No Content\r\n\r\n", Passed(b"", 204))
    yield AnswerCase("204 with a length", b"HTTP/1.1 204 No Content\r\nContent-Length: 5\r\n\r\n", Passed(b"", 204))
    yield AnswerCase("304 with a length", b"HTTP/1.1 304 Not Modified\r\nContent-Length: 5\r\n\r\n", Passed(b"", 304))
    yield AnswerCase("404", _GOOD.replace(b"200 OK", b"404 Gone"), Passed(status=404))
    yield AnswerCase("a large one", sized(b"%d" % LARGE, b"x" * LARGE), Passed(b"x" * LARGE))
    large = b"%x\r\n%s\r\n" % (LARGE, b"x" * LARGE)
    yield AnswerCase("a large one in chunks", in_chunks(large + END), Passed(b"x" * LARGE))


def _clear_and_last() -> Iterator[AnswerCase]:
    """Whole answers on connections that must not be used again."""
    second = sized(b"6", b"second")
    for name, data in {
        "close": with_field(b"Connection: close"), "close in upper case": with_field(b"Connection: CLOSE"),
        "close among others": with_field(b"Connection: keep-alive, close"),
        "close and then keep-alive": with_field(b"Connection: close\r\nConnection: keep-alive"),
        "HTTP/1.0": _GOOD.replace(b"/1.1", b"/1.0"),
        "HTTP/1.0 keep-alive": with_field(b"Connection: keep-alive").replace(b"/1.1", b"/1.0"),
        "HTTP/1.0 in chunks": in_chunks(b"5\r\nhello\r\n" + END).replace(b"/1.1", b"/1.0"),
        "a byte too many": _GOOD + b"!", "a line too many": _GOOD + b"\r\n", "an answer twice": _GOOD + _GOOD,
        "another answer": _GOOD + second, "another answer in chunks": _GOOD + in_chunks(b"1\r\nx\r\n" + END),
        "half another": _GOOD + second[:20], "a request": _GOOD + b"GET / HTTP/1.1\r\nHost: x\r\n\r\n",
        "1xx behind it": _GOOD + b"HTTP/1.1 100 Continue\r\n\r\n",
        "bytes behind chunks": in_chunks(b"5\r\nhello\r\n" + END + b"x"),
        "an answer behind chunks": in_chunks(b"5\r\nhello\r\n" + END) + second,
        "bytes behind trailers": in_chunks(b"5\r\nhello\r\n0\r\nX: y\r\n\r\n") + second,
    }.items():  # fmt: skip
        yield AnswerCase(f"last: {name}", data, Passed(is_kept=False))
    for status in (204, 304):
        head = b"HTTP/1.1 %d X\r\nContent-Length: 5\r\n\r\n" % status
        yield AnswerCase(f"last: a body on {status}", head + b"hello", Passed(b"", status, is_kept=False))
        yield AnswerCase(f"last: an answer on {status}", head + second, Passed(b"", status, is_kept=False))
        chunks = b"HTTP/1.1 %d X\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n" % status + END
        yield AnswerCase(f"last: chunks on {status}", chunks, Passed(b"", status, is_kept=False))
    yield AnswerCase("last: a body behind no length", sized(b"0", b"hello"), Passed(b"", is_kept=False))
    until = Passed(is_kept=False)
    yield AnswerCase("no length", OK + b"\r\nhello", until, Ending.FIN)
    yield AnswerCase("no length and fields", OK + b"X: y\r\nConnection: close\r\n\r\nhello", until, Ending.FIN)
    yield AnswerCase("no length, HTTP/1.0", b"HTTP/1.0 200 OK\r\n\r\nhello", until, Ending.FIN)
    yield AnswerCase("no length and no body", OK + b"\r\n", Passed(b"", is_kept=False), Ending.FIN)
    yield AnswerCase("no length, two answers", OK + b"\r\nhello" + _GOOD, Passed(b"hello" + _GOOD, is_kept=False),
                     Ending.FIN)  # fmt: skip
    yield AnswerCase("no length, large", OK + b"\r\n" + b"x" * LARGE, Passed(b"x" * LARGE, is_kept=False), Ending.FIN)
    yield AnswerCase("a length, then closes", _GOOD, Passed(is_kept=False), Ending.FIN)
    yield AnswerCase("a length, then resets", _GOOD, Passed(is_kept=False), Ending.RST)


def _framed_wrong() -> Iterator[AnswerCase]:
    lengths = (b"+5", b"-5", b"05", b"0x5", b"5, 5", b"5,5", b"5 5", b"", b"5;", b"five", b"5.0", b"9" * 20, b"\xb2",
               b"9" * 5000)  # fmt: skip
    yield from _broken("length", _shown(lengths, sized(b"%")))
    codings = (b"gzip", b"identity", b"chunked, gzip", b"gzip, chunked", b",chunked", b"chunked,", b"", b"xchunked",
               b"chunked;x", b'"chunked"', b"chunked, chunked", b"\x0bchunked")  # fmt: skip
    yield from _broken("coding", _shown(codings, coded(b"%")))
    yield from _broken("framed twice", {
        "CL and TE": OK + b"Content-Length: 5\r\n" + CHUNKED + b"\r\n5\r\nhello\r\n" + END,
        "TE and CL": OK + CHUNKED + b"Content-Length: 5\r\n\r\n5\r\nhello\r\n" + END,
        "two CLs": OK + b"Content-Length: 5\r\nContent-Length: 6\r\n\r\nhello",
        "two equal CLs": OK + b"Content-Length: 5\r\nContent-Length: 5\r\n\r\nhello",
        "two TEs": OK + CHUNKED + CHUNKED + b"\r\n5\r\nhello\r\n" + END,
        "CL and TE on 204": b"HTTP/1.1 204 X\r\nContent-Length: 5\r\n" + CHUNKED + b"\r\n",
        "CL and TE on 100": b"HTTP/1.1 100 X\r\nContent-Length: 5\r\n" + CHUNKED + b"\r\n" + _GOOD,
    })  # fmt: skip
    chunks = (
        b"5\nhello\r\n", b"5\r\nhello\n", b"5\r\nhelloXX", b"5\r\nhello!\r\n", b"0x5\r\nhello\r\n", b" 5\r\nhello\r\n",
        b"5 \r\nhello\r\n", b"+5\r\nhello\r\n", b"-1\r\n", b"\r\n", b"g\r\n", b"5;\r\nhello\r\n",
        b"5;\x00\r\nhello\r\n",
        b"1" + b"0" * 16 + b"\r\n", b"5\r\rhello", b"5\r\nhello\r\n\r\n", b"zz\r\n",
        b"5;" + b"a" * 5000 + b"\r\nhello\r\n",
    )  # fmt: skip
    yield from _broken("chunk", {repr(one[:20])[2:-1]: in_chunks(one + END) for one in chunks})
    trailers = (
        b"Content-Length: 5",
        b"Transfer-Encoding: chunked",
        b"X",
        b": y",
        b"X : y",
        b"X: a\x00",
        b" X: y",
        b"X: a\nb",
    )
    yield from _broken("trailer", _shown(trailers, in_chunks(b"5\r\nhello\r\n0\r\n%\r\n\r\n")))


def _lines_wrong() -> Iterator[AnswerCase]:
    statuses = (
        b"HTTP/2.0 200 OK", b"HTTP/1.2 200 OK", b"HTTP/0.9 200 OK", b"HTTP/1.1 20 OK", b"HTTP/1.1 2000 OK",
        b"ICY 200 OK",
        b"HTTP/1.1 600 OK", b"HTTP/1.1 099 OK", b"HTTP/1.1 000 OK", b"HTTP/1.1  200 OK", b"HTTP/1.1 200OK",
        b"http/1.1 200 OK",
        b" HTTP/1.1 200 OK", b"HTTP/1.1\t200 OK", b"HTTP/1.1 2x0 OK", b"HTTP/1.1 +20 OK", b"HTTP/1.1", b"200 OK",
        b"HTTP/1.1 200 O\x00K", b"HTTP/1.1 200 O\x1bK", b"HTTP/1.10 200 OK", b"GET / HTTP/1.1", b"\r\nHTTP/1.1 200 OK",
        b"HTTP/1.1 200 OK\rX: y", b"HTTP/1.1 200 OK\nX: y", b"HTTP/1.1 101 Switching Protocols",
    )  # fmt: skip
    yield from _broken("status", {repr(one)[2:-1]: with_status(one) for one in statuses})
    fields = (
        b"X: a\r\n b", b"X: a\r\n\tb", b"X : a", b"X\t: a", b"X", b": a", b"X Y: a", b" X: a", b"X\xff: a",
        b"X: a\x00b",
        b"X: a\x7f", b"X: a\x1bb", b"X: a\rSet-Cookie: b", b"X: a\nSet-Cookie: b", b"X: a\r\rb", b"\x00: a", b"X(: a",
        b"X: a\r\n\n", b"X@: a", b"Content-Length : 5",
    )  # fmt: skip
    yield from _broken("field", {repr(one)[2:-1]: with_field(one) for one in fields})
    yield from _broken("head", {
        "bare LF": b"HTTP/1.1 200 OK\nContent-Length: 5\n\nhello", "binary": bytes(range(256)) * 2,
        "another protocol": b"SSH-2.0-OpenSSH_9.2\r\n\r\n", "a page": b"<html>\r\n<p>x</p>\r\n\r\n",
        "TLS alert": b"\x15\x03\x01\x00\x02\x02\x46", "of 70,000 bytes": with_field(b"X: " + b"y" * 70_000),
        "20,000 fields": with_field(b"X: y\r\n" * 20_000 + b"X: y"), "without end": b"x" * 70_000,
        "33 interim answers": b"HTTP/1.1 100 Continue\r\n\r\n" * 33 + _GOOD,
        "interim and close": b"HTTP/1.1 100 Continue\r\nConnection: close\r\n\r\n" + _GOOD,
        "interim of HTTP/1.0": b"HTTP/1.0 100 Continue\r\n\r\n" + _GOOD, "interim and garbage":
        b"HTTP/1.1 100 Continue\r\n\r\n\x00\x01\r\n\r\n", "empty line": b"\r\n" + _GOOD,
    })  # fmt: skip


def _ended_early() -> Iterator[AnswerCase]:
    parts = {
        "nothing": b"", "half a status line": b"HTTP/1.1 20", "half a head": OK + b"Content-Le",
        "a head": sized(b"5", b""),
        "a head without its last line": OK + b"Content-Length: 5\r\n", "half a body": sized(b"10"),
        "an interim answer": b"HTTP/1.1 100 Continue\r\n\r\n", "half an interim answer": b"HTTP/1.1 100 Con",
        "half a chunk": in_chunks(b"9\r\nhello"), "no last chunk": in_chunks(b"5\r\nhello\r\n"),
        "half a last chunk": in_chunks(b"5\r\nhello\r\n0\r\n"), "half a trailer": in_chunks(b"5\r\nhello\r\n0\r\nX: y"),
        "half a size": in_chunks(b"5"), "no chunk": in_chunks(b""),
    }  # fmt: skip
    yield from _broken("ends early", parts, Ending.FIN)
    yield from _broken("ends early", parts | {"no length": OK + b"\r\nhello"}, Ending.RST)
    body = b"x" * LARGE
    chunk = b"%x\r\n%s\r\n" % (LARGE, body)
    for name, data, ending in (
        ("half of a large body, closes", sized(b"200000", body), Ending.FIN),
        ("half of a large body, resets", sized(b"200000", body), Ending.RST),
        ("no last chunk, closes", in_chunks(chunk), Ending.FIN),
        ("no last chunk, resets", in_chunks(chunk), Ending.RST),
        ("a wrong chunk", in_chunks(chunk + b"zz\r\n"), Ending.OPEN),
        ("a trailer that frames", in_chunks(chunk + b"0\r\nContent-Length: 5\r\n\r\n"), Ending.OPEN),
        ("a chunk that is too long", in_chunks(chunk[:-2] + b"yy" + END), Ending.OPEN),
        ("no length, resets", OK + b"\r\n" + body, Ending.RST),
    ):
        yield AnswerCase(f"large: {name}", data, Cut(body), ending)


def _shown(shapes: Iterable[bytes], wrap: bytes) -> dict[str, bytes]:
    return {name[:40]: data for name, data in named(shapes, wrap).items()}


def answer_cases() -> list[AnswerCase]:
    return [*_clear(), *_clear_and_last(), *_framed_wrong(), *_lines_wrong(), *_ended_early()]
