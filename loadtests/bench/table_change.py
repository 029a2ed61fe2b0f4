"""A new route table of many models under load: how long until all workers use it, and the longest latency meanwhile.

The load asks for what changes, all models in turn or the one, at planned times over enough connections for every worker
to have some.
"""

import itertools
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass

from gateway.routes import RouteTable
from loadtests.bench.asking import model_names
from loadtests.bench.change import Change
from loadtests.bench.models import MODELS
from loadtests.bench.rows import Comparison
from loadtests.bench.stage import Stage
from loadtests.bench.work import Turn, run_client
from loadtests.peers.ours import MODEL as ASKED
from loadtests.peers.ours import ROUTES, start_with, table, write_routes

RATE_PER_S = 1000.0
CONNECTIONS = 32
WORKERS = 2
AFTER_S = 3.0
MANY = model_names(MODELS)


@dataclass(frozen=True, slots=True)
class TableChange:
    """Gateways with two workers. Each round one gets a table in which one model has the other release, as a step of a
    rollout has it; the other one gets a table in which all have."""

    name: str = "table_change"
    loads: tuple[str, ...] = ("table_change",)

    @contextmanager
    def open(self, stage: Stage) -> Iterator[list[Turn]]:
        one, everything = _Changing(stage, "one_route", [ASKED], 0), _Changing(stage, "all_routes", MANY, MODELS)
        yield [Turn(self.name, changing.name, changing.measure) for changing in (one, everything)]

    def comparisons(self, subjects: Mapping[str, Sequence[str]]) -> list[Comparison]:
        return []


class _Changing:
    """A gateway with two workers and all models. Each new table makes the other release of `changed` stable."""

    def __init__(self, stage: Stage, name: str, changed: Sequence[str], asked: int) -> None:
        self.name = name
        self._changed, self._asked = changed, asked
        upstream = stage.upstream("at_once", "at_once")
        self._task = stage.task(name, *upstream.addresses, weight=0.0)
        self._versions = itertools.count(2)
        self._length = stage.length
        command = start_with(self._table(1, 1), self._task, WORKERS)
        target = stage.start(name, command, self._task.listen, self._task.folder / "log")
        stage.wait_for([target], models=asked)

    def _table(self, version: int, release: int) -> RouteTable:
        kept = table(self._task, [*MANY, ASKED]).routes
        return RouteTable(version, {**kept, **table(self._task, self._changed, version, release).routes})

    def measure(self) -> dict[str, float]:
        version, watched = next(self._versions), self._task.folder / ROUTES
        release = 2 - version % 2
        staged = watched.with_suffix(".next")
        write_routes(self._table(version, release), staged)
        length = self._length
        change = Change(
            self._task.listen, CONNECTIONS, RATE_PER_S, self._asked, str(staged), str(watched), release,
            warm_s=length.warm_s, quiet_s=length.seconds / 2, after_s=max(AFTER_S, length.seconds),
        )  # fmt: skip
        return run_client("loadtests.bench.change", asdict(change), f"the gateway whose table changes, {self.name}")
