"""Carries works out: sets each up, gives everyone a turn in every round, and makes rows of what was measured."""

import contextlib
import tempfile
from collections import defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path

from rich.console import Console
from rich.progress import Progress

from loadtests.bench.rows import Figures, Measured, Row, rows_of
from loadtests.bench.stage import Length, Stage
from loadtests.bench.work import Work
from loadtests.errors import BenchError
from loadtests.peers.peer import Peer


def measured(
    works: Sequence[Work], peers: Sequence[Peer], length: Length, bars: Mapping[str, float], console: Console
) -> tuple[list[Row], dict[str, str]]:
    """The rows, and the works that failed with the reason: the others go on."""
    rows: list[Row] = []
    failed = {}
    with Progress(console=console, transient=True) as progress:
        for work in works:
            try:
                found = _perform(work, peers, length, progress)
            except BenchError as exc:
                failed[work.name] = str(exc)
                console.print(f"error: {work.name}: {exc}", style="red", markup=False, highlight=False, soft_wrap=True)
                continue
            subjects = {load: list(rounds) for load, rounds in found.items()}
            rows += rows_of(found, work.comparisons(subjects), bars)
    return rows, failed


def _perform(work: Work, peers: Sequence[Peer], length: Length, progress: Progress) -> Measured:
    """Raises BenchError when a peer does not start or does not answer every request."""
    found: dict[str, dict[str, list[Figures]]] = defaultdict(lambda: defaultdict(list))
    task = progress.add_task(f"{work.name}: starting", total=None)
    with (
        tempfile.TemporaryDirectory(prefix="sluice-bench-") as folder,
        contextlib.ExitStack() as stack,
        work.open(Stage(Path(folder), stack, peers, length)) as turns,
    ):
        progress.update(task, total=length.rounds * len(turns))
        for turn in turns:
            found[turn.load][turn.subject] = []  # In this order, whoever comes first.
        for number in range(length.rounds):
            first = number % len(turns)
            for turn in [*turns[first:], *turns[:first]]:
                told = f"{work.name}: round {number + 1} of {length.rounds}, {turn.load}, {turn.subject}"
                progress.update(task, description=told)
                found[turn.load][turn.subject].append(turn.measure())
                progress.advance(task)
    progress.remove_task(task)
    return found
