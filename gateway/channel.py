"""The line between a worker and its supervisor: one JSON object a line, both ways.

Down come route tables and orders; up go signs of readiness, samples (dropped first) and labels (kept once taken).
"""

import asyncio
import base64
import contextlib
import json
import socket
from collections import deque
from collections.abc import Callable, Mapping
from typing import Any, cast

from gateway.samples import Label, Sample

CHANNEL_BYTES_MOST = 8 * 1024 * 1024
RECEIVE_BYTES = 256 * 1024

Message = dict[str, Any]


class Channel(asyncio.Protocol):
    """The worker's end."""

    def __init__(self, command: Callable[[dict[str, Any]], None], supervisor_gone: Callable[[], None]) -> None:
        self._command = command
        self._supervisor_gone = supervisor_gone
        self._received = b""
        self._lines: deque[bytes] = deque()
        self._samples_left = 0
        self._samples: list[dict[str, Any]] = []
        self._labels: list[dict[str, Any]] = []
        self.takes_labels = True
        self.transport: asyncio.Transport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.Transport, transport)  # uvloop's are not subclasses.

    def data_received(self, data: bytes) -> None:
        *lines, self._received = (self._received + data).split(b"\n")
        is_idle = not self._lines
        self._lines += lines
        if is_idle and lines:
            self._next()

    def _next(self) -> None:
        """Carry out one line, and the next in another turn of the loop: a large table must not hold up requests."""
        self._command(json.loads(self._lines[0]))
        self._lines.popleft()
        if self._lines:
            asyncio.get_running_loop().call_soon(self._next)

    def connection_lost(self, exc: Exception | None) -> None:
        self._supervisor_gone()  # Nobody would replace or stop this worker any more.

    def say(self, message: dict[str, Any]) -> None:
        if self.transport is not None and not self.transport.is_closing():
            self.transport.write(json.dumps(message).encode() + b"\n")

    @property
    def is_full(self) -> bool:
        return self.transport is None or self.transport.get_write_buffer_size() > CHANNEL_BYTES_MOST

    @property
    def wants_sample(self) -> bool:
        """Is there room for one more sample this second?"""
        return self._samples_left > 0 and not self.is_full

    def record(self, sample: Sample) -> None:
        """Keep a sample for the next flush, unless this second's are used up."""
        if self.wants_sample:
            self._samples_left -= 1
            self._samples.append(sample.to_json())

    def take(self, labels: list[Label]) -> bool:
        """Keep labels for the next flush; False when they must come again later."""
        if self.is_full or not self.takes_labels:
            return False
        self._labels += [label.to_json() for label in labels]
        return True

    def allow_samples(self, number: int) -> None:
        self._samples_left = number

    def flush(self) -> None:
        if self._samples or self._labels:
            self.say({"samples": self._samples, "labels": self._labels})
            self._samples, self._labels = [], []


class Line:
    """The supervisor's end. What it has half read or half written can be handed over with it (`to_json`).

    On a bare socket, since a transport keeps its buffers to itself.
    """

    def __init__(self, sock: socket.socket, heard: Callable[[Message], None]) -> None:
        self._sock = sock
        self._heard = heard
        self._received = b""
        self._unsent = bytearray()
        self._loop = asyncio.get_running_loop()
        sock.setblocking(False)
        self._loop.add_reader(sock, self._read)

    def write(self, lines: bytes) -> None:
        """Send whole lines; nothing when the worker is gone."""
        if self._sock.fileno() < 0:
            return
        was_idle = not self._unsent
        self._unsent += lines
        if was_idle:
            self._write()
            if self._unsent:
                self._loop.add_writer(self._sock, self._write)

    def say(self, message: Message) -> None:
        self.write(json.dumps(message).encode() + b"\n")

    def close(self) -> None:
        """Take what was said last, and let go."""
        while self._sock.fileno() >= 0 and self._read():
            pass
        self._let_go()

    def _write(self) -> None:
        with contextlib.suppress(BlockingIOError, InterruptedError):
            try:
                while self._unsent:
                    del self._unsent[: self._sock.send(self._unsent[:RECEIVE_BYTES])]
            except ConnectionError:
                self._unsent.clear()  # It is gone, or going.
        if not self._unsent:
            self._loop.remove_writer(self._sock)

    def _read(self) -> bool:
        """Read once; False when there is nothing more."""
        try:
            data = self._sock.recv(RECEIVE_BYTES)
        except (BlockingIOError, InterruptedError):
            return False
        except ConnectionError:
            data = b""
        if not data:
            self._let_go()
            return False
        *lines, self._received = (self._received + data).split(b"\n")  # A killed worker's last line may be cut.
        for line in lines:
            self._heard(json.loads(line))
        return True

    def _let_go(self) -> None:
        if self._sock.fileno() >= 0:
            self._loop.remove_reader(self._sock)
            self._loop.remove_writer(self._sock)
            self._unsent.clear()
            self._sock.close()

    # Handed over to a new supervisor

    @property
    def fd(self) -> int:
        """-1 when the worker closed its end."""
        return self._sock.fileno()

    def to_json(self) -> dict[str, Any]:
        half = {"received": self._received, "unsent": bytes(self._unsent)}
        return {"fd": self.fd} | {name: base64.b64encode(data).decode() for name, data in half.items()}

    @staticmethod
    def restore(data: Mapping[str, Any], heard: Callable[[Message], None]) -> "Line":
        sock = socket.socket(fileno=data["fd"]) if data["fd"] >= 0 else socket.socketpair()[0]  # Which ends at once.
        line = Line(sock, heard)
        line._received = base64.b64decode(data["received"])
        line.write(base64.b64decode(data["unsent"]))
        return line
