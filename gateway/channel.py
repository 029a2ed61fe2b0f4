"""A worker's end of the line to its supervisor: one JSON object a line, both ways.

Down come route tables and orders; up go signs of readiness, samples (dropped first) and labels (kept once taken).
"""

import asyncio
import json
from collections.abc import Callable
from typing import Any, cast

from gateway.samples import Label, Sample

CHANNEL_BYTES_MOST = 8 * 1024 * 1024


class Channel(asyncio.Protocol):
    """The worker's end of the line to the supervisor: one JSON object a line, both ways."""

    def __init__(self, command: Callable[[dict[str, Any]], None], supervisor_gone: Callable[[], None]) -> None:
        self._command = command
        self._supervisor_gone = supervisor_gone
        self._received = b""
        self._samples_left = 0
        self._samples: list[dict[str, Any]] = []
        self._labels: list[dict[str, Any]] = []
        self.takes_labels = True
        self.transport: asyncio.Transport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.Transport, transport)  # uvloop's are not subclasses.

    def data_received(self, data: bytes) -> None:
        *lines, self._received = (self._received + data).split(b"\n")
        for line in lines:
            self._command(json.loads(line))

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
