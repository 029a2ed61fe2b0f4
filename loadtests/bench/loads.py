"""Two ways to load a server over a few connections: in a closed loop, or at planned times whatever becomes of them.

A latency runs from the time when a request was to be sent. In a closed loop that is when it was sent.
"""

import abc
import asyncio
import contextlib
import itertools
import random
from array import array
from collections import deque
from collections.abc import AsyncIterator, Callable, Sequence
from time import perf_counter
from typing import cast

from loadtests.bench.asking import Request
from loadtests.bench.timer import Timer
from loadtests.errors import BenchError
from loadtests.peers.message import Message

Heard = Callable[[float, float, bytes], None]
"""Takes the time when a request was due, the time of its answer, and the answer's last piece."""


class Asking(asyncio.Protocol):
    """One connection: one request at a time, and whoever sent it hears of its answer."""

    def __init__(self, load: "Load") -> None:
        self._load = load
        self._answer = Message()
        self._transport: asyncio.Transport | None = None
        self.planned_s = 0.0

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)  # uvloop's are not subclasses.

    def ask(self, planned_s: float, request: Request) -> None:
        assert self._transport is not None
        self.planned_s = planned_s
        self._transport.writelines(request)

    def data_received(self, data: bytes) -> None:
        if self._answer.is_new and not data.startswith(b"HTTP/1.1 200 "):
            self._load.fail(f"an answer that is not 200: {data[:200]!r}")
        elif self._answer.is_whole_with(data):
            self._load.answered(self, data)

    def connection_lost(self, exc: Exception | None) -> None:
        self._load.fail(f"the connection was lost: {exc}")

    def close(self) -> None:
        assert self._transport is not None
        self._transport.close()


class Load(abc.ABC):
    """Ends after `stop` with the last answer, or with the first failure."""

    def __init__(self) -> None:
        self.latencies_us = array("d")
        self.over: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._is_stopping = False

    @abc.abstractmethod
    def begin(self, connections: Sequence[Asking]) -> None: ...

    @abc.abstractmethod
    def answered(self, connection: Asking, data: bytes) -> None:
        """An answer is whole; `data` is its last piece, which for a small one is all of it."""

    def stop(self) -> None:
        """Send no more."""
        self._is_stopping = True

    def fail(self, text: str) -> None:
        if not self.over.done():
            self.over.set_exception(BenchError(text))

    def close(self) -> None:
        self.over.cancel()

    def _end(self) -> None:
        if not self.over.done():
            self.over.set_result(None)


class Closed(Load):
    """Each connection asks, waits and asks again: as many requests in flight as there are connections."""

    def __init__(self, requests: Sequence[Request]) -> None:
        super().__init__()
        self._requests = itertools.cycle(requests)
        self._waiting = 0

    def begin(self, connections: Sequence[Asking]) -> None:
        self._waiting = len(connections)
        for connection in connections:
            connection.ask(perf_counter(), next(self._requests))

    def answered(self, connection: Asking, data: bytes) -> None:
        now_s = perf_counter()
        self.latencies_us.append((now_s - connection.planned_s) * 1e6)
        if not self._is_stopping:
            connection.ask(now_s, next(self._requests))
            return
        self._waiting -= 1
        if not self._waiting:
            self._end()


class Open(Load):
    """Requests at random times (exponential gaps, always the same ones), `rate` of them a second.

    One that finds all connections busy waits for one, and that counts as its latency.
    """

    def __init__(self, requests: Sequence[Request], rate: float, heard: Heard | None = None) -> None:
        super().__init__()
        self._requests = itertools.cycle(requests)
        self._rate = rate
        self._heard = heard
        self._random = random.Random(0)
        self._free: deque[Asking] = deque()
        self._due: deque[float] = deque()
        self._connections = 0
        self._next_s = 0.0
        self._timer = Timer(self._plan)

    def begin(self, connections: Sequence[Asking]) -> None:
        self._free.extend(connections)
        self._connections = len(connections)
        self._next_s = perf_counter()
        self._plan()

    def stop(self) -> None:
        super().stop()
        self._end_if_quiet()

    def close(self) -> None:
        super().close()
        self._timer.close()

    def _plan(self) -> None:
        """Send what is due, and wait for the next time."""
        if self._is_stopping:
            return
        now_s = perf_counter()
        while self._next_s <= now_s:
            self._due.append(self._next_s)
            self._next_s += self._random.expovariate(self._rate)
        while self._due and self._free:
            self._free.popleft().ask(self._due.popleft(), next(self._requests))
        self._timer.set(self._next_s)

    def answered(self, connection: Asking, data: bytes) -> None:
        now_s = perf_counter()
        self.latencies_us.append((now_s - connection.planned_s) * 1e6)
        if self._heard is not None:
            self._heard(connection.planned_s, now_s, data)
        if self._due:
            connection.ask(self._due.popleft(), next(self._requests))
            return
        self._free.append(connection)
        if self._is_stopping:
            self._end_if_quiet()

    def _end_if_quiet(self) -> None:
        if len(self._free) == self._connections:
            self._end()


@contextlib.asynccontextmanager
async def loading(load: Load, address: str, connections: int) -> AsyncIterator[None]:
    """The load running over that many connections to HOST:PORT. All is closed at the end."""
    host, _, port = address.rpartition(":")
    loop = asyncio.get_running_loop()
    asked: list[Asking] = []
    try:
        for _ in range(connections):
            asked.append((await loop.create_connection(lambda: Asking(load), host, int(port)))[1])
        load.begin(asked)
        yield
    finally:
        load.close()
        for connection in asked:
            connection.close()
        await asyncio.sleep(0)


async def unless_failed(load: Load, seconds: float) -> None:
    """Let it run. Raises what ended it."""
    done, _ = await asyncio.wait([load.over], timeout=seconds)
    for over in done:
        over.result()


async def finish(load: Load, timeout_s: float) -> None:
    """Stop, and wait for what is under way. Raises BenchError when an answer is missing."""
    load.stop()
    await asyncio.wait([load.over], timeout=timeout_s)
    if not load.over.done():
        raise BenchError(f"not all requests were answered within {timeout_s:g} s")
    load.over.result()
