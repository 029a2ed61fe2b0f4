"""What is told of single requests after they are over: lines of the access log and spans, sampled and bounded.

A note is a plain JSON object. Workers collect them and hand them to the supervisor with the next flush; when there are
too many in a second, the rest is dropped and counted.
"""

import contextlib
import json
import os
import queue
import random
import sys
import threading
import time
from collections.abc import Mapping, Sequence
from io import FileIO
from pathlib import Path
from typing import Any

from gateway.config import GatewayConfig
from gateway.errors import ConfigError
from gateway.exchange import Exchange
from gateway.tracing import FLUSH_S, SpanExporter, Tracer

WAITING_MOST = 100
"""What workers said at so many times may wait to be written; they say something about once a second each."""
NEWLINE = ord("\n")


class Notes:
    """A worker's notes. Failures and fallbacks are always noted, of the rest `access_log_share`."""

    def __init__(self, config: GatewayConfig) -> None:
        self._share = config.access_log_share if config.access_log else 0.0
        self._logs_failures = bool(config.access_log)
        self._most_per_s = self._left = config.notes_per_s
        self._notes: list[dict[str, Any]] = []
        self.tracer = Tracer(config.trace_share) if config.trace_endpoint else None
        self.dropped = 0

    @property
    def are_wanted(self) -> bool:
        return self._logs_failures or self.tracer is not None

    def over(self, exchange: Exchange, status: int, latency_s: float) -> None:
        """Note a request that is over, if it is one to be noted. `status` 0: nothing was answered."""
        is_failure = status >= 500 or exchange.fell_back or not status
        is_logged = (self._logs_failures and is_failure) or (self._share > 0.0 and random.random() < self._share)
        if not is_logged and exchange.span is None:
            return
        if self._left <= 0:
            self.dropped += 1
            return
        self._left -= 1
        self._notes.append(note_of(exchange, status, latency_s, is_logged))

    def next_second(self) -> None:
        self._left = self._most_per_s

    def take(self) -> list[dict[str, Any]]:
        notes, self._notes = self._notes, []
        return notes


def note_of(exchange: Exchange, status: int, latency_s: float, is_logged: bool) -> dict[str, Any]:
    """`at` is when it was over, in seconds since 1970. Strings come from checked names and ids, never from bodies."""
    request, asked, span = exchange.request, exchange.way.asked, exchange.span
    return {
        "at": round(time.time(), 6),
        "request_id": exchange.request_id.decode("latin-1"),
        "method": request.head.method.decode(),
        "action": asked.action.decode().lstrip("/") or "metadata",
        "model": asked.model,
        "release": exchange.lane.release_name.decode(),
        "assigned": exchange.assigned.release_name.decode(),
        "fallback": exchange.fell_back,
        "pinned": exchange.is_pinned,
        "status": status,
        "latency_ms": round(latency_s * 1e3, 3),
        "request_bytes": request.size,
        "answer_bytes": exchange.size,
        "logged": is_logged,
        "span": [span.trace_id, span.span_id, span.parent_id] if span is not None else None,
    }


class NoteKeeper:
    """The supervisor's end: writes log lines, sends spans."""

    def __init__(self, config: GatewayConfig) -> None:
        """Raises ConfigError when the log cannot be written, or OpenTelemetry is asked for and not installed."""
        self._settings = config.access_log, config.trace_endpoint
        self._log = AccessLog(config.access_log) if config.access_log else None
        self._spans = SpanExporter(config.trace_endpoint, config.name) if config.trace_endpoint else None

    def renewed(self, config: GatewayConfig) -> "NoteKeeper":
        """One for these settings: this one where nothing changed. Raises ConfigError."""
        return self if self._settings == (config.access_log, config.trace_endpoint) else NoteKeeper(config)

    def flush(self) -> None:
        """Write the lines and send the spans that wait, within two seconds each."""
        if self._log is not None:
            self._log.flush()
        if self._spans is not None:
            self._spans.flush()

    def take(self, notes: list[dict[str, Any]]) -> None:
        if self._log is not None:
            self._log.write([note for note in notes if note["logged"]])
        if self._spans is not None:
            for note in notes:
                if note["span"] is not None:
                    self._spans.export(note)

    def close(self) -> None:
        if self._log is not None:
            self._log.close()
        if self._spans is not None:
            self._spans.close()


class AccessLog:
    """JSON lines into a file, which is opened anew when it was moved away; `-` is the standard output.

    A thread writes them: a pipe that nobody empties, or a disk that hangs, costs lines and holds nothing else up.
    """

    def __init__(self, path: str) -> None:
        """Raises ConfigError when the file cannot be written."""
        self._path = None if path == "-" else Path(path)
        self._file: FileIO | None = None
        self._is_torn = False
        """Does the file end in a part of a line, since the rest found no room?"""
        try:
            self._reopen()
        except OSError as exc:
            raise ConfigError(f"access_log {path} cannot be written: {exc.strerror}") from exc
        self._waiting: queue.Queue[bytes | threading.Event | None] = queue.Queue(WAITING_MOST)
        self._writer = threading.Thread(target=self._write_for_ever, name="access log", daemon=True)
        self._writer.start()

    def write(self, notes: Sequence[Mapping[str, Any]]) -> None:
        """Have them written; when too much waits already, they are dropped."""
        lines = []
        for note in notes:
            line = {key: value for key, value in note.items() if key not in ("logged", "span")}
            if note["span"] is not None:
                line["trace_id"] = note["span"][0]
            lines.append(json.dumps(line) + "\n")
        if lines:
            with contextlib.suppress(queue.Full):
                self._waiting.put_nowait("".join(lines).encode())

    def flush(self) -> None:
        """Wait until what came before is written, two seconds at most."""
        written = threading.Event()
        with contextlib.suppress(queue.Full):
            self._waiting.put(written, timeout=FLUSH_S)
            written.wait(FLUSH_S)

    def _write_for_ever(self) -> None:
        while (given := self._waiting.get()) is not None:
            if isinstance(given, threading.Event):
                given.set()
                continue
            with contextlib.suppress(OSError):  # A disk that fails costs lines, never a request.
                self._reopen()
                self._put(memoryview(b"\n" + given if self._is_torn else given))
        if self._path is not None and self._file is not None:
            self._file.close()

    def _put(self, data: memoryview) -> None:
        assert self._file is not None
        while data:
            written = self._file.write(data) or 0
            if written:
                self._is_torn = data[written - 1] != NEWLINE
            data = data[written:]

    def _reopen(self) -> None:
        if self._path is None:
            self._file = self._file or FileIO(sys.stdout.fileno(), "w", closefd=False)
            return
        if self._file is not None:
            with contextlib.suppress(FileNotFoundError):
                if os.path.samestat(os.fstat(self._file.fileno()), self._path.stat()):
                    return
            self._file.close()
        self._path.parent.mkdir(parents=True, exist_ok=True)
        self._file, self._is_torn = FileIO(self._path, "a"), False

    def close(self) -> None:
        """Write what waits, within two seconds."""
        self.flush()
        with contextlib.suppress(queue.Full):
            self._waiting.put_nowait(None)
