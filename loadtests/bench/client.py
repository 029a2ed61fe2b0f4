"""The bench's load: a closed loop over a few connections, in a process of its own. Prints what it measured as JSON.

    python -m loadtests.bench.client '{"address": "127.0.0.1:8000", "body": "small_json", ...}'

Each connection sends its next request when its last was answered, so at most `connections` are in flight. Written on
bare protocols: what it costs is taken from the same two cores as the proxy that it measures.
"""

import asyncio
import itertools
import json
import math
import sys
from array import array
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from time import perf_counter
from typing import cast

import numpy as np
import uvloop

from gateway.routes import DEFAULT_STICKY_HEADER
from loadtests.errors import BenchError
from loadtests.peers.message import Message
from loadtests.tensors import Body, binary_body, json_body

KEYS = 1000
"""Sticky clients; enough for a tenth of them to be the candidate's."""


@dataclass(frozen=True, slots=True)
class Ask:
    """What to send: `body` is a key of BODIES; `warm_s` is sent first and not timed."""

    address: str
    body: str
    connections: int
    warm_s: float
    seconds: float


@dataclass(frozen=True, slots=True)
class Got:
    """What came of it. `answered` counts the warm-up too, `timed` does not."""

    answered: int
    timed: int
    seconds: float
    p50_us: float
    p99_us: float


def small_json() -> Body:
    """One digits image: 64 floats as JSON text."""
    return json_body("image", np.linspace(0, 1, 64, dtype=np.float32).round(3).reshape(1, 64))


def binary_602k() -> Body:
    """One ImageNet-sized picture, 3 x 224 x 224 FP32: 602,112 bytes and their JSON head."""
    return binary_body("image", np.zeros((1, 3, 224, 224), dtype=np.float32))


BODIES = {"small_json": small_json, "binary_602k": binary_602k}


def heads_of(body: Body, address: str) -> list[bytes]:
    """One request head for each sticky client."""
    fields = "".join(f"{name}: {value}\r\n" for name, value in body.headers.items())
    start = f"POST /v2/models/digits/infer HTTP/1.1\r\nhost: {address}\r\n{fields}content-length: {len(body.data)}\r\n"
    return [f"{start}{DEFAULT_STICKY_HEADER}: client-{key}\r\n\r\n".encode() for key in range(KEYS)]


class Loop(asyncio.Protocol):
    """One connection: asks, waits, asks again, until told to stop."""

    def __init__(self, heads: Iterator[bytes], body: bytes, latencies_us: "array[float]") -> None:
        self._heads = heads
        self._body = body
        self._latencies_us = latencies_us
        self._answer = Message()
        self._transport: asyncio.Transport | None = None
        self._sent_at = 0.0
        self._is_stopping = False
        self.over: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)  # uvloop's are not subclasses.
        self._send()

    def stop(self) -> None:
        """End after the answer that is awaited now."""
        self._is_stopping = True

    def close(self) -> None:
        assert self._transport is not None
        self.over.cancel()
        self._transport.close()

    def _send(self) -> None:
        assert self._transport is not None
        self._sent_at = perf_counter()
        self._transport.writelines((next(self._heads), self._body))

    def data_received(self, data: bytes) -> None:
        if self._answer.is_new and not data.startswith(b"HTTP/1.1 200 "):
            self._fail(f"an answer that is not 200: {data[:200]!r}")
        elif self._answer.is_whole_with(data):
            self._latencies_us.append((perf_counter() - self._sent_at) * 1e6)
            if not self._is_stopping:
                self._send()
            elif not self.over.done():
                self.over.set_result(None)

    def connection_lost(self, exc: Exception | None) -> None:
        self._fail(f"the connection was lost: {exc}")

    def _fail(self, text: str) -> None:
        if not self.over.done():
            self.over.set_exception(BenchError(text))


async def run(ask: Ask) -> Got:
    """Raises BenchError when any request was not answered with 200."""
    latencies_us = array("d")
    loops = await _connect(ask, latencies_us)
    try:
        await _unless_failed(loops, ask.warm_s)
        warmed, began = len(latencies_us), perf_counter()
        await _unless_failed(loops, ask.seconds)
        timed, seconds = sorted(latencies_us[warmed:]), perf_counter() - began
        for loop in loops:
            loop.stop()
        await asyncio.gather(*(loop.over for loop in loops))
    finally:
        for loop in loops:
            loop.close()
        await asyncio.sleep(0)
    return Got(len(latencies_us), len(timed), seconds, quantile(timed, 0.5), quantile(timed, 0.99))


async def _connect(ask: Ask, latencies_us: "array[float]") -> list[Loop]:
    body = BODIES[ask.body]()
    heads = itertools.cycle(heads_of(body, ask.address))
    host, _, port = ask.address.rpartition(":")
    loop = asyncio.get_running_loop()
    made = [
        loop.create_connection(lambda: Loop(heads, body.data, latencies_us), host, int(port))
        for _ in range(ask.connections)
    ]
    return [protocol for _, protocol in await asyncio.gather(*made)]


async def _unless_failed(loops: Sequence[Loop], seconds: float) -> None:
    """Let them run. Raises what ended one of them."""
    done, _ = await asyncio.wait([loop.over for loop in loops], timeout=seconds, return_when=asyncio.FIRST_COMPLETED)
    for over in done:
        over.result()


def quantile(ordered: Sequence[float], p: float) -> float:
    """The p-quantile by nearest rank. Raises BenchError without values."""
    if not ordered:
        raise BenchError("no request was answered in time")
    return ordered[max(1, math.ceil(p * len(ordered))) - 1]


def main() -> None:
    ask = Ask(**json.loads(sys.argv[1]))

    async def play() -> Got:
        return await run(ask)

    try:
        got = uvloop.run(play())
    except (BenchError, OSError, ValueError) as exc:
        raise SystemExit(f"{exc}") from exc
    sys.stdout.write(json.dumps(asdict(got)))


if __name__ == "__main__":
    main()
