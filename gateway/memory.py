"""The bytes a worker holds for others: bodies that arrived, answers not read yet, copies. One sum, one limit."""

import contextlib
import ctypes
import os

from gateway.heads import Request

REFUSING_SHARE = 0.9
"""From this share of the limit on, no new body is taken."""
CLOSING_SHARE = 0.8
"""From this share on, connections are not kept after their answer."""


_M_TRIM_THRESHOLD, _M_TOP_PAD, _M_MMAP_THRESHOLD = -1, -2, -3  # mallopt(3), from malloc.h.
_KEPT_BYTES, _PAD_BYTES, _MAPPED_BYTES = 256 * 2**20, 2**20, 32 * 2**20


def keep_freed_memory() -> None:
    """Have malloc keep what large bodies free: giving it back and taking it again costs a page fault for every 4 KiB,
    a quarter of the CPU time of a body of 600 KB. Does nothing where the C library is not glibc."""
    with contextlib.suppress(AttributeError, OSError):
        mallopt = ctypes.CDLL(None).mallopt
        for option, value in (
            (_M_TRIM_THRESHOLD, _KEPT_BYTES), (_M_TOP_PAD, _PAD_BYTES), (_M_MMAP_THRESHOLD, _MAPPED_BYTES),
        ):  # fmt: skip
            mallopt(option, value)


class ByteLedger:
    """`limit_bytes` is what may be held; a body that would go beyond is refused with 503 and `Retry-After`."""

    __slots__ = ("_closing_bytes", "_refusing_bytes", "held_bytes", "limit_bytes")

    def __init__(self, limit_bytes: int) -> None:
        self.limit_bytes = limit_bytes
        self._refusing_bytes = int(limit_bytes * REFUSING_SHARE)
        self._closing_bytes = int(limit_bytes * CLOSING_SHARE)
        self.held_bytes = 0

    @staticmethod
    def share_of_memory(workers: int) -> int:
        """A quarter of the machine's memory, shared by all workers."""
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") // (4 * workers)

    @property
    def is_full(self) -> bool:
        return self.held_bytes > self.limit_bytes

    @property
    def is_tight(self) -> bool:
        return self.held_bytes > self._closing_bytes

    @property
    def is_half_full(self) -> bool:
        """Copies are dropped from here on: clients' own bodies go first."""
        return 2 * self.held_bytes > self.limit_bytes

    def has_room(self, size: int) -> bool:
        """May a body of this size begin to arrive?"""
        return self.held_bytes + size <= self.limit_bytes and self.held_bytes <= self._refusing_bytes

    def hold(self, request: Request, size: int) -> bool:
        """Account for bytes that came; False when they are too many."""
        self.held_bytes += size
        request.held_bytes += size
        return self.held_bytes <= self.limit_bytes

    def release(self, request: Request) -> None:
        """Let go of a request's body; again does nothing."""
        self.held_bytes -= request.held_bytes
        request.held_bytes = 0
