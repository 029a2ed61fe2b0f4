"""The history as it grows, for many listeners at once.

One task reads new entries, once for all listeners: as soon as this process has written something, and every second
for what others wrote. A listener that waits holds neither a thread nor a connection of the database.
"""

import asyncio
import contextlib
import json
import logging
import threading
from collections import deque
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass
from typing import Any

from sqlalchemy.exc import SQLAlchemyError

from rollout.errors import ControlError
from rollout.store import history
from rollout.store.database import Database

POLL_S = 1.0
QUIET_S = 15.0
"""Proxies close what has been silent for long; the shortest known wait 30 s."""
AT_ONCE = 200
RECENT_MOST = 1000
STILL_THERE = ": still there\n\n"

log = logging.getLogger("sluice.control")


@dataclass(frozen=True, slots=True)
class Wanted:
    """Which entries a listener wants; None means all."""

    model: str | None = None
    rollout: int | None = None

    def holds(self, entry: Mapping[str, Any]) -> bool:
        return self.model in (None, entry["model"]) and self.rollout in (None, entry["rollout"])


class Feed:
    """Everything but `wake` belongs to the event loop that runs `run`."""

    def __init__(self, database: Database, quiet_s: float = QUIET_S) -> None:
        self._database = database
        self._quiet_s = quiet_s
        self._recent: deque[dict[str, Any]] = deque(maxlen=RECENT_MOST)
        self._read_from = 0
        """Every entry with a greater id, up to `_newest`, is in `_recent`."""
        self._newest = 0
        self._listeners = 0
        self._grown = asyncio.Event()
        self._written = asyncio.Event()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._lock = threading.Lock()
        self._is_stopped = False

    def wake(self) -> None:
        """Something was written; from any thread."""
        with self._lock:
            if self._loop is not None:
                self._loop.call_soon_threadsafe(self._written.set)

    def stop(self) -> None:
        """End all listening, after what was read is handed out."""
        self._is_stopped = True
        self._grow()

    @contextlib.asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Read what is new until the block ends."""
        self._loop = asyncio.get_running_loop()
        self._newest = self._read_from = await asyncio.to_thread(self._last_id)
        reader = asyncio.create_task(self._run())
        try:
            yield
        finally:
            self.stop()
            with self._lock:
                self._loop = None
            reader.cancel()
            await asyncio.gather(reader, return_exceptions=True)

    async def listen(self, after: int | None, wanted: Wanted) -> AsyncIterator[str]:
        """Events after the entry with id `after`, without end; only new ones when it is None."""
        newest = max(self._newest, await asyncio.to_thread(self._last_id))
        position = newest if after is None else min(after, newest)
        yield ": listening\n\n"
        self._listeners += 1
        self._written.set()
        try:
            while True:
                grown = self._grown
                entries = self._known_after(position)
                if entries is None:
                    entries = await asyncio.to_thread(self._read, position, AT_ONCE)
                for entry in entries:
                    position = entry["id"]
                    if wanted.holds(entry):
                        yield told(entry)
                if entries:
                    continue
                if self._is_stopped:
                    return
                if not await _is_set_within(grown, self._quiet_s):
                    yield STILL_THERE
        finally:
            self._listeners -= 1

    async def _run(self) -> None:
        while True:
            await _is_set_within(self._written, POLL_S)
            self._written.clear()
            try:
                while self._listeners and await self._read_on():
                    pass
            except (SQLAlchemyError, ControlError) as exc:
                log.error("the history cannot be read now: %s", exc)

    async def _read_on(self) -> bool:
        """Read some of what is new; was there any?"""
        new = await asyncio.to_thread(self._read, self._newest, AT_ONCE)
        if not new:
            return False
        self._recent.extend(new)
        self._newest = new[-1]["id"]
        if len(self._recent) == RECENT_MOST:
            self._read_from = max(self._read_from, self._recent[0]["id"])
        self._grow()
        return True

    def _grow(self) -> None:
        """Wake those who wait now; who comes later waits for the next time."""
        grown, self._grown = self._grown, asyncio.Event()
        grown.set()

    def _known_after(self, position: int) -> list[dict[str, Any]] | None:
        """The entries after a position, as far as they were read; None when some of them are not in memory."""
        if position < self._read_from:
            return None
        if position >= self._newest:
            return []
        return [entry for entry in self._recent if entry["id"] > position]

    def _last_id(self) -> int:
        with self._database.reading() as connection:
            return history.last_id(connection)

    def _read(self, after: int, most: int) -> list[dict[str, Any]]:
        with self._database.reading() as connection:
            return history.entries(connection, after=after, limit=most)


def told(entry: Mapping[str, Any]) -> str:
    """An entry as a server-sent event."""
    return f"id: {entry['id']}\ndata: {json.dumps(dict(entry))}\n\n"


async def _is_set_within(event: asyncio.Event, seconds: float) -> bool:
    try:
        async with asyncio.timeout(seconds):
            await event.wait()
    except TimeoutError:
        return False
    return True
