"""`make bench-gateway`: the gateway beside its peers, in one run and interleaved.

    python -m loadtests.bench.gateway [--quick] [--only WORK]... [--json]

Everything of the gateway is on: weighted sticky split, request ids, counters, limits, samples, metrics; one worker. The
peers do less (see `loadtests.peers`). The works stand one after the other; within one, everyone has a turn in every
round, in an order that moves by one from round to round. Writes build/bench/gateway.json, or gateway-WORK.json.
"""

import json
import signal
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from loadtests.bench.bars import BARS
from loadtests.bench.forwarding import Forwarding
from loadtests.bench.idle import Idle
from loadtests.bench.mirroring import Mirroring
from loadtests.bench.models import Models
from loadtests.bench.performing import measured
from loadtests.bench.processes import this_machine
from loadtests.bench.rows import Circumstances, document, exit_code
from loadtests.bench.stage import Length
from loadtests.bench.table_change import TableChange
from loadtests.bench.tables import tables_of
from loadtests.bench.triton import Triton
from loadtests.bench.work import Work
from loadtests.peers.line_up import PEERS

WORKS: Sequence[Work] = (
    Forwarding("small_json"),
    Forwarding("binary_602k", weighs=True),
    Triton(),
    Models(),
    TableChange(),
    Mirroring(),
    Idle(),
)
OUT = Path("build/bench")
FULL, QUICK = Length(5, 0.5, 3.0), Length(2, 0.2, 0.8)


def bench(
    quick: Annotated[bool, typer.Option("--quick", help="Two short rounds, a minute or two.")] = False,
    only: Annotated[list[str] | None, typer.Option(help=f"One of {', '.join(work.name for work in WORKS)}.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print the document, not tables.")] = False,
) -> None:
    """Measure the gateway beside its peers. Exit code 1 when a bar does not hold or was not measured."""
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # Like Ctrl-C: whatever was started is stopped.
    works, length = _chosen(only or []), QUICK if quick else FULL
    bars = _bars_of(works)
    versions = {peer.name: peer.version() for peer in PEERS}
    console = Console(stderr=True)
    for peer in (peer for peer in PEERS if versions[peer.name] is None):
        console.print(f"{peer.name} is not installed: measured without it ({peer.install})", style="yellow")
    rows, failed = measured(works, [peer for peer in PEERS if versions[peer.name]], length, BARS, console)
    now = datetime.now(UTC).isoformat(timespec="seconds")
    under = Circumstances(now, this_machine(), length.rounds, versions, failed)
    written = json.dumps(document("gateway", under, rows, bars), indent=1)
    path = OUT / f"{'-'.join(['gateway', *(only or [])])}.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(written + "\n")
    if as_json:
        typer.echo(written)
    else:
        Console().print(*tables_of(rows, bars), f"written to {path}", sep="\n")
    raise typer.Exit(exit_code(rows, bars))


def _chosen(only: Sequence[str]) -> list[Work]:
    names = [work.name for work in WORKS]
    if unknown := set(only) - set(names):
        raise typer.BadParameter(f"there is no work {', '.join(sorted(unknown))}; known are {', '.join(names)}")
    return [work for work in WORKS if not only or work.name in only]


def _bars_of(works: Sequence[Work]) -> Mapping[str, float]:
    """The bars that these works are to measure."""
    loads = {load for work in works for load in work.loads}
    return {what: bar for what, bar in BARS.items() if what.partition(".")[0] in loads}


if __name__ == "__main__":
    typer.run(bench)
