"""Who is at the other ends of the gateway's connections: clients that keep what they read, servers that check it."""

from collections.abc import Callable
from dataclasses import dataclass

from gateway.heads import Request
from loadtests.fuzz.oracle import Read, WrongError, check_canonical, is_same, requests_of
from loadtests.fuzz.wire import Wire


class ClientEnd:
    """A client. `handled` are the requests that the gateway took from it, in order."""

    def __init__(self) -> None:
        self.wire: Wire
        self.sent: list[bytes] = []
        self.received = bytearray()
        self.handled: list[Request] = []
        self.has_ended = self.is_closed = False
        self.left = False
        """Did the client go away by itself?"""

    def send(self, data: bytes) -> None:
        self.sent.append(data)
        self.wire.feed(data)

    def half_close(self) -> None:
        self.wire.feed_eof()

    def leave(self, *, by_reset: bool) -> None:
        self.left = True
        if by_reset:
            self.wire.reset()
        else:
            self.wire.take(None)
            self.wire.feed_eof()

    # wire.Peer

    def took(self, data: bytes) -> None:
        self.received += data

    def saw_eof(self) -> None:
        self.has_ended = True

    def saw_close(self) -> None:
        self.has_ended = self.is_closed = True


@dataclass(frozen=True, slots=True)
class Got:
    """A request as a server got it."""

    method: bytes
    target: bytes
    fields: dict[bytes, bytes]
    body: bytes

    @property
    def request_id(self) -> bytes:
        return self.fields[b"x-request-id"]


class ServerEnd:
    """A server's end of one connection. What comes must be canonical requests, one at a time, and nothing else."""

    def __init__(self, server: "VirtualServer") -> None:
        self.server = server
        self.wire: Wire
        self.is_closed = self.has_begun = False
        self.requests: list[Got] = []
        self.left: list[bytes] = []
        """What it has still to answer; None stands for a close."""
        self._inbox = bytearray()

    def took(self, data: bytes) -> None:
        if not self._inbox:
            self.server.began(self)
        self._inbox += data
        while self._inbox:
            end = self._inbox.find(b"\r\n\r\n")
            if end < 0:
                return
            head = bytes(self._inbox[:end])
            method, target, fields = check_canonical(head, self.server.address)
            whole = end + 4 + int(fields.get(b"content-length", b"0"))
            if len(self._inbox) < whole:
                return
            data = bytes(self._inbox[:whole])
            del self._inbox[:whole]
            if self._inbox:
                raise WrongError(f"more than one request at once: {bytes(self._inbox[:200])!r}")
            got = Got(method, target, fields, data[end + 4 :])
            check_same(requests_of(data), got)
            self.requests.append(got)
            self.server.got(self, got)

    def saw_eof(self) -> None:
        pass

    def saw_close(self) -> None:
        self.is_closed = True
        self.server.ends.remove(self)


def check_same(read: list[Read], got: Got) -> None:
    """Does llhttp read the same one request?"""
    if len(read) != 1 or (read[0].method, read[0].target) != (got.method, got.target):
        raise WrongError(f"llhttp reads {read!r} where {got!r} was sent")
    if not is_same(got.body, read[0].body):
        raise WrongError(f"llhttp reads the body {read[0].body!r} where {got.body!r} was sent")


class VirtualServer:
    """One server's address. `answer` is called for each whole request, `begun` for the first byte of each."""

    def __init__(self, address: bytes) -> None:
        self.address = address
        self.ends: list[ServerEnd] = []
        self.requests: list[Got] = []
        self.answer: Callable[[ServerEnd, Got], None] = lambda end, got: None
        self.begun: Callable[[ServerEnd], None] = lambda end: None
        self.check: Callable[[Got], None] = lambda got: None

    def began(self, end: ServerEnd) -> None:
        self.begun(end)

    def got(self, end: ServerEnd, got: Got) -> None:
        self.check(got)
        self.requests.append(got)
        self.answer(end, got)
