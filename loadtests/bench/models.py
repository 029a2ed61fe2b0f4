"""Many models in the route table: what they cost a request.

With requests to one of them, which has the bar: what a large table costs who asks for one model; and to all of them in
turn, the worst case for every cache and for the counters. Each as a ratio to a gateway that has one model. Each has a
gateway of its own: counters of all models, read a second later, would be charged to who comes next. Ours alone: the
peers' configurations are not made to name models.
"""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

from loadtests.bench.asking import model_names
from loadtests.bench.client import Ask
from loadtests.bench.rows import Comparison
from loadtests.bench.stage import Stage, Target, Upstream
from loadtests.bench.work import Turn, send, turn
from loadtests.peers.ours import start_with, table

MODELS = 10_000
CONNECTIONS = 16
WARM_S = 1.0
ONE, ASKED_ALL, ASKED_ONE = "one", "asked_all", "asked_one"


@dataclass(frozen=True, slots=True)
class Models:
    """A gateway with one model beside one with many."""

    name: str = "models"
    loads: tuple[str, ...] = ("models",)

    @contextmanager
    def open(self, stage: Stage) -> Iterator[list[Turn]]:
        upstream, length = stage.upstream("at_once", "at_once"), stage.length
        asked = {ONE: 1, ASKED_ALL: MODELS, ASKED_ONE: 1}
        targets = [_gateway(stage, upstream, name, 1 if name == ONE else MODELS) for name in asked]
        stage.wait_for(targets, models=1)

        def ask(target: Target, seconds: float) -> Ask:
            models = asked[target.name]
            return Ask(target.address, "small_json", CONNECTIONS, length.warm_s, seconds, models=models)

        for target in targets:
            send(ask(target, WARM_S), target.name)  # Every model once, unmeasured.
        yield [turn(self.name, target, ask(target, length.seconds), [upstream.pid]) for target in targets]

    def comparisons(self, subjects: Mapping[str, Sequence[str]]) -> list[Comparison]:
        return [
            Comparison(self.name, f"cpu_ratio_to_one.{name}", "cpu_us", name, ONE) for name in (ASKED_ALL, ASKED_ONE)
        ]


def _gateway(stage: Stage, upstream: Upstream, name: str, models: int) -> Target:
    task = stage.task(name, *upstream.addresses)
    command = start_with(table(task, model_names(models)), task)
    return stage.start(name, command, task.listen, task.folder / "log")
