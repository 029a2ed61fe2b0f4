"""`make bench-gateway`: the gateway beside its peers, in one run and interleaved.

    python -m loadtests.bench.gateway [--quick]

Everything of the gateway is on: weighted sticky split, request ids, counters, limits, samples, metrics; one worker. The
peers do less (see `loadtests.peers`). All share this machine's cores with the load and the upstream, so requests/s is
the whole chain's; CPU time per request is the proxy's own. Writes build/bench/gateway.json.
"""

import contextlib
import itertools
import json
import signal
import subprocess
import sys
import tempfile
from collections import defaultdict
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.progress import Progress

from loadtests.bench.client import BODIES, Ask, Got
from loadtests.bench.processes import cpu_us, running, this_machine, wait_until_it_answers
from loadtests.bench.rows import Measured, Row, document, exit_code, rows_of
from loadtests.bench.tables import tables_of
from loadtests.errors import BenchError
from loadtests.peers.line_up import PEERS, SLUICE, Peer, Task
from loadtests.ports import free_addresses

BARS = {"small_json.cpu_ratio_to_fastapi_httpx": 0.25, "small_json.p99_ratio_to_fastapi_httpx": 1.0}
"""Changed only by an issue. Ratios to nginx and HAProxy are told without a bar."""
CONNECTIONS = 16
OUT = Path("build/bench/gateway.json")


@dataclass(frozen=True, slots=True)
class Length:
    """How much is measured: rounds, and the seconds of each load of each peer in a round, warm-up apart."""

    rounds: int
    warm_s: float
    seconds: float


FULL, QUICK = Length(5, 0.5, 3.0), Length(2, 0.3, 1.5)


@dataclass(frozen=True, slots=True)
class Target:
    """A peer that runs. `pid` is None for the upstream itself, asked without a proxy."""

    name: str
    address: str
    pid: int | None


def bench(quick: Annotated[bool, typer.Option("--quick", help="Two short rounds, about a minute.")] = False) -> None:
    """Measure the gateway beside its peers. Exit code 1 when a bar does not hold, 2 when it could not be measured."""
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # Like Ctrl-C: whatever was started is stopped.
    console, length = Console(stderr=True), QUICK if quick else FULL
    versions = {peer.name: peer.version() for peer in PEERS}
    for name in (name for name, version in versions.items() if version is None):
        console.print(f"{name} is not installed: measured without it (apt-get install {name})", style="yellow")
    try:
        rows = _measure([peer for peer in PEERS if versions[peer.name]], length, console)
    except BenchError as exc:
        console.print(f"error: {exc}", style="red", markup=False, highlight=False, soft_wrap=True)
        raise typer.Exit(2) from exc
    _write(rows, length, versions)
    Console().print(*tables_of(rows), f"written to {OUT}", sep="\n")
    raise typer.Exit(exit_code(rows, BARS))


def _measure(peers: list[Peer], length: Length, console: Console) -> list[Row]:
    """Raises BenchError when a peer does not start or does not answer every request."""
    rounds: dict[str, dict[str, list[Measured]]] = {load: defaultdict(list) for load in BODIES}
    with (
        tempfile.TemporaryDirectory(prefix="sluice-bench-") as folder,
        _targets(peers, Path(folder)) as targets,
        Progress(console=console, transient=True) as progress,
    ):
        turns = list(itertools.product(range(1, length.rounds + 1), BODIES, targets))
        task = progress.add_task("", total=len(turns))
        for number, load, target in turns:
            progress.update(task, description=f"round {number} of {length.rounds}, {load}, {target.name}")
            rounds[load][target.name].append(_one(target, load, length))
            progress.advance(task)
    return [row for load, measured in rounds.items() for row in rows_of(load, measured, SLUICE.name, BARS)]


@contextlib.contextmanager
def _targets(peers: list[Peer], folder: Path) -> Iterator[list[Target]]:
    """The upstream and every peer in front of it, running until the block ends."""
    stable, candidate, *listening = free_addresses(*[0] * (2 + len(peers)))
    upstream = [sys.executable, "-m", "loadtests.peers.upstream", stable, candidate]
    with contextlib.ExitStack() as stack:
        stack.enter_context(running("the upstream", upstream, folder / "upstream.log"))
        targets = [Target("direct", stable, None)]
        wait_until_it_answers("the upstream", f"http://{candidate}/", b"", folder / "upstream.log")
        for peer, listen in zip(peers, listening, strict=True):
            own = folder / peer.name
            own.mkdir()
            command = peer.command(Task(listen, stable, candidate, own))
            pid = stack.enter_context(running(peer.name, command, own / "log"))
            url = f"http://{listen}/v2/models/digits/infer"
            wait_until_it_answers(peer.name, url, BODIES["small_json"]().data, own / "log")
            targets.append(Target(peer.name, listen, pid))
        yield targets


def _one(target: Target, load: str, length: Length) -> Measured:
    """One peer under one load. The client's whole time is charged to all of its requests, so warm-up counts alike."""
    before = cpu_us(target.pid) if target.pid else 0.0
    got = _send(Ask(target.address, load, CONNECTIONS, length.warm_s, length.seconds), target.name)
    spent = (cpu_us(target.pid) - before) / got.answered if target.pid else None
    return Measured(got.timed / got.seconds, got.p50_us, got.p99_us, spent)


def _send(ask: Ask, name: str) -> Got:
    """Run the client to its end. Raises BenchError when it failed."""
    command = [sys.executable, "-m", "loadtests.bench.client", json.dumps(asdict(ask))]
    ended = subprocess.run(command, capture_output=True, text=True, check=False)
    if ended.returncode:
        raise BenchError(f"the load on {name} failed: {(ended.stderr.strip().splitlines() or ['it said nothing'])[-1]}")
    return Got(**json.loads(ended.stdout))


def _write(rows: list[Row], length: Length, versions: Mapping[str, str | None]) -> None:
    now = datetime.now(UTC).isoformat(timespec="seconds")
    OUT.parent.mkdir(parents=True, exist_ok=True)
    OUT.write_text(json.dumps(document("gateway", now, this_machine(), length.rounds, rows, versions), indent=1) + "\n")


if __name__ == "__main__":
    typer.run(bench)
