"""`python -m loadtests.fuzz`: run so many inputs on all cores, and say what failed and how to have it again."""

import argparse
import multiprocessing
import os
import resource
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from multiprocessing.pool import Pool
from pathlib import Path

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from loadtests.fuzz.targets import INPUTS, Failed, run_batch

FAILURES_MOST = 20
"""Then the run is given up."""
SHOWN_BYTES = 2_000
TOLD_EVERY_S = 60.0
"""How often a run says how far it is where no bar can be shown."""


@dataclass(slots=True)
class Tally:
    """What came of the batches so far. Memory is a worker's, by process, in MB."""

    inputs: int = 0
    failed: list[Failed] = field(default_factory=list)
    memory_at_begin: dict[int, float] = field(default_factory=dict)
    memory: dict[int, float] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Done:
    inputs: int
    failed: Failed | None
    pid: int
    memory_mb: float


def resident_mb() -> float:
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * resource.getpagesize() / 2**20


def work(seed: int) -> Done:
    result = run_batch(seed)
    return Done(result.inputs, result.failed, os.getpid(), resident_mb())


def run(pool: Pool, seeds: Sequence[int], progress: Progress) -> Tally:
    tally = Tally()
    bar = progress.add_task("fuzzing", total=len(seeds) * INPUTS)
    began_s = told_s = time.monotonic()
    for number, done in enumerate(pool.imap_unordered(work, seeds, 4), 1):
        tally.inputs += done.inputs
        if number > 200 or done.pid not in tally.memory_at_begin:  # The first batches fill what is remembered.
            tally.memory[done.pid] = done.memory_mb
        if number <= 200 or done.pid not in tally.memory_at_begin:
            tally.memory_at_begin[done.pid] = done.memory_mb
        now_s = time.monotonic()
        speed = f"{tally.inputs / (now_s - began_s):,.0f}/s, {len(tally.failed)} failed"
        progress.update(bar, completed=number * INPUTS, description=speed)
        if not progress.console.is_terminal and now_s - told_s > TOLD_EVERY_S:
            told_s = now_s
            progress.console.print(f"{tally.inputs:,} inputs, {speed}", highlight=False)
        if done.failed is not None:
            tally.failed.append(done.failed)
            progress.console.print("\n".join(told(done.failed)), markup=False, highlight=False)
            if len(tally.failed) >= FAILURES_MOST:
                pool.terminate()
                break
    return tally


def told(failed: Failed) -> Iterator[str]:
    yield f"FAILED: batch {failed.seed}, input {failed.number}; again: python -m loadtests.fuzz --batch {failed.seed}"
    yield f"  {failed.input[:SHOWN_BYTES]}"
    yield f"  {failed.text[:SHOWN_BYTES]}"


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m loadtests.fuzz", description=__doc__)
    parser.add_argument("--inputs", type=int, default=100_000)
    parser.add_argument("--seed", type=int, default=0, help="of the first batch; the others follow")
    parser.add_argument("--processes", type=int, default=len(os.sched_getaffinity(0)))
    parser.add_argument("--batch", type=int, help="run one batch again, by its seed")
    options = parser.parse_args(arguments)
    console = Console()
    if options.batch is not None:
        found = run_batch(options.batch).failed
        console.print("\n".join(told(found)) if found else "It holds.", markup=False, highlight=False)
        return 1 if found else 0
    began_s = time.monotonic()
    seeds = range(options.seed, options.seed + -(-options.inputs // INPUTS))
    bar = Progress(TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with multiprocessing.Pool(options.processes) as pool, bar as progress:
        tally = run(pool, seeds, progress)
    spent_s = time.monotonic() - began_s
    memory = ", ".join(f"{tally.memory_at_begin[pid]:.0f} to {mb:.0f} MB" for pid, mb in tally.memory.items())
    speed = f"{tally.inputs:,} inputs in {spent_s:,.0f} s ({tally.inputs / spent_s:,.0f}/s)"
    failed = f"{len(tally.failed)} failed"
    console.print(f"{speed}, seeds {seeds[0]} to {seeds[-1]}, {failed}; a process {memory}", highlight=False)
    return 1 if tally.failed else 0


if __name__ == "__main__":
    raise SystemExit(main())
