"""Fakes that the gateway is tested against: scripted servers on raw sockets, and a small control plane.

A `FakeServer` records every byte it receives and answers as its `behave` says. All fakes run in one thread's loop.
"""

import asyncio
import contextlib
import itertools
import json
import socket
import struct
import threading
from collections.abc import Awaitable, Callable, Coroutine
from dataclasses import dataclass, field
from typing import Any, TypeVar
from urllib.parse import parse_qs, urlsplit

T = TypeVar("T")


class LoopThread:
    """An event loop in a thread of its own."""

    def __init__(self) -> None:
        self.loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self.loop.run_forever, daemon=True)
        self._thread.start()

    def run(self, coroutine: Coroutine[Any, Any, T]) -> T:
        return asyncio.run_coroutine_threadsafe(coroutine, self.loop).result(30)

    def stop(self) -> None:
        self.run(self._cancel_all())
        self.loop.call_soon_threadsafe(self.loop.stop)
        self._thread.join(10)
        self.loop.close()

    async def _cancel_all(self) -> None:
        tasks = asyncio.all_tasks() - {asyncio.current_task()}
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


@dataclass(frozen=True)
class Received:
    """One request as a fake server received it."""

    head: bytes
    body: bytes
    connection: int

    @property
    def line(self) -> bytes:
        return self.head.split(b"\r\n", 1)[0]

    @property
    def headers(self) -> list[tuple[bytes, bytes]]:
        lines = self.head.split(b"\r\n")[1:]
        return [(name, value) for name, _, value in (line.partition(b": ") for line in lines) if name]

    def header(self, name: bytes) -> bytes | None:
        return next((value for known, value in self.headers if known.lower() == name), None)


class Stream:
    """What a behaviour answers through."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader, self.writer = reader, writer

    async def send(self, data: bytes) -> None:
        self.writer.write(data)
        await self.writer.drain()

    def close(self) -> None:
        self.writer.close()

    def reset(self) -> None:
        sock = self.writer.get_extra_info("socket")
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.writer.transport.abort()


Behaviour = Callable[[Received, Stream], Awaitable[None]]


def http_answer(
    body: bytes, status: bytes = b"200 OK", headers: bytes = b"content-type: application/json\r\n"
) -> bytes:
    return b"HTTP/1.1 %s\r\n%scontent-length: %d\r\n\r\n%s" % (status, headers, len(body), body)


def says(data: bytes) -> Behaviour:
    """Answers every request with these bytes."""

    async def behave(received: Received, stream: Stream) -> None:
        await stream.send(data)

    return behave


def says_then_closes(data: bytes, reset: bool = False) -> Behaviour:
    async def behave(received: Received, stream: Stream) -> None:
        await stream.send(data)
        stream.reset() if reset else stream.close()

    return behave


def after(seconds: float, behaviour: Behaviour) -> Behaviour:
    async def behave(received: Received, stream: Stream) -> None:
        await asyncio.sleep(seconds)
        await behaviour(received, stream)

    return behave


async def hangs(received: Received, stream: Stream) -> None:
    await stream.reader.read()


async def echoes(received: Received, stream: Stream) -> None:
    """Answers with the request's own body, as octets."""
    kept = [b"%s: %s\r\n" % pair for pair in received.headers if pair[0] == b"inference-header-content-length"]
    await stream.send(
        http_answer(received.body, headers=b"content-type: application/octet-stream\r\n" + b"".join(kept))
    )


OK = says(http_answer(b'{"outputs": []}'))


class FakeServer:
    """A server on a port of its own; `requests` and `raw` (bytes by connection) are what it received."""

    def __init__(self, thread: LoopThread, behave: Behaviour = OK) -> None:
        self._thread = thread
        self.behave = behave
        self.requests: list[Received] = []
        self.raw: list[bytearray] = []
        self.open: list[asyncio.StreamWriter] = []
        self.reads = True
        self._numbers = itertools.count()
        self._server: asyncio.Server | None = None
        self.port = 0
        self.start()

    @property
    def address(self) -> str:
        return f"127.0.0.1:{self.port}"

    def start(self) -> None:
        async def listen() -> asyncio.Server:
            return await asyncio.start_server(self._serve, "127.0.0.1", self.port, limit=2**26)

        self._server = self._thread.run(listen())
        self.port = self._server.sockets[0].getsockname()[1]

    def stop(self) -> None:
        """Refuse connections, and close those there are."""

        async def close() -> None:
            assert self._server is not None
            self._server.close()
            for writer in list(self.open):
                writer.close()

        self._thread.run(close())

    def close_connections(self) -> None:
        async def close() -> None:
            for writer in list(self.open):
                writer.close()

        self._thread.run(close())

    def say_unasked(self, data: bytes) -> None:
        """Write to the newest connection, whatever was read from it."""

        async def write() -> None:
            self.open[-1].write(data)

        self._thread.run(write())

    def reset(self, behave: Behaviour = OK) -> None:
        self.behave = behave
        self.reads = True
        self.requests.clear()
        self.raw.clear()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.open.append(writer)
        raw = bytearray()
        self.raw.append(raw)
        connection = next(self._numbers)
        with contextlib.suppress(OSError, asyncio.IncompleteReadError):
            while not writer.is_closing():
                if not self.reads:
                    writer.transport.pause_reading()  # type: ignore[attr-defined]
                    await asyncio.sleep(3600)
                received = await self._read(reader, raw, connection)
                self.requests.append(received)
                await self.behave(received, Stream(reader, writer))
        self.open.remove(writer)
        writer.close()

    async def _read(self, reader: asyncio.StreamReader, raw: bytearray, connection: int) -> Received:
        head = await reader.readuntil(b"\r\n\r\n")
        if raw is not (self.raw[-1] if self.raw else None) and not any(raw is known for known in self.raw):
            raw.clear()
            self.raw.append(raw)  # A kept connection, after a `reset`.
        raw += head
        received = Received(head[:-4], b"", connection)
        length = int(received.header(b"content-length") or 0)
        body = await reader.readexactly(length)
        raw += body[:65536]
        return Received(head[:-4], body, connection)


@dataclass
class ControlPlane:
    """What the fake control plane holds and has heard."""

    table: dict[str, Any] | None = None
    reports: list[dict[str, Any]] = field(default_factory=list)
    refused: list[dict[str, Any]] = field(default_factory=list)
    fail_reports: int = 0
    leads: bool = True
    """One that does not lead answers everything with 503."""
    is_frozen: bool = False
    """How many reports are still to be answered with 500."""
    polls: int = 0

    def windows(self) -> list[dict[str, Any]]:
        return [window for report in self.reports for window in report["windows"]]

    def gathered(self, kind: str) -> list[Any]:
        return [one for report in self.reports for one in report[kind]]


class FakeControl(ControlPlane):
    """A control plane on a raw socket: long poll for routes, takes reports."""

    def __init__(self, thread: LoopThread) -> None:
        super().__init__()
        self.server = FakeServer(thread, self._behave)

    @property
    def url(self) -> str:
        return f"http://{self.server.address}"

    async def _behave(self, received: Received, stream: Stream) -> None:
        method, target, _ = received.line.decode().split()
        parts = urlsplit(target)
        while self.is_frozen:
            await asyncio.sleep(0.05)
        if not self.leads:
            await stream.send(http_answer(b'{"code": "not_leader"}', b"503 Service Unavailable"))
        elif method == "GET" and parts.path == "/v1/gateway/routes":
            await stream.send(await self._routes(int(parse_qs(parts.query)["after"][0])))
        elif method == "POST" and parts.path == "/v1/gateway/reports":
            await stream.send(self._report(json.loads(received.body)))
        else:
            await stream.send(http_answer(b"{}", b"404 Not Found"))

    async def _routes(self, version: int) -> bytes:
        self.polls += 1
        for _ in range(200):
            if self.table is not None and self.table["version"] != version:
                return http_answer(json.dumps(self.table).encode())
            await asyncio.sleep(0.01)
        return b"HTTP/1.1 204 No Content\r\n\r\n"

    def _report(self, report: dict[str, Any]) -> bytes:
        if self.fail_reports > 0:
            self.fail_reports -= 1
            self.refused.append(report)
            return http_answer(b"{}", b"500 Internal Server Error")
        self.reports.append(report)
        return http_answer(b"{}")
