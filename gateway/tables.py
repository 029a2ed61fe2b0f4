"""The route table in force: put into all workers and the counters at once, kept on disk for a restart.

Only what changed is told to workers that serve; a new worker is told the whole.
"""

import asyncio
import json
import logging
import os
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Protocol

from gateway.aside import SMALL_ROUTES, aside
from gateway.changes import (
    Slots,
    TableChange,
    change_between,
    commit_line,
    retire_lines,
    stage_lines,
    text_of,
)
from gateway.errors import SlotsExhaustedError
from gateway.ledger import Ledger
from gateway.routes import RouteTable, RouteTableError

APPLY_TIMEOUT_S = 5.0

log = logging.getLogger("sluice.gateway")


class Told(Protocol):
    """Who is told of tables: all workers."""

    @property
    def applied_version(self) -> int: ...

    def write(self, lines: bytes) -> None: ...


class TableInForce:
    """`table` is None until one has come. `file` is where it is kept; None for a gateway whose routes are a file."""

    def __init__(self, ledger: Ledger, file: Path | None) -> None:
        self._ledger = ledger
        self._file = file
        self._texts: dict[str, str] = {}
        self.table: RouteTable | None = None
        self.changing = asyncio.Lock()

    @property
    def version(self) -> int:
        return self.table.version if self.table is not None else -1

    def greeting(self) -> bytes:
        """The whole table, for a new worker; nothing while there is none."""
        return b"".join((*stage_lines(self._texts), commit_line(self.version))) if self.table is not None else b""

    def begin(self, table: RouteTable) -> None:
        """Put the first table in force, before there are workers. Raises SlotsExhaustedError."""
        change = change_between(None, table)
        self._texts = _texts(change, self._ledger.lease(change, time.time()))
        self.table = table

    async def apply(self, table: RouteTable, told: Told) -> None:
        """Put a table in force, and on disk. Raises RouteTableError when it cannot be; then nothing was changed."""
        async with self.changing:
            is_small = len(table.routes) < SMALL_ROUTES
            change = await aside(is_small, change_between, self.table, table)
            try:
                slots = self._ledger.lease(change, time.time())
            except SlotsExhaustedError as exc:
                raise RouteTableError(str(exc)) from exc
            texts, lines = await aside(len(change.changed) < SMALL_ROUTES, _encoded, change, slots)
            self.table = table
            self._texts |= texts
            for model in change.removed:
                del self._texts[model]
            told.write(lines)
        ends_s = time.monotonic() + APPLY_TIMEOUT_S
        while told.applied_version < table.version and time.monotonic() < ends_s:
            await asyncio.sleep(0.005)
        if self._file is not None:
            await asyncio.to_thread(_store, table, self._file)

    def stored(self) -> RouteTable | None:
        """The table that was in force before a restart."""
        if self._file is None:
            return None
        try:
            return RouteTable.from_json(json.loads(self._file.read_text()))
        except FileNotFoundError:
            return None
        except (OSError, ValueError) as exc:
            log.error("the stored route table %s is of no use: %s", self._file, exc)
            return None

    # Handed over to a new supervisor, whose ledger has the slots already

    def to_json(self) -> dict[str, Any]:
        return {"table": self.table.to_json() if self.table is not None else None, "texts": self._texts}

    def restore(self, data: Mapping[str, Any]) -> None:
        if data["table"] is not None:
            self.table = RouteTable.from_json(data["table"])
            self._texts = dict(data["texts"])


def _texts(change: TableChange, slots: Mapping[str, Slots]) -> dict[str, str]:
    return {route.model: text_of(route, slots[route.model]) for route in change.changed}


def _encoded(change: TableChange, slots: Mapping[str, Slots]) -> tuple[dict[str, str], bytes]:
    texts = _texts(change, slots)
    staged = stage_lines(texts | dict.fromkeys(change.removed))
    return texts, b"".join((*staged, commit_line(change.table.version), *retire_lines(change.retired)))


def _store(table: RouteTable, file: Path) -> None:
    """Keep the table for a restart without control plane; a failing disk costs only that."""
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        staged = file.with_suffix(f".{os.getpid()}")
        with staged.open("w") as out:
            json.dump(table.to_json(), out)
            out.flush()
            os.fsync(out.fileno())
        staged.replace(file)
    except OSError as exc:
        log.error("the route table could not be kept in %s: %s", file, exc)
