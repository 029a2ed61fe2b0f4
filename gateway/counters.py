"""Counters in shared memory: written by workers without a lock, read by the supervisor.

One anonymous memory file (memfd, so nothing stays in /dev/shm) holds a region for each worker; a region holds slots; a
slot counts one (model, revision, release, role). Every cell is a 64-bit count with a single writer, and 8-byte stores
are atomic, so a reader sees each count whole, and counts survive the death of the worker that wrote them.

The heads of a region's slots stand side by side, before all histograms: whether anything changed in thousands of slots
is then one comparison of bytes. The file is sparse: what was never counted takes no memory.
"""

import mmap
import os
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
    """A reading of one slot, or the difference of two."""

    cells: tuple[int, ...]

    @property
    def in_flight(self) -> int:
        return self.cells[STARTED] - sum(self.cells[: len(Outcome)])

    def minus(self, earlier: "Counts") -> "Counts":
        return Counts(tuple(map(int.__sub__, self.cells, earlier.cells)))

    def plus(self, other: "Counts") -> "Counts":
        return Counts(tuple(map(int.__add__, self.cells, other.cells)))

    def outcomes(self) -> dict[Outcome, int]:
        return {outcome: self.cells[outcome] for outcome in Outcome if self.cells[outcome]}

    def histogram(self) -> dict[int, int]:
        return {bucket: n for bucket, n in enumerate(self.cells[HISTOGRAM:]) if n}

    def dropped(self) -> dict[str, int]:
        reasons = {
            "in_flight": self.cells[DROPPED_IN_FLIGHT],
            "bytes": self.cells[DROPPED_BYTES],
            "memory": self.cells[DROPPED_MEMORY],
        }
        return {reason: n for reason, n in reasons.items() if n}

    def to_json(self) -> dict[str, int]:
        """The cells that are not zero, by number."""
        return {str(cell): n for cell, n in enumerate(self.cells) if n}

    @staticmethod
    def from_json(data: Mapping[str, int]) -> "Counts":
        cells = [0] * SLOT_CELLS
        for cell, n in data.items():
            cells[int(cell)] = n
        return Counts(tuple(cells))

    def __bool__(self) -> bool:
        return any(self.cells)


ZERO = Counts((0,) * SLOT_CELLS)


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

    def read(self, region: int, slot: int) -> Counts:
        """All counts of a slot. OK is the histogram's sum, so the two agree whenever a worker is read."""
        cells, (head, buckets) = self.region(region), self._places(slot)
        histogram = cells[buckets : buckets + SLOT_CELLS - HISTOGRAM].tolist()
        return Counts((sum(histogram), *cells[head + 1 : head + HISTOGRAM], *histogram))

    def count_lost(self, region: int, slot: int) -> None:
        """After a worker's death: count what it had in flight as lost."""
        lost = self.read(region, slot).in_flight
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
