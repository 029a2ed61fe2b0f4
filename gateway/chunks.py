"""The chunked transfer coding (RFC 9112, 7.1), taken apart strictly and within limits. Bytes in, content out."""

import re
from dataclasses import dataclass

from gateway.answers import RefusedError
from gateway.heads import split_field

_TOKEN = rb"[!#$%&'*+.^_`|~0-9A-Za-z-]+"
_EXTENSION = rb';%s(?:=(?:%s|"(?:[\t !#-\[\]-~]|\\[\t -~])*"))?' % (_TOKEN, _TOKEN)
_SIZE_LINE = re.compile(rb"([0-9A-Fa-f]{1,16})(?:%s)*" % _EXTENSION)
_SIZE_LINE_PART = re.compile(rb"[0-9A-Fa-f]{1,16}(?:;[\t -~]*)?")
_SLICED_BYTES = 16 * 1024
"""Content from this size on is handed on as a view of what was received, not as a copy."""


@dataclass(frozen=True, slots=True)
class ChunkLimits:
    """What a chunked body may be. After `small_chunks`, chunks must be `mean_bytes` long on average."""

    content_bytes: int
    chunks: int
    trailer_bytes: int
    trailer_fields: int
    line_bytes: int = 256
    small_chunks: int = 1024
    mean_bytes: int = 16


UNLIMITED = ChunkLimits(2**62, 2**62, 64 * 1024, 1000, line_bytes=4096, small_chunks=2**62)
"""For servers' answers, which are passed on as they come."""

_SIZE, _CONTENT, _CONTENT_END, _TRAILERS = range(4)


class ChunkReader:
    """One chunked body: `feed` it what comes."""

    __slots__ = ("_chunks", "_fields", "_held", "_left", "_limits", "_state", "_trailer_bytes", "size")

    def __init__(self, limits: ChunkLimits) -> None:
        self._limits = limits
        self._held = b""
        self._state = _SIZE
        self._left = self._chunks = self._fields = self._trailer_bytes = 0
        self.size = 0
        """Bytes of content so far."""

    def feed(self, data: bytes, content: list[bytes | memoryview]) -> bytes | None:
        """Add the content of `data` to `content`. What follows the body when it is over, else None.

        Raises:
            RefusedError: it is not chunked coding, or beyond a limit.
        """
        if self._held:
            data, self._held = self._held + data, b""
        at, end = 0, len(data)
        while True:
            if self._state == _CONTENT:
                taken = min(self._left, end - at)
                if taken:
                    is_small = taken < _SLICED_BYTES
                    content.append(data[at : at + taken] if is_small else memoryview(data)[at : at + taken])
                at += taken
                self._left -= taken
                if self._left:
                    return None
                self._state = _CONTENT_END
            line_end = data.find(b"\r\n", at)
            if line_end < 0:
                self._hold(data[at:])
                return None
            line = data[at:line_end]
            at = line_end + 2
            if self._state == _SIZE:
                self._read_size(line)
            elif self._state == _CONTENT_END:
                if line:
                    raise RefusedError(400, "a chunk is longer than its size")
                self._state = _SIZE
            elif not line:
                return data[at:]
            else:
                self._read_trailer(line)

    def _hold(self, part: bytes) -> None:
        """Keep a part of a line, unless it cannot become one."""
        is_trailer = self._state == _TRAILERS
        most = self._limits.trailer_bytes if is_trailer else self._limits.line_bytes
        bare = part[:-1] if part.endswith(b"\r") else part
        if len(part) > most or b"\n" in bare or b"\r" in bare or (self._state == _CONTENT_END and bare):
            raise RefusedError(400, "a chunk's framing is not valid")
        if self._state == _SIZE and bare and not _SIZE_LINE_PART.fullmatch(bare):
            raise RefusedError(400, "a chunk's size is not valid")
        self._held = part

    def _read_size(self, line: bytes) -> None:
        limits = self._limits
        match = _SIZE_LINE.fullmatch(line)
        if match is None or len(line) > limits.line_bytes:
            raise RefusedError(400, "a chunk's size is not valid")
        self._left = int(match[1], 16)
        if not self._left:
            self._state = _TRAILERS
            return
        self._state = _CONTENT
        self._chunks += 1
        self.size += self._left
        if self.size > limits.content_bytes:
            raise RefusedError(413, f"the body is larger than {limits.content_bytes} bytes")
        small = self._chunks > limits.small_chunks and self.size < self._chunks * limits.mean_bytes
        if small or self._chunks > limits.chunks:
            raise RefusedError(400, "the body comes in too many or too small chunks")

    def _read_trailer(self, line: bytes) -> None:
        """Trailers are checked and dropped; one that would change the framing or the route is refused."""
        self._fields += 1
        self._trailer_bytes += len(line) + 2
        if self._fields > self._limits.trailer_fields or self._trailer_bytes > self._limits.trailer_bytes:
            raise RefusedError(431, "the trailers are too large")
        if split_field(line)[0] in (b"content-length", b"transfer-encoding"):
            raise RefusedError(400, "a trailer must not frame the message")
