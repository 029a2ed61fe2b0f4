"""Counters in shared memory: written by workers without a lock, read by the supervisor.

One anonymous memory file (memfd, so nothing stays in /dev/shm) holds a region for each worker; a region holds slots; a
slot counts one (model, revision, release, role). Every cell is a 64-bit count with a single writer, and 8-byte stores
are atomic, so a reader sees each count whole, and counts survive the death of the worker that wrote them.

The heads of a region's slots stand side by side, before all histograms: whether anything changed in thousands of slots
is then one comparison of bytes. The file is sparse: what was never counted takes no memory.
"""

import mmap
import os
import struct
import sys
from collections.abc import Mapping
from dataclasses import dataclass

from gateway.windows import LAST_BUCKET, Outcome, bucket_of

STARTED = len(Outcome)
FALLBACKS = STARTED + 1
RETRIES = STARTED + 2
DROPPED_IN_FLIGHT = STARTED + 3
DROPPED_BYTES = STARTED + 4
DROPPED_MEMORY = STARTED + 5
HISTOGRAM = 16
"""Cells of a slot's head; in `Counts` the histogram follows them."""
SLOT_CELLS = HISTOGRAM + LAST_BUCKET + 1
CELL_BYTES = 8
HEAD_BYTES = HISTOGRAM * CELL_BYTES


class Slot:
    """The worker's side of one slot."""

    __slots__ = ("base", "buckets", "cells")

    def __init__(self, cells: memoryview, index: int) -> None:
        self.cells = cells
        self.base = index * HISTOGRAM
        self.buckets = len(cells) // SLOT_CELLS * HISTOGRAM + index * (SLOT_CELLS - HISTOGRAM)

    def add(self, cell: int) -> None:
        """Count one in a cell named above (STARTED, FALLBACKS, ...) or an Outcome."""
        self.cells[self.base + cell] += 1

    def ended_ok(self, latency_us: float) -> None:
        cells = self.cells
        cells[self.buckets + bucket_of(latency_us)] += 1
        cells[self.base] += 1  # Outcome.OK, last: a change of the histogram always shows in the slot's head.


@dataclass(frozen=True, slots=True)
class Counts:
    """A difference of two readings of slots, or a sum of such: counts by cell, zeros left out.

    Cells from HISTOGRAM on are latency buckets.
    """

    cells: Mapping[int, int]

    def __getitem__(self, cell: int) -> int:
        return self.cells.get(cell, 0)

    def __bool__(self) -> bool:
        return bool(self.cells)

    def plus(self, other: "Counts") -> "Counts":
        cells = dict(self.cells)
        for cell, n in other.cells.items():
            cells[cell] = cells.get(cell, 0) + n
        return Counts(cells)

    def outcomes(self) -> dict[Outcome, int]:
        return {outcome: self.cells[outcome] for outcome in Outcome if outcome in self.cells}

    def histogram(self) -> dict[int, int]:
        return {cell - HISTOGRAM: n for cell, n in sorted(self.cells.items()) if cell >= HISTOGRAM}

    def dropped(self) -> dict[str, int]:
        reasons = {"in_flight": DROPPED_IN_FLIGHT, "bytes": DROPPED_BYTES, "memory": DROPPED_MEMORY}
        return {reason: self.cells[cell] for reason, cell in reasons.items() if cell in self.cells}

    def to_json(self) -> dict[str, int]:
        return {str(cell): n for cell, n in self.cells.items()}

    @staticmethod
    def from_json(data: Mapping[str, int]) -> "Counts":
        return Counts({int(cell): n for cell, n in data.items()})


ZERO = Counts({})

SLOT_BYTES = SLOT_CELLS * CELL_BYTES
_NOTHING = bytes(SLOT_BYTES)


class Reading(bytes):
    """All cells of a slot as they were at one moment."""

    def since(self, earlier: bytes) -> Counts:
        """What was counted between two readings. OK is the histogram's sum, so the two always agree."""
        cells: dict[int, int] = {}
        ok = 0
        for cell in _differing(self, earlier):
            n = _cell(self, cell) - _cell(earlier, cell)
            if cell >= HISTOGRAM:
                ok += n
            cells[cell] = n
        cells.pop(Outcome.OK, None)
        return Counts({Outcome.OK: ok, **cells} if ok else cells)

    def to_json(self) -> dict[str, int]:
        """The cells that are not zero, by number."""
        return {str(cell): _cell(self, cell) for cell in _differing(self, _NOTHING)}

    @staticmethod
    def from_json(data: Mapping[str, int]) -> "Reading":
        cells = [0] * SLOT_CELLS
        for cell, n in data.items():
            cells[int(cell)] = n
        return Reading(struct.pack(f"={SLOT_CELLS}Q", *cells))


NEVER = Reading(_NOTHING)
"""What stands for a slot that was not read yet."""


def _differing(one: bytes, other: bytes) -> list[int]:
    """The cells in which two readings differ, found by halving: most are the same."""
    found: list[int] = []
    parts = [(0, SLOT_CELLS)]
    while parts:
        first, after = parts.pop()
        start, end = first * CELL_BYTES, after * CELL_BYTES
        if one[start:end] == other[start:end]:
            continue
        if after - first == 1:
            found.append(first)
        else:
            middle = (first + after) // 2
            parts += ((middle, after), (first, middle))
    return found


def _cell(reading: bytes, cell: int) -> int:
    return int.from_bytes(reading[cell * CELL_BYTES : (cell + 1) * CELL_BYTES], sys.byteorder)


def in_flight_of(head: bytes) -> int:
    """Requests that were started and did not end, by a slot's head."""
    cells = memoryview(head).cast("Q").tolist()
    return cells[STARTED] - sum(cells[: len(Outcome)])


def _region_bytes(slots: int) -> int:
    page = mmap.ALLOCATIONGRANULARITY
    return -(-slots * SLOT_CELLS * CELL_BYTES // page) * page


def region_of(fd: int, region: int, slots: int) -> memoryview:
    """The cells of one region, alone: what a worker maps. It makes `Slot`s from them."""
    size = _region_bytes(slots)
    return memoryview(mmap.mmap(fd, size, offset=region * size)).cast("Q")[: slots * SLOT_CELLS]


class Slab:
    """The whole memory file: regions of `slots` slots each, as many as were asked for."""

    def __init__(self, fd: int, regions: int, slots: int) -> None:
        self.fd, self.slots = fd, slots
        self.regions = 0
        self._size = _region_bytes(slots)
        self.grow(regions)

    @staticmethod
    def create(regions: int, slots: int) -> "Slab":
        return Slab(os.memfd_create("sluice-counters", os.MFD_CLOEXEC), regions, slots)

    def grow(self, regions: int) -> None:
        """Have at least this many regions; what was counted stays."""
        if regions <= self.regions:
            return
        if os.fstat(self.fd).st_size < self._size * regions:
            os.ftruncate(self.fd, self._size * regions)
        self._memory = mmap.mmap(self.fd, self._size * regions)
        self._cells = memoryview(self._memory).cast("Q")
        self.regions = regions

    def region(self, region: int) -> memoryview:
        """The cells of one region."""
        start = region * self._size // CELL_BYTES
        return self._cells[start : start + self.slots * SLOT_CELLS]

    def heads(self, region: int, first: int, after: int) -> bytes:
        """The heads of the slots from `first` until before `after`."""
        start = region * self._size // CELL_BYTES
        return bytes(self._cells[start + first * HISTOGRAM : start + after * HISTOGRAM])

    def read(self, region: int, slot: int) -> Reading:
        """All cells of a slot."""
        start, (head, buckets) = region * self._size // CELL_BYTES, self._places(slot)
        heads = self._cells[start + head : start + head + HISTOGRAM]
        histogram = self._cells[start + buckets : start + buckets + SLOT_CELLS - HISTOGRAM]
        return Reading(b"".join((heads, histogram)))

    def count_lost(self, region: int, slot: int) -> None:
        """After a worker's death: count what it had in flight as lost."""
        counts = self.read(region, slot).since(NEVER)
        lost = counts[STARTED] - sum(counts.outcomes().values())
        if lost > 0:
            self.region(region)[self._places(slot)[0] + Outcome.LOST] += lost

    def clear(self, region: int, slot: int) -> None:
        cells, (head, buckets) = self.region(region), self._places(slot)
        for start, length in ((head, HISTOGRAM), (buckets, SLOT_CELLS - HISTOGRAM)):
            cells[start : start + length] = memoryview(bytes(length * CELL_BYTES)).cast("Q")

    def clear_region(self, region: int) -> None:
        """Set all to zero, and give the memory back."""
        self._memory.madvise(mmap.MADV_REMOVE, region * self._size, self._size)

    def _places(self, slot: int) -> tuple[int, int]:
        """Where a slot's head and its histogram begin in its region."""
        return slot * HISTOGRAM, self.slots * HISTOGRAM + slot * (SLOT_CELLS - HISTOGRAM)
