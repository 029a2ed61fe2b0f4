"""Heads that were read, by their bytes: so many as fit, the oldest forgotten first. Knows nothing of what they say."""

from collections import deque
from typing import TypeVar

HEAD_BYTES, HEAD_FIELDS, HEADS_BYTES = 1024, 32, 4 * 2**20
"""Heads up to this size are remembered, and so many bytes of them: ten thousand usual ones. What is made of a head
takes some six times its bytes, and twelve times at worst: 50 MB in all."""

Head = TypeVar("Head")


class Remembered(dict[bytes, Head]):
    """What a reader read. It reads what is asked for and not here in its `__missing__`."""

    def __init__(self) -> None:
        super().__init__()
        self._order: deque[bytes] = deque()
        self._bytes = 0

    def remember(self, data: bytes, head: Head, fields: int) -> None:
        """Keep it, if it is small. Old ones are forgotten one by one, since all at once would hold the loop up."""
        if len(data) > HEAD_BYTES or fields > HEAD_FIELDS:
            return
        self[data] = head
        self._order.append(data)
        self._bytes += len(data)
        while self._bytes > HEADS_BYTES:
            oldest = self._order.popleft()
            self._bytes -= len(oldest)
            del self[oldest]

    def clear(self) -> None:
        super().clear()
        self._order.clear()
        self._bytes = 0
