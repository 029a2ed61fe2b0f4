"""What a work is: some loads on some subjects, measured in turns. And the measure that most turns take."""

import json
import subprocess
import sys
from collections.abc import Callable, Collection, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import asdict, dataclass
from functools import partial
from typing import Any, Protocol

from loadtests.bench.client import Ask, Got
from loadtests.bench.processes import cpu_us
from loadtests.bench.rows import Comparison, Figures
from loadtests.bench.stage import Stage, Target
from loadtests.errors import BenchError


@dataclass(frozen=True, slots=True)
class Turn:
    """One subject under one load, to be measured once a round."""

    load: str
    subject: str
    measure: Callable[[], Figures]


class Work(Protocol):
    """A part of the matrix that is set up, measured in turns and taken down."""

    @property
    def name(self) -> str: ...

    @property
    def loads(self) -> Collection[str]:
        """What its rows begin with."""

    def open(self, stage: Stage) -> AbstractContextManager[Sequence[Turn]]:
        """Start what is measured. Raises BenchError when something does not start."""

    def comparisons(self, subjects: Mapping[str, Sequence[str]]) -> list[Comparison]:
        """What is set side by side, of these subjects of each load."""


def turn(load: str, target: Target, ask: Ask, upstreams: Sequence[int], subject: str = "") -> Turn:
    """This load on this target, called `subject` in the rows where that is not its name."""
    return Turn(load, subject or target.name, partial(measure, target, ask, upstreams))


def measure(target: Target, ask: Ask, upstreams: Sequence[int]) -> dict[str, float]:
    """Requests/s, latencies and CPU times for a request. `upstreams` are the processes behind.

    The client's whole time is charged to all of its requests, so its start and the warm-up count alike for everyone.
    """
    before = cpu_us(target.pid) if target.pid else 0.0
    behind = sum(map(cpu_us, upstreams))
    got = send(ask, target.name)
    figures = {
        "requests_per_s": got.timed / got.seconds, "p50_us": got.p50_us, "p99_us": got.p99_us, "answered": got.answered,
        "client_cpu_us": got.cpu_us, "upstream_cpu_us": (sum(map(cpu_us, upstreams)) - behind) / got.answered,
    }  # fmt: skip
    if target.pid:
        figures["cpu_us"] = (cpu_us(target.pid) - before) / got.answered
    return figures


def send(ask: Ask, name: str) -> Got:
    """Run the client to its end. Raises BenchError when it failed."""
    return Got(**run_client("loadtests.bench.client", asdict(ask), name))


def run_client(module: str, settings: Mapping[str, object], name: str) -> dict[str, Any]:
    """Run a program that takes its settings as JSON and prints what it measured as JSON."""
    command = [sys.executable, "-m", module, json.dumps(settings)]
    ended = subprocess.run(command, capture_output=True, text=True, check=False)
    if ended.returncode:
        raise BenchError(f"the load on {name} failed: {(ended.stderr.strip().splitlines() or ['it said nothing'])[-1]}")
    figures: dict[str, Any] = json.loads(ended.stdout)
    return figures
