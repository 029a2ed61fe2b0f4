"""A route table in a file, watched: every change that is valid comes into force, one that is not is told once.

People edit such a file by hand, so what it says counts and not its numbers: a changed file is applied even when its
version stands still or falls, under a version above the one in force; and a route's revision moves when it moved.
"""

import asyncio
import logging
import math
import os
import time
from collections.abc import Awaitable, Callable
from dataclasses import replace
from hashlib import blake2b
from pathlib import Path

from gateway.aside import SMALL_BYTES, aside
from gateway.errors import GatewayError, SlotsExhaustedError
from gateway.reading import TableReader
from gateway.routes import Route, RouteTable, RouteTableError

POLL_S = 0.025
RECENT_S = 0.1
"""A file that changed so lately is read again: its next change may bear the same time."""
SETTLE_S = 0.3
"""An unusable file is complained of when it stays so: it may be half written."""
AGAIN_S = 1.0
"""When a table is tried again that lacked counters: those of older tables become free."""

Stamp = tuple[int, int, int, int]
log = logging.getLogger("sluice.gateway")


def numbered(table: RouteTable, in_force: RouteTable | None) -> RouteTable | None:
    """The table under a version above the one in force, revisions moved where routes changed; None if nothing did."""
    if in_force is None:
        return table
    is_same = table.routes.keys() == in_force.routes.keys()
    version = max(table.version, in_force.version + 1)
    routes: dict[str, Route] = {}
    for model, route in table.routes.items():
        before = in_force.routes.get(model)
        if before is not None and (before is route or _stands_alike(before, route)):
            routes[model] = before
        else:
            is_same = False
            routes[model] = replace(route, revision=version)
    return None if is_same and table.version <= in_force.version else RouteTable(version, routes)


def _stands_alike(one: Route, other: Route) -> bool:
    """Are they alike but for the revision?"""
    return one.servers == other.servers and one == replace(other, revision=one.revision, servers=one.servers)


class RoutesFile:
    """The file, what it said last, and why that is not in force (`refused`)."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._reader = TableReader()
        self._stamp: Stamp | None = None
        self._digest = b""
        self._unusable: tuple[bytes, str, float] | None = None
        """What cannot be used, why, and since when."""
        self._told = b""
        self._again_s = math.inf
        self.refused = ""

    def read_first(self) -> RouteTable:
        """The table to start with. Raises GatewayError."""
        try:
            self._stamp = self._look()
            content = self._path.read_bytes()
            self._digest = _digest(content)
            return self._reader.read(content)
        except (OSError, ValueError, RecursionError) as exc:
            raise GatewayError(f"the route table {self._path} cannot be used: {exc}") from exc

    async def watch(
        self, in_force: Callable[[], RouteTable | None], apply: Callable[[RouteTable], Awaitable[None]]
    ) -> None:
        """Apply what the file says, whenever it changes, until cancelled."""
        while True:
            await asyncio.sleep(POLL_S)
            try:
                await self._once(in_force, apply)
            except Exception:
                log.exception("watching %s failed; it goes on", self._path)

    async def _once(
        self, in_force: Callable[[], RouteTable | None], apply: Callable[[RouteTable], Awaitable[None]]
    ) -> None:
        try:
            stamp = self._look()
            is_due = time.monotonic() >= self._again_s
            if stamp == self._stamp and not is_due and time.time() - stamp[0] / 1e9 > RECENT_S:
                self._complain()
                return
            content = await aside(stamp[1] < SMALL_BYTES, self._path.read_bytes)
        except OSError as exc:
            self._stamp = None
            self._cannot_use(b"", f"it cannot be read: {exc.strerror}")
            return
        self._stamp = stamp
        digest = _digest(content)
        if digest == self._digest and not is_due:
            self._complain()
            return
        self._again_s = math.inf
        try:
            table = await aside(len(content) < SMALL_BYTES, lambda: numbered(self._reader.read(content), in_force()))
            if table is not None:
                await apply(table)
                self._reader.know(table)
                log.info("%s changed: version %d is in force", self._path, table.version)
        except (ValueError, RecursionError) as exc:
            if isinstance(exc.__cause__, SlotsExhaustedError):
                self._again_s = time.monotonic() + AGAIN_S
            self._cannot_use(digest, str(exc) if isinstance(exc, RouteTableError) else f"it is not JSON: {exc}")
            return
        self._digest, self._unusable, self._told, self.refused = digest, None, b"", ""

    def _look(self) -> Stamp:
        stat = os.stat(self._path)  # noqa: PTH116 - a symlink's target, cheaply.
        return stat.st_mtime_ns, stat.st_size, stat.st_ino, stat.st_dev

    def _cannot_use(self, digest: bytes, why: str) -> None:
        if self._unusable is None or self._unusable[0] != digest:
            self._unusable = digest, why, time.monotonic()
        self._digest = digest
        self._complain()

    def _complain(self) -> None:
        """Say why the file is not in force, once, and when it stays so."""
        if self._unusable is None:
            return
        digest, why, since_s = self._unusable
        if time.monotonic() - since_s >= SETTLE_S and (not self.refused or digest != self._told):
            self._told, self.refused = digest, why
            log.error("the route table %s cannot be used and the old one stays: %s", self._path, why)


def _digest(content: bytes) -> bytes:
    return blake2b(content, digest_size=16).digest()
