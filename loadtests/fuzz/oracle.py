"""What the bytes on both sides must be, by parsers that are not the gateway's: llhttp (httptools), and plain rules."""

import contextlib
import re
from dataclasses import dataclass, field

import httptools

FRAMING = frozenset(
    b"transfer-encoding connection keep-alive proxy-connection te trailer upgrade expect http2-settings "
    b"proxy-authorization proxy-authenticate".split()
)
"""Fields that never reach a server."""
_ONCE = (b"host", b"content-length", b"x-request-id")
_LINE = re.compile(rb"(GET|POST) (/v2/models/[A-Za-z0-9_.-]+/versions/[1-9][0-9]*(?:/[a-z_]+)?) HTTP/1\.1")
_FIELD = re.compile(rb"([a-z0-9!#$%&'*+.^_`|~-]+): ([\t\x20-\x7e\x80-\xff]*)")
_STATUS_LINE = re.compile(rb"HTTP/1\.1 ([1-5][0-9][0-9]) [\x20-\x7e]+")
_CONNECTION = re.compile(rb"(?i)(\r\n(?:proxy-)?connect)i(on:)")
_SEEN = bytes.maketrans(b"I|", b"ii")
_TAB_BEHIND = re.compile(rb"(?i)(\r\ntransfer-encoding:)([ \t]*chunked)([ \t]+)\r\n")
_SIZE = re.compile(rb"0|[1-9a-f][0-9a-f]{0,15}")


class WrongError(AssertionError):
    """Something is on the wire that must never be there."""


@dataclass(slots=True)
class Read:
    """A request as llhttp read it."""

    method: bytes = b""
    target: bytes = b""
    fields: list[tuple[bytes, bytes]] = field(default_factory=list)
    body: bytes = b""
    version: str = ""
    is_whole: bool = False


class _Reader:
    """Callbacks of llhttp, for requests and for answers. Trailers are not fields."""

    def __init__(self) -> None:
        self.read: list[Read] = []
        self._in_head = True
        self._body: list[bytes] = []

    def on_message_begin(self) -> None:
        self.read.append(Read())
        self._in_head, self._body = True, []

    def on_url(self, url: bytes) -> None:
        self.read[-1].target += url

    def on_header(self, name: bytes, value: bytes) -> None:
        if self._in_head:
            self.read[-1].fields.append((name.lower(), value.strip(b" \t")))

    def on_headers_complete(self) -> None:
        self._in_head = False

    def on_body(self, body: bytes) -> None:
        self._body.append(body)

    def on_message_complete(self) -> None:
        self.read[-1].body = b"".join(self._body)
        self.read[-1].is_whole = True


class _RequestReader(_Reader):
    parser: httptools.HttpRequestParser

    def on_headers_complete(self) -> None:
        super().on_headers_complete()
        self.read[-1].method = self.parser.get_method()
        self.read[-1].version = self.parser.get_http_version()


class _AnswerReader(_Reader):
    parser: httptools.HttpResponseParser

    def on_headers_complete(self) -> None:
        super().on_headers_complete()
        self.read[-1].method = b"%d" % self.parser.get_status_code()
        self.read[-1].version = self.parser.get_http_version()

    @property
    def unfinished(self) -> bytes:
        return b"".join(self._body)


def requests_of(data: bytes) -> list[Read]:
    """The whole requests at the start of `data`, by llhttp; their names and bodies are `hidden` ones."""
    reader = _RequestReader()
    reader.parser = httptools.HttpRequestParser(reader)
    with contextlib.suppress(httptools.HttpParserUpgrade, httptools.HttpParserError):
        reader.parser.feed_data(hidden(data))
    return [read for read in reader.read if read.is_whole]


def is_same(body: bytes, read: bytes) -> bool:
    """Is a body the one that llhttp read, which was hidden with all around it?

    Blanks that were moved may have pushed others over the body's end: then one begins as the other does.
    """
    if body == read or len(body) != len(read):
        return body == read
    shorter, longer = sorted((body.translate(_SEEN, b" \t"), read.translate(_SEEN, b" \t")), key=len)
    return longer.startswith(shorter)


def hidden(data: bytes) -> bytes:
    """The same, as long, with the names that llhttp must not see: "Connection" reads "Connect|on".

    It would hand an upgraded connection over, and take a close from a trailer and from Proxy-Connection. That nothing
    is answered behind a close is checked at the answers. Nor does it know a tab behind the coding's name, which
    RFC 9110 (5.5) allows: the tab is moved.
    """
    data = _CONNECTION.sub(rb"\1|\2", data)
    return _TAB_BEHIND.sub(rb"\1\3\2\r\n", data)


def answers_of(data: bytes) -> list[Read]:
    """The answers at the start of `data`, by llhttp, the last one perhaps not whole (its body is what came)."""
    reader = _AnswerReader()
    reader.parser = httptools.HttpResponseParser(reader)
    with contextlib.suppress(httptools.HttpParserUpgrade, httptools.HttpParserError):
        reader.parser.feed_data(_TAB_BEHIND.sub(rb"\1\3\2\r\n", data))
    if reader.read and not reader.read[-1].is_whole:
        reader.read[-1].body = reader.unfinished
    return reader.read


def check_canonical(head: bytes, address: bytes) -> tuple[bytes, bytes, dict[bytes, bytes]]:
    """A head as the gateway writes it to a server, without its empty line: one line, each field in the one form.

    Returns its method, its target and its fields; the last value of those that may stand twice.
    """
    first, *lines = head.split(b"\r\n")
    match = _LINE.fullmatch(first)
    if match is None:
        raise WrongError(f"a request line that is not canonical: {first!r}")
    fields: dict[bytes, bytes] = {}
    for line in lines:
        one = _FIELD.fullmatch(line)
        if one is None or one[2] != one[2].strip(b" \t"):
            raise WrongError(f"a field that is not canonical: {line!r}")
        name = one[1]
        if name in FRAMING or name[:9] in (b"x-sluice-", b"x_sluice_"):
            raise WrongError(f"a field that must stay here: {line!r}")
        if name in _ONCE and name in fields:
            raise WrongError(f"a field that stands twice: {line!r}")
        fields[name] = one[2]
    length = fields.get(b"content-length")
    if fields.get(b"host") != address or b"x-request-id" not in fields:
        raise WrongError(f"not the server's own host, or no id: {head!r}")
    if (length is not None) != (match[1] == b"POST") or (length is not None and length != b"%d" % int(length)):
        raise WrongError(f"a length that is not canonical: {head!r}")
    return match[1], match[2], fields


@dataclass(frozen=True, slots=True)
class Answered:
    """An answer as the client reads it. `ends` says how its end is known: "length", "chunks", "close" or "none"."""

    status: int
    fields: dict[bytes, bytes]
    body: bytes
    is_whole: bool
    ends: str


def answers_to(methods: list[bytes], data: bytes, is_closed: bool, may_be_cut: bool = False) -> list[Answered]:
    """What a client that asked with these methods reads. Raises WrongError for what no strict client takes.

    `may_be_cut`: it left before it had read everything, perhaps inside a head.
    """
    found: list[Answered] = []
    asked = iter(methods)
    at = 0
    while at < len(data):
        end = data.find(b"\r\n\r\n", at)
        if end < 0:
            if may_be_cut:
                break
            raise WrongError(f"half a head: {data[at:][:200]!r}")
        status, fields = _head(data[at:end])
        at = end + 4
        if status < 200:
            found.append(Answered(status, fields, b"", True, "none"))
            continue
        answered, at = _body(data, at, status, fields, next(asked, b"GET"), is_closed)
        found.append(answered)
    return found


def _head(head: bytes) -> tuple[int, dict[bytes, bytes]]:
    first, *lines = head.split(b"\r\n")
    match = _STATUS_LINE.fullmatch(first)
    if match is None:
        raise WrongError(f"not a status line: {first[:200]!r}")
    fields: dict[bytes, bytes] = {}
    for line in lines:
        one = _FIELD.fullmatch(line)
        if one is None:
            raise WrongError(f"not a field of an answer: {line[:200]!r}")
        name = one[1]
        is_ours = name in (b"content-length", b"transfer-encoding", b"connection", b"x-request-id")
        if name in fields and (is_ours or name[:9] == b"x-sluice-"):
            raise WrongError(f"a field of an answer that stands twice: {head!r}")
        fields[name] = one[2]
    if b"content-length" in fields and b"transfer-encoding" in fields:
        raise WrongError(f"an answer framed twice: {head!r}")
    return int(match[1]), fields


def _body(
    data: bytes, at: int, status: int, fields: dict[bytes, bytes], method: bytes, is_closed: bool
) -> tuple[Answered, int]:
    if method == b"HEAD" or status in (204, 304):
        return Answered(status, fields, b"", True, "none"), at
    if b"transfer-encoding" in fields:
        if fields[b"transfer-encoding"] != b"chunked":
            raise WrongError(f"an unknown coding: {fields!r}")
        body, end = _chunks(data, at)
        return Answered(status, fields, body, end is not None, "chunks"), len(data) if end is None else end
    if b"content-length" in fields:
        length = fields[b"content-length"]
        if length != b"%d" % int(length):
            raise WrongError(f"a length that is not canonical: {length!r}")
        body = data[at : at + int(length)]
        return Answered(status, fields, body, len(body) == int(length), "length"), at + len(body)
    if fields.get(b"connection") != b"close":
        raise WrongError(f"an answer whose end cannot be known: {fields!r}")
    return Answered(status, fields, data[at:], is_closed, "close"), len(data)


def _chunks(data: bytes, at: int) -> tuple[bytes, int | None]:
    """A chunked body from `at` on, and where it ends; None when it is not whole."""
    parts: list[bytes] = []
    while True:
        end = data.find(b"\r\n", at)
        if end < 0:
            return b"".join(parts), None
        if not _SIZE.fullmatch(data[at:end]):
            raise WrongError(f"not a chunk's size: {data[at:end][:80]!r}")
        size = int(data[at:end], 16)
        parts.append(data[end + 2 : end + 2 + size])
        at = end + 2 + size + 2
        if at > len(data):
            return b"".join(parts), None
        if data[at - 2 : at] != b"\r\n":
            raise WrongError("a chunk that does not end with its line")
        if not size:
            return b"".join(parts), at
