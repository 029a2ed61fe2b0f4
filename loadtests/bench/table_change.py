"""A new route table of many models under load: how long until all workers use it, and the longest latency meanwhile.

The load asks for all models in turn at planned times, over enough connections for every worker to have some.
"""

import itertools
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass

from loadtests.bench.asking import model_names
from loadtests.bench.change import Change
from loadtests.bench.models import MODELS
from loadtests.bench.rows import Comparison
from loadtests.bench.stage import Stage
from loadtests.bench.work import Turn, run_client
from loadtests.peers.ours import ROUTES, SLUICE, start_with, table, write_routes

RATE_PER_S = 1000.0
CONNECTIONS = 32
WORKERS = 2
AFTER_S = 3.0


@dataclass(frozen=True, slots=True)
class TableChange:
    """A gateway with two workers. Each round it gets a table in which every model has the other release."""

    name: str = "table_change"
    loads: tuple[str, ...] = ("table_change",)

    @contextmanager
    def open(self, stage: Stage) -> Iterator[list[Turn]]:
        changing = _Changing(stage)
        yield [Turn(self.name, SLUICE.name, changing.measure)]

    def comparisons(self, subjects: Mapping[str, Sequence[str]]) -> list[Comparison]:
        return []


class _Changing:
    """A gateway with two workers and all models. Each new table makes the other release stable; weights are 0."""

    def __init__(self, stage: Stage) -> None:
        self._task = stage.task("changing", *stage.upstream("at_once", "at_once").addresses, weight=0.0)
        self._versions = itertools.count(2)
        self._length = stage.length
        first = table(self._task, model_names(MODELS))
        command = start_with(first, self._task, WORKERS)
        target = stage.start("changing", command, self._task.listen, self._task.folder / "log")
        stage.wait_for([target], models=MODELS)

    def measure(self) -> dict[str, float]:
        version, watched = next(self._versions), self._task.folder / ROUTES
        release = 2 - version % 2
        staged = watched.with_suffix(".next")
        write_routes(table(self._task, model_names(MODELS), version, release), staged)
        length = self._length
        change = Change(
            self._task.listen, CONNECTIONS, RATE_PER_S, MODELS, str(staged), str(watched), release,
            warm_s=length.warm_s, quiet_s=length.seconds / 2, after_s=max(AFTER_S, length.seconds),
        )  # fmt: skip
        return run_client("loadtests.bench.change", asdict(change), "the gateway whose table changes")
