"""Ten thousand idle connections beside sixteen busy ones: the memory of each, and what the busy ones feel.

Each turn has a gateway of its own, since memory that was given back is used again. Memory is what the gateway's
processes have more resident with the connections than before, after a load has warmed it; the kernel's buffers are not
in it. The idle timeout is raised, so that a slow round does not end with no idle connections.
"""

import contextlib
import resource
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial

from loadtests.bench.client import Ask
from loadtests.bench.held import HELD
from loadtests.bench.processes import memory_kb, running
from loadtests.bench.rows import Comparison
from loadtests.bench.stage import Stage, Target, Upstream
from loadtests.bench.work import Turn, measure, send
from loadtests.errors import BenchError
from loadtests.peers.ours import MODEL, start_with, table

IDLE = 10_000
CONNECTIONS = 16
SPARE_FILES = 500
SETTINGS = {"idle_timeout_s": 600.0}
WITHOUT, WITH = "without", "with_idle"


@dataclass(frozen=True, slots=True)
class Idle:
    """The busy connections with and without the idle ones."""

    name: str = "idle"
    loads: tuple[str, ...] = ("idle",)

    @contextmanager
    def open(self, stage: Stage) -> Iterator[list[Turn]]:
        _raise_limit(IDLE + SPARE_FILES)
        upstream = stage.upstream("at_once", "at_once")
        yield [
            Turn(self.name, name, partial(_measured, stage, upstream, name, idle))
            for name, idle in ((WITHOUT, 0), (WITH, IDLE))
        ]

    def comparisons(self, subjects: Mapping[str, Sequence[str]]) -> list[Comparison]:
        ratios = (("cpu_ratio", "cpu_us"), ("p50_ratio", "p50_us"))
        return [Comparison(self.name, f"{ratio}_to_{WITHOUT}", figure, WITH, WITHOUT) for ratio, figure in ratios]


def _measured(stage: Stage, upstream: Upstream, name: str, idle: int) -> dict[str, float]:
    """One gateway from its start to its end."""
    task = stage.task(name, *upstream.addresses)
    length, log = stage.length, task.folder / "log"
    command = start_with(table(task, [MODEL]), task, settings=SETTINGS)
    with running(name, command, log) as pid:
        target = Target(name, task.listen, pid, log)
        stage.wait_for([target])
        ask = Ask(target.address, "small_json", CONNECTIONS, length.warm_s, length.seconds)
        send(ask, name)
        before_kb = sum(memory_kb(pid, "VmRSS"))
        with _held(target.address, idle):
            held_kb = sum(memory_kb(pid, "VmRSS"))
            figures = measure(target, ask, [upstream.pid])
    return {**figures, "idle_kb": (held_kb - before_kb) * 1.024 / idle} if idle else figures


@contextmanager
def _held(address: str, count: int) -> Iterator[None]:
    """That many idle connections until the block ends. Raises BenchError when one was lost meanwhile."""
    command = [sys.executable, "-m", "loadtests.bench.held", address, str(count)]
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as holder:
        assert holder.stdin is not None and holder.stdout is not None and holder.stderr is not None
        is_held = holder.stdout.readline() == HELD
        try:
            if is_held:
                yield
        finally:
            has_ended = holder.poll() is not None
            with contextlib.suppress(BrokenPipeError):
                holder.stdin.close()
            last = (holder.stderr.read().strip().splitlines() or ["it said nothing"])[-1]
        if has_ended or not is_held:
            raise BenchError(f"{count} idle connections could not be held: {last}")


def _raise_limit(files: int) -> None:
    """Let this process, and whatever it starts, open that many files. Raises BenchError where that is not allowed."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if hard != resource.RLIM_INFINITY and hard < files:
        raise BenchError(f"only {hard} files may be open, {files} are needed: raise the limit (ulimit -Hn)")
    if soft < files:
        resource.setrlimit(resource.RLIMIT_NOFILE, (files, hard))
