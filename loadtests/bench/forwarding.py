"""Forwarding to a dummy upstream that answers at once: what a proxy costs by itself.

All share the machine's cores with the load and the upstream, so requests/s is the whole chain's; CPU time for a request
is the proxy's own, its whole process tree's.
"""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

from loadtests.bench.client import Ask
from loadtests.bench.processes import peak_mb, reset_peak
from loadtests.bench.rows import Comparison, beside
from loadtests.bench.stage import Stage, Target
from loadtests.bench.work import Turn, measure, turn
from loadtests.peers.line_up import FASTAPI
from loadtests.peers.ours import SLUICE

CONNECTIONS = 16
MANY = 64


@dataclass(frozen=True, slots=True)
class Forwarding:
    """One body through every peer; with `weighs`, also the peers' memory while 64 connections send it."""

    name: str
    weighs: bool = False

    @property
    def loads(self) -> list[str]:
        return [self.name, f"{self.name}_{MANY}"] if self.weighs else [self.name]

    @contextmanager
    def open(self, stage: Stage) -> Iterator[list[Turn]]:
        upstream = stage.upstream("at_once", "at_once")
        stable, candidate = upstream.addresses
        targets = [stage.start_peer(peer, stage.task(peer.name, stable, candidate)) for peer in stage.peers]
        stage.wait_for(targets)
        direct = Target("direct", stable, None, targets[0].log)
        length = stage.length

        def ask(target: Target, connections: int) -> Ask:
            return Ask(target.address, self.name, connections, length.warm_s, length.seconds)

        turns = [turn(self.name, target, ask(target, CONNECTIONS), [upstream.pid]) for target in (direct, *targets)]
        if self.weighs:
            weighed = [target for target in targets if target.name != FASTAPI.name]
            turns += [_weigh(f"{self.name}_{MANY}", target, ask(target, MANY), [upstream.pid]) for target in weighed]
        yield turns

    def comparisons(self, subjects: Mapping[str, Sequence[str]]) -> list[Comparison]:
        return [one for load in self.loads for one in beside(SLUICE.name, load, subjects.get(load, ()))]


def _weigh(load: str, target: Target, ask: Ask, upstreams: Sequence[int]) -> Turn:
    """The usual figures, and the peak memory of the largest process (ours: the worker)."""

    def measured() -> dict[str, float]:
        assert target.pid is not None
        reset_peak(target.pid)
        return {**measure(target, ask, upstreams), "peak_mb": peak_mb(target.pid)}

    return Turn(load, target.name, measured)
