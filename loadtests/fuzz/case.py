"""A case of a request that servers got wrong: its bytes, and what must become of it. Each is followed by a canary.

The families are those of HTTP Garden, Http11Probe and the advisories: framed twice (1, 2), lengths (3), codings (4, 5),
chunks and trailers (6 to 9), versions (10), hosts (11), lines and bytes (12, 13), request lines (14), early answers and
expectations (15, 16), hop-by-hop fields (19), limits (18, 21), error texts (22), and names that look alike (23).
"""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field

LINE = b"POST /v2/models/plain/infer HTTP/1.1\r\n"
HOST = b"Host: gw\r\n"
TE = b"Transfer-Encoding: chunked\r\n"
END = b"0\r\n\r\n"
CANARY = b"GET /v2/models/plain?canary HTTP/1.1\r\nHost: gw\r\n\r\n"
SMUGGLED = b"POST /v2/repository/index HTTP/1.1\r\nHost: gw\r\nContent-Length: 0\r\n\r\n"


@dataclass(frozen=True, slots=True)
class Refused:
    """One answer with one of these statuses, the connection closed, nothing at a server."""

    statuses: frozenset[int] = frozenset((400,))


@dataclass(frozen=True, slots=True)
class Answered:
    """The gateway's own answer, nothing at a server, the canary answered next."""

    status: int


@dataclass(frozen=True, slots=True)
class Forwarded:
    """Exactly one canonical request, the canary answered next unless the connection `closes`."""

    body: bytes = b""
    closes: bool = False
    fields: Mapping[bytes, bytes] = field(default_factory=dict)
    absent: tuple[bytes, ...] = ()
    line: bytes = b"POST /v2/models/plain/versions/1/infer HTTP/1.1"


Verdict = Refused | Answered | Forwarded


@dataclass(frozen=True, slots=True)
class Case:
    """`family` is the number in the table of families."""

    family: int
    name: str
    data: bytes
    verdict: Verdict


def post(headers: bytes = b"", body: bytes = b"", line: bytes = LINE) -> bytes:
    return line + HOST + headers + b"\r\n" + body


def sized(length: bytes, body: bytes = b"hello") -> bytes:
    return post(b"Content-Length: " + length + b"\r\n", body)


def coded(coding: bytes, body: bytes = END) -> bytes:
    return post(b"Transfer-Encoding: " + coding + b"\r\n", body)


def in_chunks(body: bytes) -> bytes:
    return post(TE, body)


def with_line(line: bytes) -> bytes:
    return line + b"\r\n" + HOST + b"\r\n"


def field_line(line: bytes) -> bytes:
    return post(line + b"\r\nContent-Length: 5\r\n", b"hello")


def _cases(family: int, cases: Mapping[str, bytes], verdict: Verdict) -> Iterator[Case]:
    return (Case(family, f"{family}. {name}", data, verdict) for name, data in cases.items())


def refused(family: int, cases: Mapping[str, bytes], *statuses: int) -> Iterator[Case]:
    return _cases(family, cases, Refused(frozenset(statuses or (400,))))


def passed(family: int, cases: Mapping[str, bytes]) -> Iterator[Case]:
    return _cases(family, cases, Forwarded(b"hello"))


def named(shapes: Iterable[bytes], wrap: bytes) -> dict[str, bytes]:
    return {repr(shape)[2:-1] or "nothing": wrap.replace(b"%", shape) for shape in shapes}
