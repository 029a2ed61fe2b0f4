"""`make bench-slow`: clients that hardly send or read, and more bytes than a worker may hold.

    python -m loadtests.bench.slow [--quick] [--only WORK]... [--json]

One gateway with one worker and its default limits, and usual requests beside the slow clients. QUICK shortens the
gateway's time limits, and sends fewer. Writes build/bench/slow.json, or slow-WORK.json.
"""

import json
import resource
import signal
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from loadtests.bench.ledger_works import NAMES, Ledger
from loadtests.bench.performing import measured
from loadtests.bench.processes import this_machine
from loadtests.bench.rows import Circumstances, document, exit_code
from loadtests.bench.slow_clients import HEADS, READERS, SILENT_BODIES, TRICKLED_BODIES
from loadtests.bench.slow_works import SLOWHTTPTEST, Extent, Slow, is_installed
from loadtests.bench.stage import Length
from loadtests.bench.tables import tables_of
from loadtests.bench.work import Work
from loadtests.peers.ours import SLUICE

OUT = Path("build/bench")
FULL, QUICK = Length(3, 0.0, 0.0), Length(1, 0.0, 0.0)
SHORT = {"head_timeout_s": 3.0, "body_read_timeout_s": 3.0, "write_timeout_s": 5.0}
MANNERS = (HEADS, SILENT_BODIES, TRICKLED_BODIES, READERS)
TESTED = (HEADS, SILENT_BODIES, READERS)
"""What slowhttptest can do."""

BARS: Mapping[str, float] = {
    **{f"slow_{manner}.p99_ratio_to_without": 2.0 for manner in MANNERS},
    **{f"slow_{manner}.cut_early_s.with": 1.0 for manner in MANNERS},
    **{f"slow_{manner}.cut_late_s.with": 1.0 for manner in MANNERS},
    **{f"slow_{manner}.uncut.with": 0.0 for manner in MANNERS},
    **{f"slowhttptest_{manner}.p99_ratio_to_without": 2.0 for manner in TESTED},
    **{f"slowhttptest_{manner}.uncut.with": 0.0 for manner in TESTED},
    **{f"{name}.ledger_ratio.sluice": 1.3 for name in NAMES},
    **{f"{name}.left_bytes.sluice": 0.0 for name in NAMES},
    "large_bodies.badly_ended.sluice": 0.0,
    "gzip_bodies.badly_ended.sluice": 0.0,
    "unread_answers.uncut.sluice": 0.0,
}
"""Changed only by an issue."""


def works(quick: bool) -> list[Work]:
    """In this order. Readers come one by one: 1,000 answers of 1 MB in a second are not slowness."""
    count, per_s, settings = (500, 500.0, SHORT) if quick else (5_000, 1_000.0, {})
    extent, reading = Extent(count, per_s, settings), Extent(count, per_s / 5, settings)

    def slow(manner: str, by_slowhttptest: bool = False) -> Slow:
        return Slow(manner, reading if manner == READERS else extent, by_slowhttptest)

    tested = [slow(manner, True) for manner in TESTED] if is_installed() else []
    return [*(slow(manner) for manner in MANNERS), *tested, Ledger(100 if quick else 1_000)]


def bench(
    quick: Annotated[bool, typer.Option("--quick", help="Fewer clients, shorter limits, one round.")] = False,
    only: Annotated[list[str] | None, typer.Option(help="A work's name, such as slow_heads or ledger.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print the document, not tables.")] = False,
) -> None:
    """Measure what slow clients cost. Exit code 1 when a bar does not hold or was not measured."""
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # Like Ctrl-C: whatever was started is stopped.
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    chosen = _chosen(works(quick), only or [])
    console = Console(stderr=True)
    if not is_installed():
        console.print(f"{SLOWHTTPTEST} is not installed: measured without it (apt-get install slowhttptest)")
    loads = {load for work in chosen for load in work.loads}
    bars = {what: bar for what, bar in BARS.items() if what.partition(".")[0] in loads}
    length = QUICK if quick else FULL
    rows, failed = measured(chosen, [SLUICE], length, bars, console)
    now = datetime.now(UTC).isoformat(timespec="seconds")
    under = Circumstances(now, this_machine(), length.rounds, {}, failed)
    written = json.dumps(document("slow", under, rows, bars), indent=1)
    path = OUT / f"{'-'.join(['slow', *(only or [])])}.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(written + "\n")
    if as_json:
        typer.echo(written)
    else:
        Console().print(*tables_of(rows, bars), f"written to {path}", sep="\n")
    raise typer.Exit(exit_code(rows, bars))


def _chosen(known: Sequence[Work], only: Sequence[str]) -> list[Work]:
    names = [work.name for work in known]
    if unknown := set(only) - set(names):
        raise typer.BadParameter(f"there is no work {', '.join(sorted(unknown))}; known are {', '.join(names)}")
    return [work for work in known if not only or work.name in only]


if __name__ == "__main__":
    typer.run(bench)
