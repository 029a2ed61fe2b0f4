"""Copies of all requests to a second upstream: what they cost, and whether the client feels them.

At saturation, a closed loop: CPU time for a request with copies, as a ratio to without, for every peer that can mirror.
At half of saturation, requests at planned times: the client's p99 with copies to a target that answers at once, that
takes 50 ms, and that accepts connections and never reads, each as a ratio to without. Saturation is that of our gateway
with copies, measured at the start; all at half of it get the same rate, over as many connections as it takes.

The target shares the cores with everybody else here, as it would not elsewhere. What that alone costs is told too:
without copies, beside a target that somebody else asks as often (`beside_load`).

The candidate's weight is 0, since our gateway copies only what stable answers; the keys are hashed all the same.
"""

import json
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import httpx

from loadtests.bench.client import Ask
from loadtests.bench.processes import running
from loadtests.bench.rows import Comparison
from loadtests.bench.stage import Stage, Target
from loadtests.bench.work import Turn, measure, send, turn
from loadtests.peers.ours import SLUICE
from loadtests.peers.peer import Peer
from loadtests.peers.upstream import AT_ONCE, IN_50MS, UNREAD

CONNECTIONS = 16
HALF_CONNECTIONS = 64
SATURATED, HALF = "mirror", "mirror_half"
MANNERS = (AT_ONCE, IN_50MS, UNREAD)
WITHOUT, BESIDE_LOAD = "without", "beside_load"
LOAD_S = 60.0
"""More than any turn takes: the load beside is stopped with it."""
STARTS_S = 0.5

Measure = Callable[[], dict[str, float]]


@dataclass(frozen=True, slots=True)
class Mirroring:
    """With and without copies, in every peer that can; and ours with targets of every manner."""

    name: str = "mirror"
    loads: tuple[str, ...] = (SATURATED, HALF)

    @contextmanager
    def open(self, stage: Stage) -> Iterator[list[Turn]]:
        answering, copied = stage.upstream(AT_ONCE, AT_ONCE), stage.upstream(*MANNERS, name="mirror")
        stable, candidate = answering.addresses
        mirrors = dict(zip(MANNERS, copied.addresses, strict=True))
        pids, length = [answering.pid, copied.pid], stage.length

        def start(peer: Peer, name: str, mirror: str | None) -> Target:
            return stage.start_peer(peer, stage.task(name, stable, candidate, weight=0.0, mirror=mirror), name)

        peers = [peer for peer in stage.peers if peer.mirrors]
        plain = [start(peer, peer.name, None) for peer in peers]
        copying = [start(peer, _copying(peer.name), mirrors[AT_ONCE]) for peer in peers]
        ours = {manner: start(SLUICE, manner, mirrors[manner]) for manner in MANNERS}
        ours[WITHOUT] = start(SLUICE, WITHOUT, None)
        stage.wait_for([*plain, *copying, *ours.values()])

        def closed(target: Target) -> Ask:
            return Ask(target.address, "small_json", CONNECTIONS, length.warm_s, length.seconds)

        got = send(closed(ours[AT_ONCE]), "the gateway with copies")
        rate = got.timed / got.seconds / 2

        def half(target: Target) -> Ask:
            return Ask(target.address, "small_json", HALF_CONNECTIONS, length.warm_s, length.seconds, rate_per_s=rate)

        yield [
            *(turn(SATURATED, target, closed(target), pids) for target in plain),
            *(_counted(SATURATED, target, closed(target), pids, mirrors[AT_ONCE]) for target in copying),
            *(turn(HALF, target, half(target), pids) for target in ours.values()),
            _beside_load(ours[WITHOUT], half(ours[WITHOUT]), pids, mirrors[AT_ONCE], stage.folder(BESIDE_LOAD)),
        ]

    def comparisons(self, subjects: Mapping[str, Sequence[str]]) -> list[Comparison]:
        """Rows end in the peer's name, and for ours at half of saturation in the manner of the target."""
        cost = [
            Comparison(SATURATED, f"cpu_ratio_to_{WITHOUT}.{peer}", "cpu_us", _copying(peer), peer)
            for peer in subjects.get(SATURATED, ())
            if _copying(peer) in subjects[SATURATED]
        ]
        felt = [
            Comparison(HALF, f"p99_ratio_to_{WITHOUT}.{subject}", "p99_us", subject, WITHOUT)
            for subject in (*MANNERS, BESIDE_LOAD)
        ]
        felt.append(Comparison(HALF, f"p99_ratio_to_{BESIDE_LOAD}.{AT_ONCE}", "p99_us", AT_ONCE, BESIDE_LOAD))
        return [*cost, *felt]


def _copying(peer: str) -> str:
    return f"{peer}_copying"


def _counted(load: str, target: Target, ask: Ask, upstreams: Sequence[int], mirror: str) -> Turn:
    """The usual figures, and the share of requests whose copy came to the mirror."""

    def measured() -> dict[str, float]:
        before = _asked(mirror)
        figures = measure(target, ask, upstreams)
        return {**figures, "copied_share": (_asked(mirror) - before) / figures["answered"]}

    return Turn(load, target.name, measured)


def _beside_load(target: Target, ask: Ask, upstreams: Sequence[int], mirror: str, folder: Path) -> Turn:
    """This gateway copies nothing, while the mirror's target is asked as often as if it did."""
    beside = replace(ask, address=mirror, seconds=LOAD_S)
    command = [sys.executable, "-m", "loadtests.bench.client", json.dumps(asdict(beside))]

    def measured() -> dict[str, float]:
        with running("the load on the mirror", command, folder / "log"):
            time.sleep(ask.warm_s + STARTS_S)
            return measure(target, ask, upstreams)

    return Turn(HALF, BESIDE_LOAD, measured)


def _asked(address: str) -> int:
    """How many requests came to this address of the dummy upstream."""
    return int(httpx.get(f"http://{address}/", trust_env=False).text)
