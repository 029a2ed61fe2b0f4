"""Slow clients beside usual ones: does anyone feel them, are they all cut in time, and what do they cost in memory.

Each work has one gateway with one worker. A turn sends small requests at planned times, the same without and with the
slow clients; the latencies of both are of the same minute. When a slow client was cut is judged at his own end.
"""

import json
import math
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path

from gateway.config import GatewayConfig
from gateway.http1 import RATE_AFTER_S
from gateway.routes import RouteTable
from loadtests.bench import client, slow_clients
from loadtests.bench.processes import peak_mb, reset_peak
from loadtests.bench.rows import Comparison
from loadtests.bench.slow_clients import DEAF_READERS, HEADS, READERS, SILENT_BODIES, TRICKLED_BODIES
from loadtests.bench.stage import Stage, Target
from loadtests.bench.work import Turn
from loadtests.errors import BenchError
from loadtests.peers import upstream as manners
from loadtests.peers.ours import MODEL, start_with, table

WITHOUT, WITH = "without", "with"
CONNECTIONS, RATE_PER_S = 16, 500.0
LARGE = tuple(f"large-{number}" for number in range(8))
"""Models whose answers have 400 KB, more than all buffers on their way. Several models, since a release sends no more
than `release_in_flight` at once; and not larger ones, since the kernel has only so much memory for TCP, for all ends of
all connections on this machine (tcp_mem): beyond it, it cuts connections itself."""
SPARE_S = 4.0
"""How much longer than they should last the slow clients are watched."""
QUIET_S = 10.0

Attack = Callable[[str], Mapping[str, float]]
"""Slow clients against an address until all are cut; what became of them."""


@dataclass(frozen=True, slots=True)
class Extent:
    """How many slow clients, and how many of them a second come. `settings` are the gateway's; none: its defaults."""

    count: int
    per_s: float
    settings: Mapping[str, float]

    def due_s(self, manner: str) -> float:
        """How long after his first byte a slow client is cut."""
        config = GatewayConfig(**dict(self.settings))  # type: ignore[arg-type]
        return {
            HEADS: config.head_timeout_s,
            SILENT_BODIES: config.body_read_timeout_s,
            TRICKLED_BODIES: RATE_AFTER_S,
        }.get(manner, config.write_timeout_s)

    def lasts_s(self, manner: str) -> float:
        return self.count / self.per_s + self.due_s(manner) + SPARE_S


@dataclass(frozen=True, slots=True)
class Slow:
    """Our own slow clients of one manner, or those of `slowhttptest` where it is installed."""

    manner: str
    extent: Extent
    by_slowhttptest: bool = False

    @property
    def name(self) -> str:
        return f"slowhttptest_{self.manner}" if self.by_slowhttptest else f"slow_{self.manner}"

    @property
    def loads(self) -> tuple[str, ...]:
        return (self.name,)

    @contextmanager
    def open(self, stage: Stage) -> Iterator[list[Turn]]:
        target = _gateway(stage, self.name, self.extent.settings)
        attack = partial(slowhttptest if self.by_slowhttptest else own_clients, self.manner, self.extent)
        lasts_s = self.extent.lasts_s(self.manner)
        yield [
            Turn(self.name, WITHOUT, partial(_beside, target, None, min(lasts_s, QUIET_S))),
            Turn(self.name, WITH, partial(_beside, target, attack, lasts_s)),
        ]

    def comparisons(self, subjects: Mapping[str, Sequence[str]]) -> list[Comparison]:
        return [Comparison(self.name, f"p99_ratio_to_{WITHOUT}", "p99_us", WITH, WITHOUT)]


def _gateway(stage: Stage, name: str, settings: Mapping[str, float]) -> Target:
    usual, large = stage.upstream(manners.AT_ONCE), stage.upstream(manners.LARGE, name="large")
    task = stage.task(name, usual.addresses[0], large.addresses[0], weight=0.0)
    routes = {**table(task, [MODEL]).routes, **table(task, LARGE, stable=2).routes}
    target = stage.start(
        name, start_with(RouteTable(1, routes), task, settings=settings), task.listen, task.folder / "log"
    )
    stage.wait_for([target])
    return target


def _beside(target: Target, attack: Attack | None, seconds: float) -> dict[str, float]:
    """The usual requests' latencies, with the slow clients where there are any."""
    assert target.pid is not None
    reset_peak(target.pid)
    ask = client.Ask(target.address, "small_json", CONNECTIONS, 0.5, seconds, RATE_PER_S)
    command = [sys.executable, "-m", client.__name__, json.dumps(asdict(ask))]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as load:
        try:
            became = attack(target.address) if attack is not None else {}
            out, err = load.communicate()
        finally:
            load.kill()
    if load.returncode:
        raise BenchError(f"the usual requests failed: {(err.strip().splitlines() or ['nothing was said'])[-1]}")
    got = client.Got(**json.loads(out))
    return {
        "p50_us": got.p50_us,
        "p99_us": got.p99_us,
        "answered": got.answered,
        "peak_mb": peak_mb(target.pid),
        **became,
    }


def own_clients(manner: str, extent: Extent, address: str) -> dict[str, float]:
    """Raises BenchError when not all could connect."""
    models = list(LARGE if manner in (READERS, DEAF_READERS) else (MODEL,))
    most_s = extent.lasts_s(manner)
    ask = slow_clients.Ask(address, manner, extent.count, extent.per_s, 1.0, most_s, models)
    command = [sys.executable, "-m", slow_clients.__name__, json.dumps(asdict(ask))]
    ended = subprocess.run(command, capture_output=True, text=True, check=False)
    if ended.returncode:
        raise BenchError(f"the slow clients failed: {(ended.stderr.strip().splitlines() or ['nothing was said'])[-1]}")
    got = slow_clients.Got(**json.loads(ended.stdout))
    due_s = extent.due_s(manner)
    early_s, late_s = (due_s - got.cut_s[0], got.cut_s[-1] - due_s) if got.cut_s else (0.0, most_s)
    uncut = extent.count - len(got.cut_s)
    return {"cut_early_s": early_s, "cut_late_s": late_s, "uncut": uncut}


SLOWHTTPTEST = "slowhttptest"
LOOKS_EVERY_S = 3.0
"""Counting thousands of connections keeps a core busy for tens of milliseconds."""
READERS_MOST = 1_000
"""It asks for one path, and so one release, for more than `release_in_flight` of which others would hear 503."""
_OPTIONS = {
    HEADS: ("-H", "-i", "1", "-x", "8"),
    SILENT_BODIES: ("-B", "-i", "60", "-s", "65536"),
    READERS: ("-X", "-w", "256", "-y", "512", "-n", "1", "-z", "8"),
}


def slowhttptest(manner: str, extent: Extent, address: str) -> dict[str, float]:
    """How many of its connections the kernel has at the gateway when all of them should be cut.

    It does not see by itself that a connection was reset behind what it has not read. Raises BenchError when it ends at
    once.
    """
    path = f"/v2/models/{LARGE[0]}/stats" if manner == READERS else f"/v2/models/{MODEL}/infer"
    lasts_s = extent.lasts_s(manner)
    count = min(extent.count, READERS_MOST) if manner == READERS else extent.count
    command = [
        SLOWHTTPTEST, *_OPTIONS[manner], "-c", str(count), "-r", str(round(extent.per_s)), "-p", "5",
        "-l", str(math.ceil(lasts_s + SPARE_S)), "-t", "GET" if manner == READERS else "POST",
        "-u", f"http://{address}{path}",
    ]  # fmt: skip
    most, began_s = 0, time.monotonic()
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as tester:
        try:
            while (left := time.monotonic() - began_s) < lasts_s and tester.poll() is None:
                most = max(most, _connected(address))
                time.sleep(LOOKS_EVERY_S)
            uncut = _connected(address)
        finally:
            tester.kill()
    if most <= CONNECTIONS:
        raise BenchError(f"{SLOWHTTPTEST} made no connection within {left:.0f} s")
    return {"connected": most - CONNECTIONS, "uncut": max(0, uncut - CONNECTIONS)}


def _connected(address: str) -> int:
    """Connections at this address (proc(5), net/tcp: state 1 is established)."""
    end = f":{int(address.rpartition(':')[2]):04X}"
    lines = [line.split() for line in Path("/proc/net/tcp").read_text().splitlines()[1:]]
    return sum(line[1].endswith(end) and line[3] == "01" for line in lines)


def is_installed() -> bool:
    return shutil.which(SLOWHTTPTEST) is not None
