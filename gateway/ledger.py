"""Counts by release: hands out slots for each route table, reads them every second, makes windows and totals of them.

The supervisor's side of `counters`. A slot belongs to one revision of one route; it is read until its last request has
ended, then cleared and used again. What did not change since the last reading costs a comparison of bytes.
"""

import time
from collections import defaultdict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from gateway.changes import SlotKey, Slots, TableChange, slot_keys
from gateway.counters import FALLBACKS, HEAD_BYTES, NEVER, RETRIES, ZERO, Counts, Reading, Slab, in_flight_of
from gateway.errors import SlotsExhaustedError
from gateway.windows import Role, Window

KEPT_AFTER_S = 5.0
"""How long a slot of an old revision is kept at least, for requests that a draining worker starts under it."""
BLOCK = 64
"""Slots whose heads are compared at once."""

_NO_BLOCK = bytes(HEAD_BYTES * BLOCK)

Arm = tuple[str, int, Role]
"""(model, release, role): what totals are kept by."""


@dataclass(slots=True)
class _Lease:
    """A slot in use: its number, the candidate's weight, and since when its revision is no longer current."""

    index: int
    weight: float
    old_since_s: float | None = None


@dataclass(slots=True)
class _Region:
    """What was last read of one region: heads by block, all cells and requests on their way by slot."""

    blocks: list[bytes] = field(default_factory=list)
    slots: dict[int, Reading] = field(default_factory=dict)
    in_flight: dict[int, int] = field(default_factory=dict)

    def forget(self, slot: int) -> None:
        if self.slots.pop(slot, None) is not None:
            self.blocks[slot // BLOCK] = _NO_BLOCK
        self.in_flight.pop(slot, None)


class Ledger:
    """Regions and slots, what was last read of them, and totals since the gateway's start."""

    def __init__(self, slab: Slab, gateway: str, boot: str) -> None:
        self._slab = slab
        self._free: list[int] = []
        """Slots that were used before."""
        self._used = 0
        """Slots from this number on were never touched."""
        self._leases: dict[SlotKey, _Lease] = {}
        self._keys: dict[int, SlotKey] = {}
        self._current: dict[str, list[SlotKey]] = {}
        self._old: dict[SlotKey, _Lease] = {}
        self._readings: dict[int, _Region] = {}
        self._gateway, self._boot = gateway, boot
        self._sequence = 0
        self._read_at_s = time.time()
        self.totals: dict[Arm, Counts] = defaultdict(lambda: ZERO)

    # Regions

    def take_region(self) -> int:
        """A cleared region, for a new worker."""
        region = next(number for number in range(len(self._readings) + 1) if number not in self._readings)
        self._slab.grow(region + 1)
        self._readings[region] = _Region()
        return region

    def worker_died(self, region: int) -> None:
        """Count what a dead worker had in flight as lost."""
        for number, block in enumerate(self._blocks(region)):
            if block == _NO_BLOCK[: len(block)]:
                continue
            for slot, head in _heads(number, block):
                if in_flight_of(head) > 0:
                    self._slab.count_lost(region, slot)

    def free_region(self, region: int) -> None:
        """A worker is gone and its counts were read: clear its region for the next one."""
        self._slab.clear_region(region)
        del self._readings[region]

    # Slots

    def lease(self, change: TableChange, now_s: float) -> dict[str, Slots]:
        """Slots for the routes that changed, by model; those of the routes before them are over.

        Raises:
            SlotsExhaustedError: there are not enough; nothing was changed.
        """
        wanted = {route.model: slot_keys(route) for route in change.changed}
        new = [key for keys in wanted.values() for key in keys if key not in self._leases]
        if len(new) > len(self._free) + self._slab.slots - self._used:
            raise SlotsExhaustedError(f"the route table needs {len(new)} more counters: raise counter_slots")
        for key in new:
            index = self._free_slot()
            self._leases[key] = _Lease(index, 0.0)
            self._keys[index] = key
        for model in (*wanted, *change.removed):
            for key in self._current.pop(model, ()):
                lease = self._old[key] = self._leases[key]
                lease.old_since_s = now_s
        for route in change.changed:
            for key in wanted[route.model]:
                self._old.pop(key, None)
                lease = self._leases[key]
                lease.weight, lease.old_since_s = route.candidate.weight if route.candidate else 0.0, None
        self._current.update(wanted)
        return {model: [self._told(key) for key in keys] for model, keys in wanted.items()}

    def _free_slot(self) -> int:
        if self._free:
            return self._free.pop()
        self._used += 1
        return self._used - 1

    def _told(self, key: SlotKey) -> tuple[int, str, int]:
        return key[2], key[3].value, self._leases[key].index

    def read(self, now_s: float, has_moved: bool = True, are_wanted: bool = True) -> list[Window]:
        """What was counted since the last reading; nothing for slots where nothing happened.

        `has_moved`: every worker has the newest table, so none counts under an older one any more. Totals are kept also
        where no windows `are_wanted`.
        """
        changes: dict[int, Counts] = {}
        for region, reading in self._readings.items():
            for slot, change in self._changed(region, reading):
                changes[slot] = changes[slot].plus(change) if slot in changes else change
        windows = []
        for slot in sorted(changes):
            key, change = self._keys[slot], changes[slot]
            if change:
                if are_wanted:
                    windows.append(self._window(key, self._leases[key], change, now_s))
                arm = (key[0], key[2], key[3])
                self.totals[arm] = self.totals[arm].plus(change)
        if has_moved and self._old:
            self._release_old(now_s)
        self._read_at_s = now_s
        return windows

    def in_flight(self) -> dict[str, int]:
        """Requests on their way at the last reading, by release name, for draining."""
        waiting: dict[str, int] = defaultdict(int)
        for reading in self._readings.values():
            for slot, n in reading.in_flight.items():
                model, _, release, _ = self._keys[slot]
                waiting[f"{model}/{release}"] += n
        return {name: n for name, n in waiting.items() if n}

    def _blocks(self, region: int) -> Iterator[bytes]:
        for first in range(0, self._used, BLOCK):
            yield self._slab.heads(region, first, min(first + BLOCK, self._slab.slots))

    def _changed(self, region: int, reading: _Region) -> Iterator[tuple[int, Counts]]:
        """The slots that moved since the last reading, and by how much."""
        blocks = reading.blocks
        for number, block in enumerate(self._blocks(region)):
            if number == len(blocks):
                blocks.append(_NO_BLOCK[: len(block)])
            if block == blocks[number]:
                continue
            blocks[number] = block
            for slot, head in _heads(number, block):
                last = reading.slots.get(slot, NEVER)
                if not last.startswith(head):
                    now = reading.slots[slot] = self._slab.read(region, slot)
                    _note(reading.in_flight, slot, in_flight_of(head))
                    yield slot, now.since(last)

    def _release_old(self, now_s: float) -> None:
        """Free the slots of revisions that are over. A request on its way may still begin a copy under its revision,
        so a revision's slots are freed together."""
        busy = {self._keys[slot][:2] for reading in self._readings.values() for slot in reading.in_flight}
        for key, lease in list(self._old.items()):
            assert lease.old_since_s is not None
            if now_s - lease.old_since_s > KEPT_AFTER_S and key[:2] not in busy:
                self._release(key, lease)

    def _release(self, key: SlotKey, lease: _Lease) -> None:
        for region, reading in self._readings.items():
            if lease.index in reading.slots:
                self._slab.clear(region, lease.index)
            reading.forget(lease.index)
        del self._leases[key], self._keys[lease.index], self._old[key]
        self._free.append(lease.index)

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
            fallbacks=change[FALLBACKS],
            retries=change[RETRIES],
            dropped=change.dropped(),
        )

    # Handed over to a new supervisor

    def to_json(self) -> dict[str, Any]:
        return {
            "used": self._used,
            "sequence": self._sequence,
            "read_at_s": self._read_at_s,
            "leases": [[*key, lease.index, lease.weight, lease.old_since_s] for key, lease in self._leases.items()],
            "regions": {
                str(region): {str(slot): reading.to_json() for slot, reading in one.slots.items()}
                for region, one in self._readings.items()
            },
            "totals": [[*arm, counts.to_json()] for arm, counts in self.totals.items()],
        }

    def restore(self, data: Mapping[str, Any]) -> None:
        """Go on where another ledger of the same slab ended: nothing is counted twice."""
        self._used, self._sequence, self._read_at_s = data["used"], data["sequence"], data["read_at_s"]
        for model, revision, release, role, index, weight, old_since_s in data["leases"]:
            key = (model, revision, release, Role(role))
            lease = self._leases[key] = _Lease(index, weight, old_since_s)
            self._keys[index] = key
            if old_since_s is None:
                self._current.setdefault(model, []).append(key)
            else:
                self._old[key] = lease
        self._free = [index for index in range(self._used - 1, -1, -1) if index not in self._keys]
        for region, read in data["regions"].items():
            reading = self._readings[int(region)] = _Region()
            for slot, cells in read.items():
                last = reading.slots[int(slot)] = Reading.from_json(cells)
                _note(reading.in_flight, int(slot), in_flight_of(last[:HEAD_BYTES]))
        self._slab.grow(max(self._readings, default=-1) + 1)
        for model, release, role, counts in data["totals"]:
            self.totals[model, release, Role(role)] = Counts.from_json(counts)


def _heads(number: int, block: bytes) -> Iterator[tuple[int, bytes]]:
    """The slots of a block and their heads."""
    for place in range(len(block) // HEAD_BYTES):
        yield number * BLOCK + place, block[place * HEAD_BYTES : (place + 1) * HEAD_BYTES]


def _note(in_flight: dict[int, int], slot: int, n: int) -> None:
    if n > 0:
        in_flight[slot] = n
    else:
        in_flight.pop(slot, None)
