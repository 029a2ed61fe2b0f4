"""Copies of all requests to a second upstream: what they cost, and whether the client feels them.

At saturation, a closed loop: CPU time for a request with copies, as a ratio to without, for every peer that can mirror.
At half of saturation, requests at planned times: the client's p99 with copies to a target that answers at once, that
takes 50 ms, and that accepts connections and never reads, each as a ratio to without. Saturation is that of our gateway
with copies, measured at the start; all at half of it get the same rate, over as many connections as it takes.

The candidate's weight is 0, since our gateway copies only what stable answers; the keys are hashed all the same.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import httpx

from loadtests.bench.client import Ask
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
WITHOUT = "without"

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
        ]

    def comparisons(self, subjects: Mapping[str, Sequence[str]]) -> list[Comparison]:
        """Rows end in the peer's name, and for ours at half of saturation in the manner of the target."""
        cost = [
            Comparison(SATURATED, f"cpu_ratio_to_{WITHOUT}.{peer}", "cpu_us", _copying(peer), peer)
            for peer in subjects.get(SATURATED, ())
            if _copying(peer) in subjects[SATURATED]
        ]
        felt = [Comparison(HALF, f"p99_ratio_to_{WITHOUT}.{manner}", "p99_us", manner, WITHOUT) for manner in MANNERS]
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


def _asked(address: str) -> int:
    """How many requests came to this address of the dummy upstream."""
    return int(httpx.get(f"http://{address}/", trust_env=False).text)
