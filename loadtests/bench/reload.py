"""`make bench-reload`: does anything cost a request? Every one is numbered, and has exactly one outcome.

    python -m loadtests.bench.reload [--quick]

Steady load over kept and new connections, while the gateway's workers are reloaded, its route table changes, workers
are killed and the servers behind it are killed and started again one after the other. Only what was in flight on a
killed worker's own connections may fail: which these were is read from the kernel just before. Writes
build/bench/reload.json.
"""

import contextlib
import itertools
import json
import os
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import IO, Annotated, Any

import httpx
import typer
from rich import box
from rich.console import Console
from rich.progress import Progress
from rich.table import Table

from gateway import presence
from gateway.errors import GatewayError
from gateway.routes import Candidate, Route, RouteTable
from loadtests.bench.numbered import Ask, Broken, Got
from loadtests.bench.processes import running, this_machine, wait_until_it_answers
from loadtests.bench.rows import Circumstances, Row, document, exit_code
from loadtests.errors import BenchError
from loadtests.peers.ours import write_routes
from loadtests.ports import free_addresses

OUT = Path("build/bench/reload.json")
MODEL = "digits"
RATE, KEPT, NEW_SHARE, WORKERS = 5_000.0, 48, 0.05, 2
LINGER_S = 1.0
BREAKS_WITHIN_S = 2.0
"""How long after a worker's death a client may notice it."""
FALLBACK = "fallback"
"""Counted beside the outcome, which is the candidate's failure: stable answered instead, so the client saw none."""
SETTINGS = {"linger_s": LINGER_S, "drain_timeout_s": 10.0, "report_every_s": 0.25, "requests_per_connection": 10_000}

BARS = {
    "reload.failed": 0.0,
    "reload.closed_without_a_word": 0.0,
    "reload.without_outcome": 0.0,
    "reload.with_two_outcomes": 0.0,
    "reload.counted_too_few": 0.0,
    "reload.counted_too_many": 0.0,
}
"""Changed only by an issue."""


@dataclass(frozen=True, slots=True)
class Length:
    """How many requests, and how often what is done meanwhile."""

    requests: int
    reloads: int
    routes: int
    kills: int
    restarts: int


FULL, QUICK = Length(1_000_000, 50, 50, 10, 10), Length(50_000, 3, 3, 1, 2)


@dataclass(frozen=True, slots=True)
class Kill:
    """A worker's death: when, and the clients' ports of the connections that it had."""

    at_s: float
    ports: frozenset[int]


@dataclass(slots=True)
class Done:
    """What was done while requests were on their way."""

    counts: Counter[str] = field(default_factory=Counter)
    times: list[tuple[float, str]] = field(default_factory=list)
    kills: list[Kill] = field(default_factory=list)
    error: str = ""


@dataclass(slots=True)
class Place:
    """The gateway and its servers, and what disturbs them."""

    folder: Path
    listen: str
    metrics: str
    servers: list[str]
    gateway_pid: int = 0
    processes: list[subprocess.Popen[bytes]] = field(default_factory=list)
    done: Done = field(default_factory=Done)
    version: int = 1

    def table(self) -> RouteTable:
        servers = tuple(self.servers)
        weight = self.version % 10 / 20
        route = Route(MODEL, self.version, 1, {1: servers, 2: servers}, Candidate(2, weight), salt="bench")
        return RouteTable(self.version, {MODEL: route})

    def start_server(self, address: str) -> subprocess.Popen[bytes]:
        command = [sys.executable, "-m", "loadtests.peers.upstream", f"at_once={address}"]
        process = subprocess.Popen(command, stdin=subprocess.DEVNULL)
        wait_until_it_answers("a server", f"http://{address}/", b"", Path(os.devnull))
        return process

    # What is done; each returns when it has taken effect

    def reload(self, _: int) -> None:
        try:
            said = presence.ask(self.folder / "state", signal.SIGHUP, 60.0, lambda _: None)
        except GatewayError as exc:
            raise BenchError(f"a reload was not carried out: {exc}") from exc
        if not said["outcome"]["ok"]:
            raise BenchError(said["outcome"]["text"])

    def change_routes(self, _: int) -> None:
        self.version += 1
        write_routes(self.table(), self.folder / "routes.json")
        ends_s = time.monotonic() + 10.0
        while presence.status(self.folder / "state").get("table_version") != self.version:
            if time.monotonic() > ends_s:
                raise BenchError("a new route table did not come into force")
            time.sleep(0.01)

    def kill_worker(self, _: int) -> None:
        workers = presence.status(self.folder / "state")["workers"]
        serving = [one["pid"] for one in workers if one["state"] == "serving"]
        pid = max(serving, key=lambda pid: len(client_ports(pid, self.listen)))
        os.kill(pid, signal.SIGSTOP)  # It accepts nothing more: what it has is what it had.
        ports = client_ports(pid, self.listen)
        self.done.kills.append(Kill(time.monotonic(), frozenset(ports)))
        os.kill(pid, signal.SIGKILL)
        ends_s = time.monotonic() + 10.0
        while len(_serving(presence.status(self.folder / "state")) - {pid}) < WORKERS:
            if time.monotonic() > ends_s:
                raise BenchError("a killed worker was not replaced")
            time.sleep(0.02)

    def restart_server(self, number: int) -> None:
        which = number % len(self.servers)
        self.processes[which].kill()
        self.processes[which].wait()
        time.sleep(0.3)
        self.processes[which] = self.start_server(self.servers[which])


def _serving(status: dict[str, Any]) -> set[int]:
    return {one["pid"] for one in status.get("workers", ()) if one["state"] == "serving"}


def client_ports(pid: int, listen: str) -> set[int]:
    """The clients' ports of the connections a process has on this address (proc(5): fd, net/tcp)."""
    inodes = set()
    for link in Path(f"/proc/{pid}/fd").iterdir():
        with contextlib.suppress(OSError):
            inodes.add(str(link.readlink()).removeprefix("socket:[").removesuffix("]"))
    own = int(listen.rpartition(":")[2])
    lines = [line.split() for line in Path("/proc/net/tcp").read_text().splitlines()[1:]]
    ends = [(int(line[1].split(":")[1], 16), int(line[2].split(":")[1], 16), line[9]) for line in lines]
    return {theirs for ours, theirs, inode in ends if ours == own and theirs and inode in inodes}


def schedule(length: Length) -> list[tuple[float, str, int]]:
    """(After which share of the requests, what, its number), spread evenly and not at the same moments."""
    kinds = {"reload": length.reloads, "routes": length.routes, "kill": length.kills, "restart": length.restarts}
    plan = [
        (0.02 + 0.94 * (number + (place + 0.5) / len(kinds)) / times, kind, number)
        for place, (kind, times) in enumerate(kinds.items())
        for number in range(times)
    ]
    return sorted(plan)


def disturb(place: Place, plan: Sequence[tuple[float, str, int]], sent_share: "Sent") -> None:
    """Carry the plan out, one thing after the other. A failure is kept in `done.error`."""
    deeds = {
        "reload": place.reload,
        "routes": place.change_routes,
        "kill": place.kill_worker,
        "restart": place.restart_server,
    }
    try:
        for share, kind, number in plan:
            while sent_share.share < share:
                if sent_share.is_over:
                    return
                time.sleep(0.005)
            place.done.times.append((time.monotonic(), kind))
            deeds[kind](number)
            place.done.counts[kind] += 1
    except (BenchError, GatewayError, OSError, ValueError, KeyError) as exc:
        place.done.error = f"{kind} {number}: {exc!r}"


class Sent:
    """How far the load is."""

    share = 0.0
    is_over = False


def bench(
    quick: Annotated[bool, typer.Option("--quick", help="50,000 requests and fewer disturbances.")] = False,
) -> None:
    """Measure what reloads and failures cost. Exit code 1 when a bar does not hold, 2 when it could not be measured."""
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # Like Ctrl-C: whatever was started is stopped.
    console, length = Console(stderr=True), QUICK if quick else FULL
    try:
        with tempfile.TemporaryDirectory(prefix="sluice-reload-") as folder, started(Path(folder)) as place:
            got = play(place, length, console)
            rows = rows_of(place, got, counted(place))
    except BenchError as exc:
        console.print(f"error: {exc}", style="red", markup=False, highlight=False, soft_wrap=True)
        raise typer.Exit(2) from exc
    write(rows, length)
    Console().print(table_of(rows), *blamed(place, got), f"written to {OUT}", sep="\n")
    raise typer.Exit(exit_code(rows, BARS))


@contextlib.contextmanager
def started(folder: Path) -> Iterator[Place]:
    """Three servers and a gateway with two workers in front of them."""
    listen, metrics, *servers = free_addresses(*[0] * 5)
    place = Place(folder, listen, metrics, servers)
    try:
        place.processes += [place.start_server(address) for address in servers]
        write_routes(place.table(), folder / "routes.json")
        lines = ["[gateway]", *(f"{name} = {value}" for name, value in SETTINGS.items())]
        (folder / "gateway.toml").write_text("\n".join(lines) + "\n")
        command = [
            sys.executable, "-m", "sluice", "gateway", "--workers", str(WORKERS),
            "--config", str(folder / "gateway.toml"), "--routes", str(folder / "routes.json"),
            "--listen", listen, "--metrics-listen", metrics, "--state-dir", str(folder / "state"),
        ]  # fmt: skip
        with running("the gateway", command, folder / "log") as pid:
            place.gateway_pid = pid
            url = f"http://{listen}/v2/models/{MODEL}/versions/1/infer"  # Pinned: counted apart.
            wait_until_it_answers("the gateway", url, b"{}", folder / "log")
            yield place
    finally:
        for process in place.processes:
            process.kill()
            process.wait()


def play(place: Place, length: Length, console: Console) -> Got:
    """Raises BenchError when a disturbance could not be carried out, or the load failed."""
    ask = Ask(place.listen, MODEL, length.requests, RATE, KEPT, NEW_SHARE)
    sent, last = Sent(), {}
    command = [sys.executable, "-m", "loadtests.bench.numbered", json.dumps(asdict(ask))]
    with (
        subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as load,
        Progress(console=console, transient=True) as progress,
    ):
        disturbing = threading.Thread(target=disturb, args=(place, schedule(length), sent))
        try:
            assert load.stdin is not None and load.stdout is not None
            disturbing.start()
            threading.Thread(target=_close_after, args=(disturbing, load.stdin), daemon=True).start()
            bar = progress.add_task("", total=length.requests)
            for line in load.stdout:
                last = json.loads(line)
                if "sent" in last:
                    sent.share = last["sent"] / length.requests
                    said = ", ".join(f"{n} {kind}" for kind, n in place.done.counts.items())
                    progress.update(
                        bar, completed=last["sent"], description=f"{said or 'begun'}, {last['broken']} broken"
                    )
        finally:
            sent.is_over = True
            load.kill() if "got" not in last else load.wait()
            disturbing.join()
    if place.done.error or "got" not in last:
        raise BenchError(place.done.error or "the load ended before it said what became of the requests")
    got = last["got"]
    return Got(**{**got, "broken": [Broken(**one) for one in got["broken"]]})


def _close_after(disturbing: threading.Thread, stdin: IO[str]) -> None:
    """The load goes on until all has been done."""
    disturbing.join()
    with contextlib.suppress(OSError):
        stdin.close()


def counted(place: Place) -> Counter[str]:
    """The gateway's own counts by outcome, and FALLBACK, when nothing is in flight any more."""
    ends_s = time.monotonic() + 10.0
    before: Counter[str] = Counter()
    while time.monotonic() < ends_s:
        time.sleep(2 * float(SETTINGS["report_every_s"]))
        text = httpx.get(f"http://{place.metrics}/metrics", timeout=5.0, trust_env=False).text
        now: Counter[str] = Counter()
        for line in text.splitlines():
            if 'role="answered"' not in line:
                continue
            if line.startswith("sluice_requests_total{"):
                now[line.split('outcome="')[1].split('"')[0]] += int(float(line.rpartition(" ")[2]))
            elif line.startswith("sluice_fallbacks_total{"):
                now[FALLBACK] += int(float(line.rpartition(" ")[2]))
        if now == before:
            break
        before = now
    return before


def is_excused(broken: Broken, kills: Sequence[Kill]) -> bool:
    """Was it on a connection of a worker that had just been killed?"""
    return any(broken.port in kill.ports and 0 <= broken.at_s - kill.at_s <= BREAKS_WITHIN_S for kill in kills)


def rows_of(place: Place, got: Got, counts: Counter[str]) -> list[Row]:
    done = place.done
    excused = [one for one in got.broken if is_excused(one, done.kills)]
    others = [one for one in got.broken if not is_excused(one, done.kills)]
    killed = sum(one.number >= 0 for one in excused)
    failed = sum(one.number >= 0 for one in others)
    values: list[tuple[str, float, str]] = [
        ("requests", got.sent, "requests"),
        ("rate", got.sent / got.seconds, "1/s"),
        ("p50_us", got.p50_us, "us"),
        ("p99_us", got.p99_us, "us"),
        ("longest_us", got.longest_us, "us"),
        *((f"{kind}s" if kind != "routes" else "route_changes", float(n), "") for kind, n in done.counts.items()),
        ("connections_closed_announced", got.announced, "connections"),
        ("failed", failed, "requests"),
        ("closed_without_a_word", len(others) - failed, "connections"),
        ("without_outcome", got.without, "requests"),
        ("with_two_outcomes", got.twice, "requests"),
        ("counted_too_few", max(0, got.answered - counts["ok"] - counts[FALLBACK]), "requests"),
        ("counted_too_many", max(0, counts.total() - counts[FALLBACK] - got.sent), "requests"),
        ("answered_by_stable_instead", counts[FALLBACK], "requests"),
        ("counted_lost", counts["lost"], "requests"),
        ("failed_with_killed_workers", killed, "requests"),
        ("connections_of_killed_workers", sum(len(kill.ports) for kill in done.kills), "connections"),
    ]
    named = [(f"reload.{name}", value, unit) for name, value, unit in values]
    return [
        Row(what, float(value), 0.0, unit, BARS.get(what), "higher" if unit in ("1/s", "") else "lower")
        for what, value, unit in named
    ]


def blamed(place: Place, got: Got) -> list[str]:
    """For each failure that is not excused: what it was, and what had been done last before it."""
    told = []
    for one in itertools.islice((one for one in got.broken if not is_excused(one, place.done.kills)), 20):
        before = [(at_s, kind) for at_s, kind in place.done.times if at_s <= one.at_s]
        last = f"{one.at_s - before[-1][0]:.3f} s after {before[-1][1]}" if before else "before anything"
        told.append(f"number {one.number}, port {one.port}, {last}: {one.why}")
    return told


def table_of(rows: Sequence[Row]) -> Table:
    table = Table("", "value", "bar", "", title="reload", box=box.SIMPLE)
    for row in rows:
        verdict = "" if row.bar is None else "[green]holds[/]" if row.holds else "[bold red]MISSED[/]"
        bar = "" if row.bar is None else f"<= {row.bar:g}"
        table.add_row(row.what.removeprefix("reload."), f"{row.value:,.0f} {row.unit}", bar, verdict)
    return table


def write(rows: Sequence[Row], length: Length) -> None:
    under = Circumstances(datetime.now(UTC).isoformat(timespec="seconds"), this_machine(), 1, {}, {})
    OUT.parent.mkdir(parents=True, exist_ok=True)
    content = document("reload", under, rows, BARS) | {"asked": asdict(length)}
    OUT.write_text(json.dumps(content, indent=1) + "\n")


if __name__ == "__main__":
    typer.run(bench)
