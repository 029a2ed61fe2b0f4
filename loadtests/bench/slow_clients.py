"""Thousands of clients that hardly send or hardly read, in a process of its own. Prints what became of them as JSON.

    python -m loadtests.bench.slow_clients '{"address": "127.0.0.1:8000", "manner": "heads", "count": 5000, ...}'

On bare sockets and one epoll: what they cost is taken from the same cores as the gateway. Each client keeps the time
of its first byte, and of the moment when it could see that it was cut: by an answer that is early, an end or a reset.
"""

import json
import select
import socket
import sys
from collections import Counter, deque
from dataclasses import asdict, dataclass
from time import monotonic

from loadtests.errors import BenchError

HEADS, SILENT_BODIES, TRICKLED_BODIES, READERS, DEAF_READERS = (
    "heads", "silent_bodies", "trickled_bodies", "readers", "deaf_readers",
)  # fmt: skip
RECEIVE_BYTES, READ_BYTES = 2048, 8
"""A reader's buffer in the kernel, and what it takes from it at a time."""
POLL_S = 0.002
"""Short, so that what they do comes as from many and not in bursts."""
BEFORE_SILENCE = 20_000
"""What comes of a silent body: enough for the rate not to be what it is cut for."""
_HEAD = b"POST /v2/models/%s/infer HTTP/1.1\r\nhost: slow\r\ncontent-type: application/json\r\n"
_DRIP = b"x-slow: 1\r\n"


@dataclass(frozen=True, slots=True)
class Ask:
    """`per_s` clients a second connect, until there are `count`; each acts every `interval_s`. All ends after `most_s`.

    `models` are asked in turn.
    """

    address: str
    manner: str
    count: int
    per_s: float
    interval_s: float
    most_s: float
    models: list[str]


@dataclass(frozen=True, slots=True)
class Got:
    """`cut_s` are the times from a client's first byte to its cut, in order; `statuses` what some were told before."""

    made: int
    uncut: int
    cut_s: list[float]
    statuses: dict[str, int]


class SlowClient:
    """One connection."""

    __slots__ = ("_at", "_manner", "_start", "began_s", "due_s", "heard", "is_open", "sock")

    def __init__(self, ask: Ask, number: int) -> None:
        self._manner, self._at = ask.manner, 0
        self.heard = b""
        self.began_s = self.due_s = 0.0
        self.is_open = True
        self.sock = socket.socket()
        self.sock.setblocking(False)
        head = _HEAD % ask.models[number % len(ask.models)].encode()
        self._start = {
            HEADS: head,
            SILENT_BODIES: head + b"content-length: 100000\r\n\r\n" + bytes(BEFORE_SILENCE),
            TRICKLED_BODIES: head + b"content-length: 100000\r\n\r\n{",
        }.get(ask.manner, head + b"content-length: 2\r\n\r\n{}")
        if self.reads_slowly:
            self.sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, RECEIVE_BYTES)
        host, _, port = ask.address.rpartition(":")
        self.sock.connect_ex((host, int(port)))

    @property
    def reads_slowly(self) -> bool:
        return self._manner in (READERS, DEAF_READERS)

    def begin(self, now_s: float, interval_s: float) -> None:
        """The connection is made. Raises OSError."""
        self.began_s, self.due_s = now_s, now_s + interval_s
        self.sock.send(self._start)

    def act(self) -> None:
        """Do the next little thing. Raises OSError when the connection is gone."""
        if self._manner == HEADS:
            self.sock.send(_DRIP[self._at : self._at + 1])
            self._at = (self._at + 1) % len(_DRIP)
        elif self._manner == TRICKLED_BODIES:
            self.sock.send(b"0123456789")
        elif self._manner == READERS:
            self.hear(READ_BYTES)

    def hear(self, most: int) -> bool:
        """Read; False at the end. Raises OSError when the connection is gone."""
        try:
            data = self.sock.recv(most)
        except BlockingIOError:
            return True
        self.heard = (self.heard + data)[:12]
        return bool(data)


class SlowClients:
    """All of them."""

    def __init__(self, ask: Ask) -> None:
        self._ask = ask
        self._poll = select.epoll()
        self._clients: dict[int, SlowClient] = {}
        self._due: deque[SlowClient] = deque()
        self._made = 0
        self._cut_s: list[float] = []
        self._statuses: Counter[str] = Counter()

    def play(self) -> Got:
        began_s, ask = monotonic(), self._ask
        while (now_s := monotonic()) < began_s + ask.most_s:
            while self._made < min(ask.count, (now_s - began_s) * ask.per_s):
                self._connect()
            if self._made == ask.count and not self._clients:
                break
            for fd, _ in self._poll.poll(POLL_S, 1000):
                self._happened(self._clients[fd])
            self._act(monotonic())
        uncut = len(self._clients)
        for client in self._clients.values():
            client.sock.close()
        return Got(self._made, uncut, sorted(self._cut_s), dict(self._statuses))

    def _connect(self) -> None:
        client = SlowClient(self._ask, self._made)
        self._made += 1
        self._clients[client.sock.fileno()] = client
        self._poll.register(client.sock, select.EPOLLOUT)

    def _happened(self, client: SlowClient) -> None:
        now_s = monotonic()
        try:
            if not client.began_s:
                client.begin(now_s, self._ask.interval_s)
                watched = 0 if client.reads_slowly else select.EPOLLIN
                self._poll.modify(client.sock, watched | select.EPOLLRDHUP)
                self._due.append(client)
            else:  # Whoever has not sent his request is told only that it is over; who reads slowly hears the end only.
                client.hear(4096)
                self._cut(client, now_s)
        except OSError:
            self._cut(client, now_s)

    def _act(self, now_s: float) -> None:
        while self._due and self._due[0].due_s <= now_s:
            client = self._due.popleft()
            if not client.is_open:
                continue
            client.due_s = now_s + self._ask.interval_s
            try:
                client.act()
            except OSError:
                self._cut(client, now_s)
                continue
            self._due.append(client)

    def _cut(self, client: SlowClient, now_s: float) -> None:
        self._poll.unregister(client.sock)
        del self._clients[client.sock.fileno()]
        client.is_open = False
        client.sock.close()
        if not client.began_s:
            raise BenchError("the gateway could not be connected to")
        self._cut_s.append(now_s - client.began_s)
        if client.heard:
            self._statuses[client.heard[9:12].decode("latin-1")] += 1


def main() -> None:
    try:
        got = SlowClients(Ask(**json.loads(sys.argv[1]))).play()
    except (BenchError, OSError) as exc:
        raise SystemExit(f"{exc}") from exc
    sys.stdout.write(json.dumps(asdict(got)))


if __name__ == "__main__":
    main()
