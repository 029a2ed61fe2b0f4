"""In front of the real Triton: what is left of a proxy's cost when inference costs more, and what it adds to latency.

Two embedded Tritons, one for each of two releases of the demo's small model. They take most of the machine, so
requests/s tells how little a proxy takes from them.
"""

import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from exporter.release import release_folder, releases
from loadtests.bench.client import Ask
from loadtests.bench.releases import MODEL, repository
from loadtests.bench.rows import Comparison, beside
from loadtests.bench.stage import Stage, Target
from loadtests.bench.work import Turn, turn
from loadtests.errors import BenchError
from loadtests.peers.line_up import FASTAPI
from loadtests.peers.ours import SLUICE
from rollout.pools.errors import PoolError
from rollout.pools.process import TritonHost
from rollout.pools.records import PoolProcess

STOP_TIMEOUT_S = 10.0
CONNECTIONS = {"triton": 64, "triton_one": 1}


@dataclass(frozen=True, slots=True)
class Triton:
    """Every serious peer in front of the same two Tritons, over many connections and over one."""

    name: str = "triton"
    loads: tuple[str, ...] = tuple(CONNECTIONS)

    @contextmanager
    def open(self, stage: Stage) -> Iterator[list[Turn]]:
        pools = stage.enter(tritons(stage.folder("triton")))
        stable, candidate = (f"127.0.0.1:{pool.http_port}" for pool in pools)
        peers = [peer for peer in stage.peers if peer is not FASTAPI]
        targets = [stage.start_peer(peer, stage.task(peer.name, stable, candidate)) for peer in peers]
        stage.wait_for(targets)
        pids, length = [pool.pid for pool in pools], stage.length
        yield [
            turn(load, target, Ask(target.address, "small_json", connections, length.warm_s, length.seconds), pids)
            for load, connections in CONNECTIONS.items()
            for target in (Target("direct", stable, None, targets[0].log), *targets)
        ]

    def comparisons(self, subjects: Mapping[str, Sequence[str]]) -> list[Comparison]:
        many, one = CONNECTIONS
        added = [
            Comparison(one, f"added_p50_us.{subject}", "p50_us", subject, "direct", is_difference=True)
            for subject in subjects.get(one, ())
            if subject != "direct"
        ]
        beyond = Comparison(one, "added_p50_beyond_envoys_us", "p50_us", SLUICE.name, "envoy", is_difference=True)
        return [*beside(SLUICE.name, many, subjects.get(many, ())), *added, beyond]


@contextmanager
def tritons(folder: Path) -> Iterator[list[PoolProcess]]:
    """A Triton for each of two releases, ready and verified; gone at the end, with their shared memory."""
    _make_releases(folder)
    host = TritonHost(folder / "home")
    try:
        yield [
            host.start(release, release_folder(repository(folder), MODEL, release.number))
            for release in releases(repository(folder), MODEL)
        ]
    except PoolError as exc:
        raise BenchError(f"Triton did not start: {exc}") from exc
    finally:
        for pool in host.found():
            host.stop(pool, STOP_TIMEOUT_S)


def _make_releases(folder: Path) -> None:
    command = [sys.executable, "-m", "loadtests.bench.releases", str(folder)]
    made = subprocess.run(command, capture_output=True, text=True, check=False)
    if made.returncode:
        last = (made.stderr.strip().splitlines() or ["it said nothing"])[-1]
        raise BenchError(f"the model for Triton could not be made: {last}")
