"""Heads of HTTP/1.1 messages, read strictly: what has more than one reading is refused. Bytes in, values out.

A line that was read is remembered, since clients and servers send the same lines again and again: most of a head is a
few lookups. Only what is valid by itself is remembered; what depends on other lines is checked for every head. The
grammar is RFC 9112's, in the stricter reading wherever servers were found to differ.
"""

import re
from collections.abc import Callable
from typing import NoReturn

from gateway.answers import RefusedError

END = b"\r\n\r\n"

Field = tuple[bytes, bytes, bytes | None, int]
"""Name in lower case, value, the line as it is passed on (None: it stays here), and what it is of the flags below."""
FieldRule = Callable[[bytes, bytes], tuple[bool, int]]
"""Is a field passed on, and its flags; raises when its value is never right."""

HOST, LENGTH, CODING, EXPECT, CONNECTION, REQUEST_ID, ACCEPTS, TOLD, UNUSABLE = (1 << n for n in range(9))
"""UNUSABLE lines are left out. A head counts as having one already, so that each takes the way of a second one."""
_ONCE = HOST | LENGTH | CODING | EXPECT | REQUEST_ID | UNUSABLE
_USUAL = HOST | LENGTH | REQUEST_ID | ACCEPTS | UNUSABLE
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


class AnswerError(Exception):
    """A server's answer that has no single reading."""


class Request:
    """A request. `values` are its fields by lower-case name, `passed` the lines that go on to a server.

    `body` is the chunks as they came, of `size` bytes in all. `length` is the body's by its head, -1 for a chunked one.
    `takes_chunks` is false for HTTP/1.0, whose clients know an answer's end by its length or by the close only.
    """

    __slots__ = (
        "accepts", "body", "expects", "has_id", "held_bytes", "keep_alive", "length", "line", "method", "passed",
        "size", "takes_chunks", "target", "values",
    )  # fmt: skip

    def __init__(self, line: bytes, method: bytes, target: bytes, takes_chunks: bool) -> None:
        self.line, self.method, self.target = line, method, target
        self.keep_alive = self.takes_chunks = takes_chunks
        self.values: dict[bytes, bytes] = {}
        self.passed: list[bytes] = []
        self.body: list[bytes | memoryview] = []
        self.length = self.size = self.held_bytes = 0
        self.accepts = self.expects = self.has_id = False


class AnswerHead:
    """A server's answer: `passed` are the lines that go on to the client; `length` is -1 for chunks, -2 until close.

    `values` holds only what the gateway itself looks at.
    """

    __slots__ = ("keep_alive", "length", "passed", "status", "values")

    def __init__(self, status: int, keep_alive: bool) -> None:
        self.status, self.keep_alive = status, keep_alive
        self.passed: list[bytes] = []
        self.values: dict[bytes, bytes] = {}
        self.length = 0


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


class RequestReader:
    """Reads heads of requests within the limits given."""

    def __init__(self, line_bytes: int, field_bytes: int, head_bytes: int, head_fields: int, body_bytes: int) -> None:
        self._line_bytes, self._head_bytes, self._head_fields = line_bytes, head_bytes, head_fields
        self._body_bytes = body_bytes
        self._lines: dict[bytes, tuple[bytes, bytes, bool]] = {}
        self._fields = _Fields(self._rule, field_bytes)

    def read(self, head: bytes) -> Request:
        """The request of a whole head, without the empty line at its end. Raises RefusedError."""
        if len(head) > self._head_bytes:
            self._too_long(head)
        lines = head.split(b"\r\n")
        first = lines.pop(0)
        known = self._lines.get(first)
        request = Request(first, *(known if known is not None else self._read_line(first)))
        if len(lines) > self._head_fields:
            raise RefusedError(431, f"the request has more than {self._head_fields} header fields")
        fields, values, passed, flags = self._fields, request.values, request.passed, UNUSABLE
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
        if flags & ~_USUAL or request.target[:1] != b"/" or not flags & HOST:
            self._read_rest(request, flags)
        if flags & LENGTH:
            request.length = int(values[b"content-length"])
        request.accepts = flags & ACCEPTS != 0
        request.has_id = flags & REQUEST_ID != 0
        return request

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

    def _read_rest(self, request: Request, flags: int) -> None:
        """What few requests have: no Host, a target with an authority, chunks, an expectation, a Connection."""
        values = request.values
        if not flags & HOST and request.takes_chunks:
            raise RefusedError(400, "a request needs a Host")
        if request.target[:1] != b"/":
            _, _, authority, path = request.target.split(b"/", 3) if request.target.count(b"/") > 2 else (b"",) * 4
            if not path or not authority or authority.lower() != values.get(b"host", b"").lower():
                raise RefusedError(400, "the request's target names another host")
            request.target = b"/" + path
            request.line = b"%s %s" % (request.method, request.target)
        if flags & CODING:
            if flags & LENGTH or not request.takes_chunks:
                raise RefusedError(400, "the request's framing is ambiguous")
            request.length = CHUNKED
        request.expects = bool(flags & EXPECT) and request.takes_chunks
        if flags & CONNECTION and values[b"connection"].lower() != b"keep-alive":
            named = {one.strip(b" \t").lower() for one in values[b"connection"].split(b",")}
            if b"close" in named:
                request.keep_alive = False
            named -= _NOT_DROPPED
            if named:
                request.passed = [line for line in request.passed if line.partition(b":")[0] not in named]


_NOT_DROPPED = frozenset(b"close keep-alive content-length x-request-id".split()) | {b""}
"""What a Connection field cannot have dropped: it names fields of the client's, not ours."""


def _passed_on(name: bytes, value: bytes) -> tuple[bool, int]:
    if name == b"connection":
        return False, CONNECTION
    if name == b"x-request-id":
        return (True, REQUEST_ID) if _REQUEST_ID.fullmatch(value) else (False, UNUSABLE)
    if name == b"accept-encoding":
        return True, ACCEPTS
    if b"_" in name:
        twin = name.replace(b"_", b"-")
        if twin in _FRAMING:
            raise RefusedError(400, "a header's name must not look like another's")
        return not (twin[:9] == b"x-sluice-" or twin == b"x-request-id" or twin in HOP_BY_HOP), 0
    return not (name[:9] == b"x-sluice-" or name in HOP_BY_HOP), 0


class AnswerReader:
    """Reads heads of servers' answers."""

    def __init__(self, head_bytes: int = 64 * 1024) -> None:
        self._head_bytes = head_bytes
        self._lines: dict[bytes, tuple[int, bool]] = {}
        self._fields = _Fields(_answer_rule, head_bytes)

    def read(self, head: bytes) -> AnswerHead:
        """The answer of a whole head, without the empty line at its end. Raises AnswerError."""
        if len(head) > self._head_bytes:
            raise AnswerError("the head is too long")
        lines = head.split(b"\r\n")
        first = lines.pop(0)
        known = self._lines.get(first)
        answer = AnswerHead(*(known if known is not None else self._read_line(first)))
        fields, values, passed, flags = self._fields, answer.values, answer.passed, 0
        try:
            for line in lines:
                name, value, passed_line, flag = fields[line]
                if flag:
                    if flags & flag & (LENGTH | CODING):
                        raise AnswerError("framed twice")
                    flags |= flag
                    values[name] = value
                    if flag == CONNECTION and b"close" in value.lower():
                        answer.keep_alive = False
                if passed_line is not None:
                    passed.append(passed_line)
        except RefusedError as exc:
            raise AnswerError(exc.text) from exc
        if flags & (LENGTH | CODING) == LENGTH:
            answer.length = int(values[b"content-length"])
        elif flags & LENGTH:
            raise AnswerError("framed by length and by chunks")
        else:
            answer.length = CHUNKED if flags & CODING else UNTIL_CLOSE
        if answer.status < 200 or answer.status in (204, 304):
            answer.length = 0
            answer.passed = [line for line in passed if not line.startswith(b"content-length:")]
        return answer

    def check_part(self, part: bytes) -> None:
        """Raise AnswerError for what can no longer become a head."""
        if len(part) > self._head_bytes or _NEVER.search(part):
            raise AnswerError("not a head")

    def _read_line(self, line: bytes) -> tuple[int, bool]:
        match = _STATUS_LINE.fullmatch(line)
        if match is None:
            raise AnswerError("not an HTTP/1 status line")
        read = int(match[2]), match[1] == b"1"
        if len(self._lines) < 1000:
            self._lines[line] = read
        return read


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
