"""Where an HTTP message ends, for load and upstream: bytes counted by Content-Length, nothing else understood."""


class Message:
    """Counts the bytes of one HTTP message after another. Requests and answers alike must have a length."""

    __slots__ = ("_head", "_left")

    def __init__(self) -> None:
        self._head = b""
        self._left = -1

    @property
    def is_new(self) -> bool:
        """Has nothing of the next message come yet?"""
        return self._left < 0 and not self._head

    def is_whole_with(self, data: bytes) -> bool:
        """Take the next bytes; True when they end the message. Raises ValueError where no length is given."""
        if self._left >= 0:
            self._left -= len(data)
        else:
            self._head += data
            end = self._head.find(b"\r\n\r\n")
            if end < 0:
                return False
            self._left = end + 4 + _content_length(self._head[:end]) - len(self._head)
        if self._left > 0:
            return False
        self._head, self._left = b"", -1
        return True


def _content_length(head: bytes) -> int:
    lowered = head.lower()
    at = lowered.find(b"\r\ncontent-length:")
    if at < 0:
        raise ValueError(f"a message without a length: {head!r}")
    return int(lowered[at + 17 :].partition(b"\r\n")[0])
