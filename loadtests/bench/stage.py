"""Where a work runs: a folder, and the processes that were started there. All of them are stopped on the way out."""

import contextlib
import itertools
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from loadtests.bench.asking import BODIES, model_names
from loadtests.bench.processes import running, wait_until_it_answers
from loadtests.peers.peer import WEIGHT, Peer, Task
from loadtests.ports import free_addresses

_T = TypeVar("_T")


@dataclass(frozen=True, slots=True)
class Length:
    """How much is measured: rounds, and the seconds of each load on each subject in a round, warm-up apart."""

    rounds: int
    warm_s: float
    seconds: float


@dataclass(frozen=True, slots=True)
class Target:
    """What is loaded. `pid` is None for the upstream itself, asked without a proxy."""

    name: str
    address: str
    pid: int | None
    log: Path


@dataclass(frozen=True, slots=True)
class Upstream:
    """One process that answers at several addresses."""

    pid: int
    addresses: Sequence[str]


class Stage:
    """Starts programs in a folder. `peers` are those that are installed."""

    def __init__(self, folder: Path, stack: contextlib.ExitStack, peers: Sequence[Peer], length: Length) -> None:
        self._folder = folder
        self._stack = stack
        self.peers = peers
        self.length = length

    def folder(self, name: str) -> Path:
        """A new folder; one that is asked for again gets a number."""
        for number in itertools.count(1):
            made = self._folder / (name if number == 1 else f"{name}-{number}")
            with contextlib.suppress(FileExistsError):
                made.mkdir()
                break
        return made

    def enter(self, started: contextlib.AbstractContextManager[_T]) -> _T:
        """Something else that is started, and ends after everything that is started later."""
        return self._stack.enter_context(started)

    def upstream(self, *manners: str, name: str = "upstream") -> Upstream:
        """The dummy server, answering at one address for each manner (see `loadtests.peers.upstream`)."""
        folder = self.folder(name)
        addresses = free_addresses(*[0] * len(manners))
        told = [f"{manner}={address}" for manner, address in zip(manners, addresses, strict=True)]
        pid = self._stack.enter_context(
            running(f"the {name}", [sys.executable, "-m", "loadtests.peers.upstream", *told], folder / "log")
        )
        wait_until_it_answers(f"the {name}", f"http://{addresses[0]}/", b"", folder / "log")
        return Upstream(pid, addresses)

    def start(self, name: str, command: Sequence[str], listen: str, log: Path) -> Target:
        """A proxy, which need not answer yet."""
        return Target(name, listen, self._stack.enter_context(running(name, command, log)), log)

    def start_peer(self, peer: Peer, task: Task, name: str = "") -> Target:
        """This peer at this task, called `name` in the rows where that is not the peer's."""
        return self.start(name or peer.name, peer.command(task), task.listen, task.folder / "log")

    def task(
        self, name: str, stable: str, candidate: str, *, weight: float = WEIGHT, mirror: str | None = None
    ) -> Task:
        """A task with a free address and a folder of that name."""
        return Task(free_addresses(0)[0], stable, candidate, self.folder(name), weight, mirror)

    @staticmethod
    def wait_for(targets: Sequence[Target], models: int = 0) -> None:
        """Until each answers an inference. Raises BenchError when one does not."""
        for target in targets:
            url = f"http://{target.address}/v2/models/{model_names(models)[0]}/infer"
            wait_until_it_answers(target.name, url, BODIES["small_json"]().data, target.log)
