"""`make bench-decisions`: simulated rollouts by the engine and by other rules.

python -m loadtests.deciding [--quick] [--only CELL]... [--json]
"""

import json
import signal
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from loadtests.bench.processes import this_machine
from loadtests.bench.rows import Circumstances, Row, document, exit_code
from loadtests.deciding.cells import CELLS, NULLS
from loadtests.deciding.others import METHODS
from loadtests.deciding.outage import outage
from loadtests.deciding.pairs import PAIR_CELLS
from loadtests.deciding.plots import plot
from loadtests.deciding.report import bars_of, outage_rows, rows_of, table_of, table_of_bars, tick_rows
from loadtests.deciding.running import Ended, on_all_cores
from loadtests.deciding.tick import tick_ms

OUT = Path("build/bench")
NULL_RUNS, RUNS = 10_000, 2_000
QUICK_NULL_RUNS, QUICK_RUNS = 200, 100
OUTAGE, TICK = "fails_everything", "tick"
OUTAGES, TICK_MODELS = 2_000, (10, 50, 100, 200)
INTERRUPTED = 130
NAMED_MOST = 5
"""Of the cells asked for: so many stand in the file's name."""
NAMES = [*CELLS, *PAIR_CELLS, OUTAGE, TICK]


def bench(
    quick: Annotated[bool, typer.Option("--quick", help="Hundreds of rollouts instead of thousands.")] = False,
    runs: Annotated[int | None, typer.Option(min=1, help="Rollouts of each cell, instead of 10,000 and 2,000.")] = None,
    only: Annotated[list[str] | None, typer.Option(help=f"One of {', '.join(NAMES)}.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print the document, not tables.")] = False,
) -> None:
    """Simulate rollouts. Exit code 1 when a bar does not hold; stopped, what is done is written and the code is 130."""
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    names = only or NAMES
    if unknown := set(names) - set(NAMES):
        raise typer.BadParameter(f"there is no cell {', '.join(sorted(unknown))}; known are {', '.join(NAMES)}")
    ticks = _ticks() if TICK in names else []  # Alone on its core, before the others.
    outages = _outages(quick) if OUTAGE in names else []
    counts = _counts(names, quick, runs)
    found = _run(counts)
    left_out = [name for name in counts if name not in found]
    counts = {name: counts[name] for name in found}
    rows = [*rows_of(found), *outages, *ticks]
    bars = bars_of(found)
    plots = plot(found, OUT / "decisions")
    path = OUT / f"{'-'.join(['decisions', *(only or [])[:NAMED_MOST]])}.json"
    written = json.dumps(_document(rows, bars, counts), indent=1)
    path.write_text(written + "\n")
    if as_json:
        typer.echo(written)
    else:
        console = Console(width=132)
        console.print(table_of(found), table_of_bars(rows, bars), sep="\n")
        console.print(f"written to {path}", *map(str, plots))
    if left_out:
        typer.echo(f"stopped: left out are {', '.join(left_out)}", err=True)
        raise typer.Exit(INTERRUPTED)
    raise typer.Exit(exit_code(rows, bars))


def _run(counts: Mapping[str, int]) -> dict[str, dict[str, list[Ended]]]:
    """All cells; stopped (Ctrl-C, SIGTERM), those that are done."""
    found = {}
    with _progress() as progress:
        tasks = {name: progress.add_task(name, total=count) for name, count in counts.items()}
        try:
            for name, by_method in on_all_cores(counts, lambda name, done: progress.advance(tasks[name], done)):
                found[name] = by_method
                progress.console.print(f"{name}: done")
        except KeyboardInterrupt:
            pass
    return found


def _counts(names: Sequence[str], quick: bool, wanted: int | None) -> dict[str, int]:
    """Rollouts of each cell."""
    nulls = {one.name for one in NULLS}
    null_runs, runs = (QUICK_NULL_RUNS, QUICK_RUNS) if quick else (wanted or NULL_RUNS, wanted or RUNS)
    return {name: null_runs if name in nulls else runs for name in names if name not in (OUTAGE, TICK)}


def _ticks() -> list[Row]:
    return tick_rows({models: tick_ms(models) for models in TICK_MODELS})


def _outages(quick: bool) -> list[Row]:
    return outage_rows([outage(seed) for seed in range(QUICK_RUNS if quick else OUTAGES)])


def _document(rows: Sequence[Row], bars: Mapping[str, float], counts: dict[str, int]) -> dict[str, object]:
    now = datetime.now(UTC).isoformat(timespec="seconds")
    under = Circumstances(now, this_machine(), 1, dict.fromkeys(METHODS, "as in facts/statistics.md 3"), {})
    return {**document("decisions", under, rows, bars), "runs": counts}


def _progress() -> Progress:
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    return Progress(*columns, console=Console(stderr=True))


if __name__ == "__main__":
    typer.run(bench)
