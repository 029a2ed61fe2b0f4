"""Counts by release: hands out slots for each route table, reads them every second, makes windows and totals of them.

The supervisor's side of `counters`. A slot belongs to one revision of one route; it is read until its last request has
ended, then cleared and used again.
"""

import time
from collections import defaultdict
from dataclasses import dataclass

from gateway.counters import CELL_BYTES, FALLBACKS, HISTOGRAM, RETRIES, ZERO, Counts, Slab
from gateway.errors import SlotsExhaustedError
from gateway.live import SlotKey, slot_keys
from gateway.routes import RouteTable
from gateway.windows import Role, Window

KEPT_AFTER_S = 5.0
"""How long a slot of an old revision is kept at least, for requests that a draining worker starts under it."""

_UNREAD = (bytes(HISTOGRAM * CELL_BYTES), ZERO)

Arm = tuple[str, int, Role]
"""(model, release, role): what totals are kept by."""


@dataclass(slots=True)
class _Lease:
    """A slot in use: its number, the candidate's weight, and since when its revision is no longer current."""

    index: int
    weight: float
    old_since_s: float | None = None


class Ledger:
    """Slots, what was last read of them, and totals since the gateway's start."""

    def __init__(self, slab: Slab, regions: int, slots: int, gateway: str, boot: str) -> None:
        self._slab = slab
        self._free = list(range(slots - 1, -1, -1))
        self._leases: dict[SlotKey, _Lease] = {}
        self._last: dict[tuple[int, int], tuple[bytes, Counts]] = {}
        self._regions = regions
        self._gateway, self._boot = gateway, boot
        self._sequence = 0
        self._read_at_s = time.time()
        self.totals: dict[Arm, Counts] = defaultdict(lambda: ZERO)

    def lease(self, table: RouteTable, now_s: float) -> list[tuple[str, int, int, str, int]]:
        """Slots for a table, as (model, revision, release, role, slot).

        Raises:
            SlotsExhaustedError: there are not enough; nothing was changed.
        """
        wanted = slot_keys(table)
        new = [key for key in wanted if key not in self._leases]
        if len(new) > len(self._free):
            raise SlotsExhaustedError(f"the route table needs {len(new)} more counters: raise counter_slots")
        for key in new:
            self._leases[key] = _Lease(self._free.pop(), 0.0)
        current = set(wanted)
        for key, lease in self._leases.items():
            if key in current:
                candidate = table.routes[key[0]].candidate
                lease.weight, lease.old_since_s = candidate.weight if candidate else 0.0, None
            elif lease.old_since_s is None:
                lease.old_since_s = now_s
        return [(*key[:3], key[3].value, self._leases[key].index) for key in wanted]

    def read(self, now_s: float, has_moved: bool = True) -> list[Window]:
        """What was counted since the last reading; nothing for slots where nothing happened.

        `has_moved`: every worker has the newest table, so none counts under an older one any more.
        """
        windows = []
        busy: set[tuple[str, int]] = set()
        for key, lease in self._leases.items():
            change, in_flight = self._change(lease.index)
            if change:
                windows.append(self._window(key, lease, change, now_s))
                arm = (key[0], key[2], key[3])
                self.totals[arm] = self.totals[arm].plus(change)
            if in_flight:
                busy.add(key[:2])
        if has_moved:
            self._release_old(now_s, busy)
        self._read_at_s = now_s
        return windows

    def _release_old(self, now_s: float, busy: set[tuple[str, int]]) -> None:
        """Free the slots of revisions that are over. A request on its way may still begin a copy under its revision,
        so a revision's slots are freed together."""
        for key, lease in list(self._leases.items()):
            is_old = lease.old_since_s is not None and now_s - lease.old_since_s > KEPT_AFTER_S
            if is_old and key[:2] not in busy:
                self._release(key, lease)

    def _change(self, slot: int) -> tuple[Counts, int]:
        change, in_flight = ZERO, 0
        for region in range(self._regions):
            head, (last_head, last) = self._slab.head(region, slot), self._last.get((region, slot), _UNREAD)
            if head != last_head:
                counts = self._slab.read(region, slot)
                change = change.plus(counts.minus(last))
                self._last[(region, slot)] = (head, counts)
            in_flight += self._slab.in_flight(region, slot)
        return change, in_flight

    def _window(self, key: SlotKey, lease: _Lease, change: Counts, now_s: float) -> Window:
        model, revision, release, role = key
        self._sequence += 1
        return Window(
            gateway=self._gateway,
            boot=self._boot,
            sequence=self._sequence,
            revision=revision,
            model=model,
            release=release,
            role=role,
            weight=lease.weight,
            started_at=self._read_at_s,
            length_s=max(0.0, now_s - self._read_at_s),
            outcomes=change.outcomes(),
            histogram=change.histogram(),
            fallbacks=change.cells[FALLBACKS],
            retries=change.cells[RETRIES],
            dropped=change.dropped(),
        )

    def _release(self, key: SlotKey, lease: _Lease) -> None:
        for region in range(self._regions):
            self._slab.clear(region, lease.index)
            self._last.pop((region, lease.index), None)
        del self._leases[key]
        self._free.append(lease.index)

    def worker_died(self, region: int) -> None:
        """Count what a dead worker had in flight as lost."""
        for lease in self._leases.values():
            self._slab.count_lost(region, lease.index)

    def free_region(self, region: int) -> None:
        """A worker is gone and its counts were read: clear its region for the next one."""
        for lease in self._leases.values():
            self._slab.clear(region, lease.index)
            self._last.pop((region, lease.index), None)

    def in_flight(self) -> dict[str, int]:
        """Requests on their way, by release name, for draining."""
        waiting: dict[str, int] = defaultdict(int)
        for (model, _, release, _), lease in self._leases.items():
            for region in range(self._regions):
                waiting[f"{model}/{release}"] += self._slab.in_flight(region, lease.index)
        return {name: n for name, n in waiting.items() if n}
