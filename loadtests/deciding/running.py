"""Lets many rollouts of a cell pass, on all cores, and sums up what each method did."""

import os
import signal
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, replace
from functools import partial

import numpy as np

from loadtests.deciding.cells import CELLS, Cell
from loadtests.deciding.others import METHODS, Ramp
from loadtests.deciding.ours import OURS, Engine
from loadtests.deciding.outage import Outage, outage
from loadtests.deciding.pairs import PAIR_CELLS
from loadtests.deciding.traffic import SLOW_BUCKET, WINDOW_S, Release, Seen, Usual, World
from rollout.decision.state import Status

CHUNK = 25
"""Rollouts that a process takes at once."""
ROLLED_BACK, PROMOTED = Status.ROLLED_BACK.value, Status.PROMOTED.value


@dataclass(frozen=True, slots=True)
class Ended:
    """One rollout by one method: its end, and until then seconds, the candidate's requests (or labels), bad ones more.

    Bad ones are failures, and requests slower than 1.19 times the usual p99, beyond the share that stable has of both
    at that moment: what slows both is nobody's. `end` is empty when nothing was decided.
    """

    end: str
    seconds: float
    requests: int
    bad: float


@dataclass(slots=True)
class _Course:
    """What a rollout has come to."""

    requests: int = 0
    bad: float = 0.0

    def add(self, seen: Seen, usual: Usual) -> None:
        candidate = seen.candidate
        self.requests += candidate.requests
        self.bad += candidate.slower_than(SLOW_BUCKET) - (usual.failing + usual.slow) * candidate.requests

    def ended(self, end: str, number: int) -> Ended:
        return Ended(end, WINDOW_S * (number + 1), self.requests, self.bad)


def rollouts(name: str, seeds: Sequence[int]) -> dict[str, list[Ended]]:
    """These runs of a cell, by method."""
    found: dict[str, list[Ended]] = defaultdict(list)
    for seed in seeds:
        if name in PAIR_CELLS:
            found[OURS].append(_by_pairs(name, seed))
            continue
        for method, ended in _by_traffic(CELLS[name], seed):
            found[method].append(ended)
    return dict(found)


def world(cell: Cell, seed: int) -> World:
    dice = np.random.default_rng([seed, cell.windows])
    return World(seed, cell.rate_per_s, Release(), cell.candidate, cell.happen(dice, cell.windows))


def _by_traffic(cell: Cell, seed: int) -> Iterator[tuple[str, Ended]]:
    here = world(cell, seed)
    seen = [here.window(number, cell.ramp_weight(number)) for number in range(cell.windows)] if cell.others else []
    yield OURS, _by_engine(cell, here, seen)
    if cell.others:
        yield from _by_rules(cell, here, seen)


def _by_engine(cell: Cell, here: World, ramp: Sequence[Seen]) -> Ended:
    engine, course = Engine.begin(cell.plan), _Course()
    for number in range(cell.windows):
        weight = engine.weight
        is_on_ramp = bool(ramp) and ramp[number].weight == weight
        seen = ramp[number] if is_on_ramp else here.window(number, weight)
        course.add(seen, here.usual(number))
        if (end := engine.see(seen)) is not None:
            return course.ended(end, number)
    return course.ended("", cell.windows - 1)


def _by_rules(cell: Cell, here: World, seen: Sequence[Seen]) -> Iterator[tuple[str, Ended]]:
    course, courses = _Course(), []
    for one in seen:
        course.add(one, here.usual(one.number))
        courses.append(replace(course))
    ramp, long_run = Ramp.of(seen), here.long_run()
    for name, method in METHODS.items():
        number = method(ramp, long_run, cell.plan.alpha)
        last = cell.windows - 1 if number is None else number
        yield name, courses[last].ended(PROMOTED if number is None else ROLLED_BACK, last)


def _by_pairs(name: str, seed: int) -> Ended:
    """Its requests are the pairs, or the candidate's labels, that the decision took."""
    cell, dice = PAIR_CELLS[name], np.random.default_rng(seed)
    engine, used = Engine.begin(cell.plan), 0
    for number in range(cell.windows):
        fact = cell.observe(dice, engine.weight)
        used += fact.quality.total + fact.agreement.total + fact.differences.total
        used += sum(one.candidate.requests for one in fact.labelled)
        if (end := engine.tell(fact, WINDOW_S * (number + 1))) is not None:
            return Ended(end, WINDOW_S * (number + 1), used, 0.0)
    return Ended("", WINDOW_S * cell.windows, used, 0.0)


def outages(seeds: Sequence[int]) -> list[Outage]:
    return [outage(seed) for seed in seeds]


def on_all_cores(
    names: Mapping[str, int], advance: Callable[[str, int], None], first_seed: int = 0
) -> Iterator[tuple[str, dict[str, list[Ended]]]]:
    """So many runs of each cell, a cell as it is done. `advance` is told of each part."""
    with ProcessPoolExecutor(os.cpu_count(), initializer=_leave_ctrl_c_to_the_parent) as pool:
        for name, count in names.items():
            found: dict[str, list[Ended]] = defaultdict(list)
            for part in pool.map(partial(rollouts, name), _chunks(count, first_seed)):
                for method, ended in part.items():
                    found[method] += ended
                advance(name, len(part[OURS]))
            yield name, dict(found)


def _leave_ctrl_c_to_the_parent() -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)


def _chunks(count: int, first_seed: int) -> Iterable[Sequence[int]]:
    return [range(first_seed + at, first_seed + min(at + CHUNK, count)) for at in range(0, count, CHUNK)]
