"""Heads of HTTP/1.1 messages, read strictly: what has more than one reading is refused. Bytes in, values out.

Clients and servers send the same heads again and again: a head that was read is remembered as a whole, and most
requests cost one lookup. What is new is read by its lines, of which most are remembered too. Only what is valid is
remembered. The grammar is RFC 9112's, in the stricter reading wherever servers were found to differ.
"""

import re
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, NoReturn

from gateway.answers import RefusedError, status_line
from gateway.remembered import Remembered

if TYPE_CHECKING:
    from gateway.way import Way

END = b"\r\n\r\n"

Field = tuple[bytes, bytes, bytes | None, int]
"""Name in lower case, value, the line as it is passed on (None: it stays here), and what it is of the flags below."""
FieldRule = Callable[[bytes, bytes], tuple[bool, int]]
"""Is a field passed on, and its flags; raises when its value is never right."""

HOST, LENGTH, CODING, EXPECT, CONNECTION, REQUEST_ID, ACCEPTS, TOLD, UNUSABLE, TRACED = (1 << n for n in range(10))
"""UNUSABLE lines are left out. A head counts as having one already, so that each takes the way of a second one."""
_ONCE = HOST | LENGTH | CODING | EXPECT | REQUEST_ID | UNUSABLE
_USUAL = HOST | LENGTH | REQUEST_ID | ACCEPTS | UNUSABLE | TRACED
_SELDOM_AGAIN = REQUEST_ID | TRACED
"""Heads with these are each the only one of their kind: not worth remembering."""
HOP_BY_HOP = frozenset(
    b"keep-alive proxy-authenticate proxy-authorization proxy-connection te trailer upgrade http2-settings".split()
)
_FRAMING = frozenset(b"host content-length transfer-encoding expect connection".split())

_REQUEST_LINE = re.compile(rb"([A-Z]{1,24}) ([!-~]+) (HTTP/[0-9]\.[0-9])")
_STATUS_LINE = re.compile(rb"HTTP/1\.([01]) ([1-5][0-9][0-9])(?: [\t -~\x80-\xff]*)?")
_NAME = re.compile(rb"[!#$%&'*+.^_`|~0-9A-Za-z-]+")
_VALUE_BYTES = bytes(byte for byte in range(256) if byte == 9 or (byte >= 32 and byte != 127))
_HOST = re.compile(rb"(?:[A-Za-z0-9._~%!$&'()*+;=-]+|\[[0-9A-Fa-f:.]+\])(?::[0-9]*)?")
_REQUEST_ID = re.compile(rb"[!-~]{1,128}")
_NEVER = re.compile(rb"[^\r]\n|\r[^\n]|^\n|[\x00-\x08\x0b\x0c\x0e-\x1f\x7f]")
"""What no head contains, so that a head need not be whole to be refused: a bare LF or CR, a control character."""
_METHODS = frozenset(b"GET HEAD POST PUT DELETE OPTIONS PATCH TRACE".split())
_REMEMBERED_BYTES, _REMEMBERED = 256, 4096
IDENTITY = b"accept-encoding: identity\r\n"


class AnswerError(Exception):
    """A server's answer that has no single reading."""


class RequestHead:
    """A request's head. Equal heads share one, so nothing of it changes.

    `values` are its fields by lower-case name, `passed` the lines that go on to a server, `forwarded` these lines as
    they are sent. `length` is the body's, -1 for a chunked one. `takes_chunks` is false for HTTP/1.0, whose clients
    know an answer's end by its length or by the close only. `way` is where the handler remembers what it found of it.
    """

    __slots__ = (
        "accepts", "expects", "forwarded", "has_id", "is_post", "keep_alive", "length", "line", "method", "passed",
        "takes_chunks", "target", "values", "way",
    )  # fmt: skip

    def __init__(self, line: bytes, method: bytes, target: bytes, takes_chunks: bool) -> None:
        self.line, self.method, self.target = line, method, target
        self.is_post = method == b"POST"
        self.keep_alive = self.takes_chunks = takes_chunks
        self.values: dict[bytes, bytes] = {}
        self.passed: list[bytes] = []
        self.forwarded = b""
        self.length = 0
        self.accepts = self.expects = self.has_id = False
        self.way: Way | None = None

    def with_line(self, line: bytes) -> "RequestHead":
        """The same head with this line in place of those of its name, for one request."""
        name = line[: line.index(b":") + 1]
        head = RequestHead(self.line, self.method, self.target, self.takes_chunks)
        head.keep_alive, head.values, head.length = self.keep_alive, self.values, self.length
        head.accepts, head.expects, head.has_id, head.way = self.accepts, self.expects, self.has_id, self.way
        head.passed = [*(one for one in self.passed if not one.startswith(name)), line]
        head.write()
        return head

    def write(self) -> None:
        """Make `forwarded` of the other parts. Only a POST has a body; the length of a chunked one is not known yet."""
        lines: Iterable[bytes] = self.passed
        if not self.is_post:
            lines = (line for line in lines if line[:15] != b"content-length:")
        own = b"" if self.accepts else IDENTITY
        if self.is_post and not self.length and b"content-length" not in self.values:
            own += b"content-length: 0\r\n"
        self.forwarded = b"".join((*lines, own))


class Request:
    """A request: its head, and the body's chunks as they came, of `size` bytes in all."""

    __slots__ = ("body", "head", "held_bytes", "size")

    def __init__(self, head: RequestHead) -> None:
        self.head = head
        self.body: list[bytes | memoryview] = []
        self.size = self.held_bytes = 0


class AnswerHead:
    """A server's answer. Equal heads share one, so nothing of it changes.

    `lines` are the status line and what is passed on to the client. `length` is the body's, -1 for chunks, -2 until
    close. `values` holds only what the gateway itself looks at.
    """

    __slots__ = ("keep_alive", "length", "lines", "status", "values")

    def __init__(
        self, status: int, keep_alive: bool, length: int, passed: bytes, values: dict[bytes, bytes]
    ) -> None:  # fmt: skip
        self.status, self.keep_alive, self.length, self.values = status, keep_alive, length, values
        self.lines = status_line(status) + passed

    def as_status(self, status: int) -> "AnswerHead":
        """The same answer under another status."""
        passed = self.lines[len(status_line(self.status)) :]
        return AnswerHead(status, self.keep_alive, self.length, passed, self.values)


CHUNKED, UNTIL_CLOSE = -1, -2


class _Fields(dict[bytes, Field]):
    """Lines read, by the line."""

    def __init__(self, rule: FieldRule, line_bytes: int) -> None:
        super().__init__()
        self._rule = rule
        self._line_bytes = line_bytes

    def __missing__(self, line: bytes) -> Field:
        field = self._read(line)
        if len(line) <= _REMEMBERED_BYTES:
            if len(self) >= _REMEMBERED:
                self.clear()
            self[line] = field
        return field

    def _read(self, line: bytes) -> Field:
        if len(line) > self._line_bytes:
            raise RefusedError(431, f"a header field is longer than {self._line_bytes} bytes")
        name, value = split_field(line)
        is_passed, flags = self._rule(name, value)
        return name, value, b"%s: %s\r\n" % (name, value) if is_passed else None, flags


def split_field(line: bytes) -> tuple[bytes, bytes]:
    """Name in lower case and value of a field's line. Raises RefusedError when it is not one (RFC 9112, 5)."""
    name, colon, value = line.partition(b":")
    value = value.strip(b" \t")
    if not colon or not _NAME.fullmatch(name) or value.translate(None, _VALUE_BYTES):
        raise RefusedError(400, "a header field is not valid")
    return name.lower(), value


class RequestReader(Remembered[RequestHead]):
    """Reads heads of requests within the limits given. Raises RefusedError."""

    def __init__(self, line_bytes: int, field_bytes: int, head_bytes: int, head_fields: int, body_bytes: int) -> None:
        super().__init__()
        self._line_bytes, self._head_bytes, self._head_fields = line_bytes, head_bytes, head_fields
        self._body_bytes = body_bytes
        self._lines: dict[bytes, tuple[bytes, bytes, bool]] = {}
        self._fields = _Fields(self._rule, field_bytes)

    def __missing__(self, data: bytes) -> RequestHead:
        if len(data) > self._head_bytes:
            self._too_long(data)
        lines = data.split(b"\r\n")
        first = lines.pop(0)
        known = self._lines.get(first)
        head = RequestHead(first, *(known if known is not None else self._read_line(first)))
        if len(lines) > self._head_fields:
            raise RefusedError(431, f"the request has more than {self._head_fields} header fields")
        flags = self._read_fields(lines, head)
        if flags & LENGTH:
            head.length = int(head.values[b"content-length"])
        head.accepts = flags & ACCEPTS != 0
        head.has_id = flags & REQUEST_ID != 0
        if flags & ~_USUAL or head.target[:1] != b"/" or not flags & HOST:
            self._read_rest(head, flags)
        head.write()
        if not flags & _SELDOM_AGAIN:
            self.remember(data, head, len(lines))
        return head

    def _read_fields(self, lines: list[bytes], head: RequestHead) -> int:
        """The flags of all fields together."""
        fields, values, passed, flags = self._fields, head.values, head.passed, UNUSABLE
        for line in lines:
            name, value, passed_line, flag = fields[line]
            if flag:
                if flags & flag & _ONCE:
                    if flag != REQUEST_ID and flag != UNUSABLE:
                        raise RefusedError(400, f"{name.decode()} must not be given twice")
                    continue
                if flags & flag & CONNECTION:
                    value = b"%s,%s" % (values[name], value)
                flags |= flag
            if passed_line is not None:
                passed.append(passed_line)
            values[name] = value
        return flags

    def check_part(self, part: bytes, checked: int) -> None:
        """Refuse what can no longer become a head; `checked` bytes of it were looked at before."""
        if _NEVER.search(part, max(0, checked - 1)):
            raise RefusedError(400, "the request's head is not valid")
        if b"\r\n" not in part[: self._line_bytes + 2] and len(part) > self._line_bytes:
            raise RefusedError(414, f"the request line is longer than {self._line_bytes} bytes")
        if len(part) > self._head_bytes:
            self._too_long(part)

    def _too_long(self, head: bytes) -> NoReturn:
        if head.find(b"\r\n") > self._line_bytes:
            raise RefusedError(414, f"the request line is longer than {self._line_bytes} bytes")
        raise RefusedError(431, f"the request's head is longer than {self._head_bytes} bytes")

    def _read_line(self, line: bytes) -> tuple[bytes, bytes, bool]:
        if len(line) > self._line_bytes:
            self._too_long(line + b"\r\n")
        match = _REQUEST_LINE.fullmatch(line)
        if match is None:
            raise RefusedError(400, "the request line is not valid")
        method, target, version = match.groups()
        if version not in (b"HTTP/1.1", b"HTTP/1.0"):
            raise RefusedError(505, "only HTTP/1.1 and HTTP/1.0 are understood")
        if method not in _METHODS:
            raise RefusedError(501, "this method is not understood")
        if b"#" in target or (target[:1] != b"/" and target[:7].lower() != b"http://"):
            raise RefusedError(400, "the request's target must be a path of visible ASCII characters")
        read = method, target, version == b"HTTP/1.1"
        if len(line) <= _REMEMBERED_BYTES:
            if len(self._lines) >= 4 * _REMEMBERED:  # 10,000 models have as many lines.
                self._lines.clear()
            self._lines[line] = read
        return read

    def _rule(self, name: bytes, value: bytes) -> tuple[bool, int]:
        if name == b"host":
            if not _HOST.fullmatch(value):
                raise RefusedError(400, "Host is not valid")
            return False, HOST
        if name == b"content-length":
            if not value.isdigit() or (len(value) > 1 and value[:1] == b"0"):
                raise RefusedError(400, "Content-Length must be one plain number")
            if len(value) > 18 or int(value) > self._body_bytes:
                raise RefusedError(413, f"the body is larger than {self._body_bytes} bytes")
            return True, LENGTH
        if name == b"transfer-encoding":
            if value.lower() != b"chunked":
                raise RefusedError(400, "Transfer-Encoding must be one 'chunked'")
            return False, CODING
        if name == b"expect":
            if value.lower() != b"100-continue":
                raise RefusedError(417, "only 'Expect: 100-continue' is understood")
            return False, EXPECT
        return _passed_on(name, value)

    def _read_rest(self, head: RequestHead, flags: int) -> None:
        """What few requests have: no Host, a target with an authority, chunks, an expectation, a Connection."""
        values = head.values
        if not flags & HOST and head.takes_chunks:
            raise RefusedError(400, "a request needs a Host")
        if head.target[:1] != b"/":
            _, _, authority, path = head.target.split(b"/", 3) if head.target.count(b"/") > 2 else (b"",) * 4
            if not path or not authority or authority.lower() != values.get(b"host", b"").lower():
                raise RefusedError(400, "the request's target names another host")
            head.target = b"/" + path
            head.line = b"%s %s" % (head.method, head.target)
        if flags & CODING:
            if flags & LENGTH or not head.takes_chunks:
                raise RefusedError(400, "the request's framing is ambiguous")
            head.length = CHUNKED
        head.expects = bool(flags & EXPECT) and head.takes_chunks
        if flags & CONNECTION and values[b"connection"].lower() != b"keep-alive":
            named = {one.strip(b" \t").lower() for one in values[b"connection"].split(b",")}
            if b"close" in named:
                head.keep_alive = False
            named -= _NOT_DROPPED
            if named:
                head.passed = [line for line in head.passed if line.partition(b":")[0] not in named]


_NOT_DROPPED = frozenset(b"close keep-alive content-length x-request-id".split()) | {b""}
"""What a Connection field cannot have dropped: it names fields of the client's, not ours."""


def _passed_on(name: bytes, value: bytes) -> tuple[bool, int]:
    if name == b"connection":
        return False, CONNECTION
    if name == b"x-request-id":
        return (True, REQUEST_ID) if _REQUEST_ID.fullmatch(value) else (False, UNUSABLE)
    if name == b"accept-encoding":
        return True, ACCEPTS
    if name == b"traceparent":
        return True, TRACED
    if b"_" in name:
        twin = name.replace(b"_", b"-")
        if twin in _FRAMING:
            raise RefusedError(400, "a header's name must not look like another's")
        return not (twin[:9] == b"x-sluice-" or twin == b"x-request-id" or twin in HOP_BY_HOP), 0
    return not (name[:9] == b"x-sluice-" or name in HOP_BY_HOP), 0


class AnswerReader(Remembered[AnswerHead]):
    """Reads heads of servers' answers. Raises AnswerError."""

    def __init__(self, head_bytes: int = 64 * 1024) -> None:
        super().__init__()
        self._head_bytes = head_bytes
        self._fields = _Fields(_answer_rule, head_bytes)

    def __missing__(self, data: bytes) -> AnswerHead:
        if len(data) > self._head_bytes:
            raise AnswerError("the head is too long")
        lines = data.split(b"\r\n")
        match = _STATUS_LINE.fullmatch(lines.pop(0))
        if match is None:
            raise AnswerError("not an HTTP/1 status line")
        status, keep_alive = int(match[2]), match[1] == b"1"
        fields, passed, flags = self._fields, [], 0
        values: dict[bytes, bytes] = {}
        try:
            for line in lines:
                name, value, passed_line, flag = fields[line]
                if flag:
                    if flags & flag & (LENGTH | CODING):
                        raise AnswerError("framed twice")
                    flags |= flag
                    values[name] = value
                    if flag == CONNECTION and b"close" in value.lower():
                        keep_alive = False
                if passed_line is not None:
                    passed.append(passed_line)
        except RefusedError as exc:
            raise AnswerError(exc.text) from exc
        length = _answers_length(flags, values)
        if status < 200 or status in (204, 304):
            length = 0
            passed = [line for line in passed if not line.startswith(b"content-length:")]
        head = AnswerHead(status, keep_alive, length, b"".join(passed), values)
        self.remember(data, head, len(lines))
        return head

    def check_part(self, part: bytes) -> None:
        """Raise AnswerError for what can no longer become a head."""
        if len(part) > self._head_bytes or _NEVER.search(part):
            raise AnswerError("not a head")


def _answers_length(flags: int, values: dict[bytes, bytes]) -> int:
    if flags & (LENGTH | CODING) == LENGTH:
        return int(values[b"content-length"])
    if flags & LENGTH:
        raise AnswerError("framed by length and by chunks")
    return CHUNKED if flags & CODING else UNTIL_CLOSE


_TOLD = (b"content-encoding", b"inference-header-content-length")


def _answer_rule(name: bytes, value: bytes) -> tuple[bool, int]:
    if name == b"content-length":
        if not value.isdigit() or len(value) > 18 or (len(value) > 1 and value[:1] == b"0"):
            raise AnswerError("Content-Length is not one plain number")
        return True, LENGTH
    if name == b"transfer-encoding":
        if value.lower() != b"chunked":
            raise AnswerError("an unknown transfer coding")
        return False, CODING
    if name == b"connection":
        return False, CONNECTION
    is_kept_here = name[:9] == b"x-sluice-" or name == b"x-request-id" or name in HOP_BY_HOP
    return not is_kept_here, TOLD if name in _TOLD else 0
