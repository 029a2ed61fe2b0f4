"""Counters in shared memory: written by workers without a lock, read by the supervisor.

One anonymous memory file (memfd, so nothing stays in /dev/shm) holds a region for each worker; a region holds slots; a
slot counts one (model, revision, release, role). Every cell is a 64-bit count with a single writer, and 8-byte stores
are atomic, so a reader sees each count whole, and counts survive the death of the worker that wrote them.
"""

import mmap
import os
from dataclasses import dataclass

from gateway.windows import LAST_BUCKET, Outcome, bucket_of

STARTED = len(Outcome)
FALLBACKS = STARTED + 1
RETRIES = STARTED + 2
DROPPED_IN_FLIGHT = STARTED + 3
DROPPED_BYTES = STARTED + 4
DROPPED_MEMORY = STARTED + 5
HISTOGRAM = 16
SLOT_CELLS = HISTOGRAM + LAST_BUCKET + 1
CELL_BYTES = 8


class Slot:
    """The worker's side of one slot."""

    __slots__ = ("base", "cells")

    def __init__(self, cells: memoryview, index: int) -> None:
        self.cells = cells
        self.base = index * SLOT_CELLS

    def add(self, cell: int) -> None:
        """Count one in a cell named above (STARTED, FALLBACKS, ...) or an Outcome."""
        self.cells[self.base + cell] += 1

    def ended_ok(self, latency_us: float) -> None:
        cells, base = self.cells, self.base
        cells[base + HISTOGRAM + bucket_of(latency_us)] += 1
        cells[base] += 1  # Outcome.OK, last: a change of the histogram always shows in the slot's head.


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

    def __bool__(self) -> bool:
        return any(self.cells)


ZERO = Counts((0,) * SLOT_CELLS)


class Slab:
    """The whole memory file: `regions` regions of `slots` slots."""

    def __init__(self, fd: int, regions: int, slots: int) -> None:
        self.fd = fd
        page = mmap.ALLOCATIONGRANULARITY
        self._region_bytes = -(-slots * SLOT_CELLS * CELL_BYTES // page) * page
        self._memory = mmap.mmap(fd, self._region_bytes * regions)
        self._cells = memoryview(self._memory).cast("Q")

    @staticmethod
    def create(regions: int, slots: int) -> "Slab":
        page = mmap.ALLOCATIONGRANULARITY
        region_bytes = -(-slots * SLOT_CELLS * CELL_BYTES // page) * page
        fd = os.memfd_create("sluice-counters", os.MFD_CLOEXEC)
        os.ftruncate(fd, region_bytes * regions)
        return Slab(fd, regions, slots)

    def region(self, index: int) -> memoryview:
        """The cells of one region; the worker that owns it makes `Slot`s from them."""
        cells = self._region_bytes // CELL_BYTES
        return self._cells[index * cells : (index + 1) * cells]

    def head(self, region: int, slot: int) -> bytes:
        """The cells before the histogram, to see cheaply whether anything changed."""
        return bytes(self.region(region)[slot * SLOT_CELLS : slot * SLOT_CELLS + HISTOGRAM])

    def read(self, region: int, slot: int) -> Counts:
        """All counts of a slot. OK is the histogram's sum, so the two agree whenever a worker is read."""
        cells = list(self.region(region)[slot * SLOT_CELLS : (slot + 1) * SLOT_CELLS])
        cells[Outcome.OK] = sum(cells[HISTOGRAM:])
        return Counts(tuple(cells))

    def in_flight(self, region: int, slot: int) -> int:
        head = self.region(region)[slot * SLOT_CELLS : slot * SLOT_CELLS + HISTOGRAM]
        return head[STARTED] - sum(head[: len(Outcome)])

    def count_lost(self, region: int, slot: int) -> None:
        """After a worker's death: count what it had in flight as lost."""
        lost = self.read(region, slot).in_flight
        if lost > 0:
            self.region(region)[slot * SLOT_CELLS + Outcome.LOST] += lost

    def clear(self, region: int, slot: int) -> None:
        start = slot * SLOT_CELLS
        self.region(region)[start : start + SLOT_CELLS] = memoryview(bytes(SLOT_CELLS * CELL_BYTES)).cast("Q")
