"""More than a worker may hold: does its memory stay within the ledger, and does all end well?

A gateway of its own for each turn, since memory that was freed is used again. Memory is the largest process's peak less
what it had when it was idle.
"""

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from functools import partial

import httpx

from gateway.routes import RouteTable
from loadtests.bench import flood
from loadtests.bench.client import Ask
from loadtests.bench.processes import memory_kb, peak_mb, reset_peak, running
from loadtests.bench.rows import Comparison
from loadtests.bench.slow_clients import DEAF_READERS
from loadtests.bench.slow_works import CONNECTIONS, LARGE, Extent, own_clients
from loadtests.bench.stage import Stage, Target, Upstream
from loadtests.bench.work import Turn, run_client, send
from loadtests.errors import BenchError
from loadtests.peers.ours import MODEL, start_with, table
from loadtests.peers.upstream import AT_ONCE, MEGABYTE
from loadtests.ports import free_addresses

LEDGER_BYTES, BODY_BYTES = 256_000_000, 64 * 2**20
NAMES = ("large_bodies", "gzip_bodies", "unread_answers")
MOST_S, AFTER_S = 120.0, 1.0
TOLD_WITHIN_S = 5.0
GZIP = "content-encoding: gzip\r\n"
"""Whatever they hold, they pass as they are: no byte of them is unpacked."""

Attack = Callable[[str], Mapping[str, float]]


@dataclass(frozen=True, slots=True)
class Ledger:
    """So many large bodies at once, plain and as gzip; and so many answers of 1 MB that nobody reads."""

    count: int
    body_bytes: int = BODY_BYTES
    name: str = "ledger"
    loads: tuple[str, ...] = NAMES

    @contextmanager
    def open(self, stage: Stage) -> Iterator[list[Turn]]:
        upstream = stage.upstream(AT_ONCE, MEGABYTE)
        unread = Extent(self.count, self.count / 5, {"write_timeout_s": 10.0})
        attacks: Sequence[Attack] = (
            partial(_bodies, self.count, self.body_bytes, ""),
            partial(_bodies, self.count, self.body_bytes, GZIP),
            partial(own_clients, DEAF_READERS, unread),
        )
        yield [
            Turn(name, "sluice", partial(_measured, stage, upstream, name, attack))
            for name, attack in zip(NAMES, attacks, strict=True)
        ]

    def comparisons(self, subjects: Mapping[str, Sequence[str]]) -> list[Comparison]:
        return []


def _measured(stage: Stage, upstream: Upstream, name: str, attack: Attack) -> dict[str, float]:
    """One gateway from its start to its end. Raises BenchError when it does not serve afterwards."""
    task = stage.task(name, *upstream.addresses, weight=0.0)
    routes = {**table(task, [MODEL]).routes, **table(task, LARGE, stable=2).routes}
    metrics, log = free_addresses(0)[0], task.folder / "log"
    settings = {"held_bytes": LEDGER_BYTES, "write_timeout_s": 10.0}
    command = start_with(RouteTable(1, routes), task, settings=settings)
    command[command.index("--metrics-listen") + 1] = metrics
    with running(name, command, log) as pid:
        target = Target(name, task.listen, pid, log)
        stage.wait_for([target])
        reset_peak(pid)
        idle_mb = max(memory_kb(pid, "VmRSS")) * 1024 / 1e6
        became = attack(target.address)
        peak = peak_mb(pid)
        got = send(Ask(target.address, "small_json", CONNECTIONS, 0.2, AFTER_S), name)
        return {
            **became, "peak_mb": peak, "ledger_ratio": (peak - idle_mb) * 1e6 / LEDGER_BYTES,
            "answered": got.answered, "left_bytes": _left_bytes(metrics),
        }  # fmt: skip


def _bodies(count: int, body_bytes: int, fields: str, address: str) -> dict[str, float]:
    ask = flood.Ask(address, MODEL, count, body_bytes, fields, MOST_S)
    got = flood.Got(**run_client(flood.__name__, asdict(ask), "the gateway"))
    if got.answered + got.refused + got.cut + got.others + got.unended != count:
        raise BenchError(f"not every body had one end: {got}")
    return {"refused": got.refused, "badly_ended": got.others + got.unended}


def _left_bytes(metrics: str) -> float:
    """What the ledger says is held, when nothing is."""
    ends_s, left = time.monotonic() + TOLD_WITHIN_S, -1.0
    while left and time.monotonic() < ends_s:
        text = httpx.get(f"http://{metrics}/metrics", timeout=5.0, trust_env=False).text
        left = next(float(line.split()[1]) for line in text.splitlines() if line.startswith("sluice_held_bytes "))
        time.sleep(0.2)
    return left
