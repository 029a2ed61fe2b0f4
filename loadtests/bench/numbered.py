"""Numbered requests at a steady rate, over kept and over new connections: exactly one outcome for each number.

    python -m loadtests.bench.numbered '{"address": "127.0.0.1:8000", "requests": 1000000, ...}'

A process of its own. It says how far it is, a line of JSON each time; goes on beyond `requests` until its input is
closed; and says what became of all of them as its last line. Whom to blame for a failure is not its business: it tells
when each happened and on which connection.
"""

import asyncio
import json
import sys
import time
from collections import deque
from dataclasses import asdict, dataclass, field
from typing import Any, cast

import uvloop

SAY_EVERY_S = 0.1
PACE_S = 0.002
LATE_MOST = 2_000
"""Requests that may be overdue; whatever cannot be sent beyond is not caught up with."""
DRAIN_S = 15.0
BODY = b'{"inputs": [{"name": "image", "datatype": "FP32", "shape": [1, 4], "data": [0.1, 0.2, 0.3, 0.4]}]}'


@dataclass(frozen=True, slots=True)
class Ask:
    """`new_share` of the requests go over a connection of their own, the others over `kept` ones."""

    address: str
    model: str
    requests: int
    rate: float
    kept: int
    new_share: float


@dataclass(frozen=True, slots=True)
class Broken:
    """A request that failed, or (number -1) a kept connection that was closed without a word."""

    number: int
    at_s: float
    port: int
    why: str


@dataclass(slots=True)
class Got:
    """What became of them. `twice` counts numbers with two outcomes; those `sent` without any are in `without`."""

    sent: int = 0
    answered: int = 0
    twice: int = 0
    without: int = 0
    announced: int = 0
    seconds: float = 0.0
    p50_us: float = 0.0
    p99_us: float = 0.0
    longest_us: float = 0.0
    broken: list[Broken] = field(default_factory=list)


class Sender:
    """Hands out numbers at the rate, and writes down what becomes of each."""

    def __init__(self, ask: Ask) -> None:
        self.ask = ask
        host, _, port = ask.address.rpartition(":")
        self.host, self.port = host, int(port)
        self.got = Got()
        self.idle: deque[Connection] = deque()
        self.outcomes = bytearray()
        self.took_us: list[float] = []
        self.is_ending = asyncio.Event()
        self.connecting: set[asyncio.Task[None]] = set()

    def number(self) -> int:
        self.outcomes.append(0)
        self.got.sent += 1
        return self.got.sent - 1

    def ended(self, number: int, broken: Broken | None, took_s: float) -> None:
        if self.outcomes[number]:
            self.got.twice += 1
        elif broken is not None:
            self.outcomes[number] = 2
            self.got.broken.append(broken)
        else:
            self.outcomes[number] = 1
            self.got.answered += 1
            self.took_us.append(took_s * 1e6)

    def connect(self, is_kept: bool) -> None:
        task = asyncio.get_running_loop().create_task(self._connect(is_kept))
        self.connecting.add(task)
        task.add_done_callback(self.connecting.discard)

    async def _connect(self, is_kept: bool) -> None:
        number = -1 if is_kept else self.number()
        loop, began_s = asyncio.get_running_loop(), time.monotonic()
        try:
            async with asyncio.timeout(10.0):
                _, connection = await loop.create_connection(lambda: Connection(self, is_kept), self.host, self.port)
        except (OSError, TimeoutError) as exc:
            refused = Broken(number, time.monotonic(), 0, f"no connection: {exc!r}")
            if is_kept:
                self.got.broken.append(refused)
                await asyncio.sleep(0.05)
                self.connect(True)
            else:
                self.ended(number, refused, time.monotonic() - began_s)
            return
        if is_kept:
            self.idle.append(connection)
        else:
            connection.send(number)

    async def run(self) -> Got:
        began_s = time.monotonic()
        for _ in range(self.ask.kept):
            self.connect(True)
        saying = asyncio.get_running_loop().create_task(self._say_for_ever())
        await self._send_all()
        ends_s = time.monotonic() + DRAIN_S
        while 0 in self.outcomes and time.monotonic() < ends_s:
            await asyncio.sleep(0.01)
        saying.cancel()
        got, took = self.got, sorted(self.took_us)
        got.without, got.seconds = self.outcomes.count(0), time.monotonic() - began_s
        if took:
            got.p50_us, got.p99_us, got.longest_us = took[len(took) // 2], took[len(took) * 99 // 100], took[-1]
        return got

    async def _send_all(self) -> None:
        due, share, last_s = 0.0, 0.0, time.monotonic()
        while self.got.sent < self.ask.requests or not self.is_ending.is_set():
            await asyncio.sleep(PACE_S)
            now_s = time.monotonic()
            due, last_s = min(LATE_MOST, due + (now_s - last_s) * self.ask.rate), now_s
            while due >= 1.0:
                if share >= 1.0:
                    share -= 1.0
                    self.connect(False)
                elif self.idle:
                    self.idle.popleft().send(self.number())
                else:
                    break
                due, share = due - 1.0, share + self.ask.new_share

    async def _say_for_ever(self) -> None:
        while True:
            await asyncio.sleep(SAY_EVERY_S)
            say({"sent": self.got.sent, "broken": len(self.got.broken)})


class Connection(asyncio.Protocol):
    """One connection, one request at a time."""

    __slots__ = ("_is_kept", "_number", "_port", "_received", "_sender", "_sent_s", "_transport")

    def __init__(self, sender: Sender, is_kept: bool) -> None:
        self._sender = sender
        self._is_kept = is_kept
        self._number = -1
        self._received = b""
        self._sent_s = 0.0
        self._port = 0
        self._transport: asyncio.Transport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)  # uvloop's are not subclasses.
        self._port = transport.get_extra_info("sockname")[1]

    def send(self, number: int) -> None:
        assert self._transport is not None
        self._number, self._sent_s = number, time.monotonic()
        ask = self._sender.ask
        close = b"" if self._is_kept else b"connection: close\r\n"
        self._transport.write(
            b"POST /v2/models/%s/infer HTTP/1.1\r\nhost: %s\r\nx-request-id: %d\r\n%scontent-length: %d\r\n\r\n%s"
            % (ask.model.encode(), ask.address.encode(), number, close, len(BODY), BODY)
        )

    def data_received(self, data: bytes) -> None:
        self._received += data
        end = self._received.find(b"\r\n\r\n")
        if end < 0:
            return
        head = self._received[:end].lower()
        if len(self._received) < end + 4 + int(_field(head, b"content-length") or b"0"):
            return
        self._received = b""
        number, self._number = self._number, -1
        why = ""
        if not head.startswith(b"http/1.1 200 "):
            why = head.split(b"\r\n", 1)[0].decode("latin-1")
        elif _field(head, b"x-request-id") != b"%d" % number:
            why = f"another's answer: {_field(head, b'x-request-id')!r}"
        now_s = time.monotonic()
        self._sender.ended(number, Broken(number, now_s, self._port, why) if why else None, now_s - self._sent_s)
        self._go_on(_field(head, b"connection") == b"close")

    def _go_on(self, is_last: bool) -> None:
        assert self._transport is not None
        if not is_last and self._is_kept:
            self._sender.idle.append(self)
            return
        if self._is_kept:
            self._sender.got.announced += 1
            self._sender.connect(True)
        self._is_kept = False
        self._transport.close()

    def connection_lost(self, exc: Exception | None) -> None:
        now_s, sender = time.monotonic(), self._sender
        if self._number >= 0:
            why = f"the connection was lost: {exc!r}"
            sender.ended(self._number, Broken(self._number, now_s, self._port, why), 0.0)
        elif self._is_kept:
            sender.got.broken.append(Broken(-1, now_s, self._port, "closed without a word"))
            if self in sender.idle:
                sender.idle.remove(self)
        if self._is_kept and not sender.is_ending.is_set():
            sender.connect(True)


def _field(head: bytes, name: bytes) -> bytes | None:
    at = head.find(b"\r\n" + name + b":")
    return None if at < 0 else head[at + len(name) + 3 :].partition(b"\r\n")[0].strip()


def say(message: dict[str, Any]) -> None:
    sys.stdout.write(json.dumps(message) + "\n")
    sys.stdout.flush()


async def play(ask: Ask) -> None:
    sender = Sender(ask)
    asyncio.get_running_loop().add_reader(sys.stdin, sender.is_ending.set)  # It is closed: nothing is ever said.
    got = await sender.run()
    say({"got": asdict(got)})


if __name__ == "__main__":
    uvloop.run(play(Ask(**json.loads(sys.argv[1]))))
