"""Where the demo runs: a folder of its own, held while it runs, and free addresses.

Nothing is deleted but what an earlier demo left in the same folder.
"""

import contextlib
import fcntl
import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TextIO

from loadtests.demo.traces import processes_of
from loadtests.errors import DemoError
from loadtests.ports import held_addresses

MARKER = ".sluice-demo"
"""Says that a folder is a demo's; locked while one runs."""


@dataclass(frozen=True, slots=True)
class Place:
    """The demo's folder and its addresses, as HOST:PORT.

    The addresses are held, for another demo may choose its own meanwhile, until `let_go` is called: right before
    something is to listen there.
    """

    home: Path
    clients: str
    metrics: str
    control: str
    let_go: Callable[[], None]

    @property
    def control_url(self) -> str:
        return f"http://{self.control}"

    @property
    def clients_url(self) -> str:
        return f"http://{self.clients}"

    @property
    def models(self) -> Path:
        return self.home / "models"


@contextlib.contextmanager
def taken(folder: Path) -> Iterator[Place]:
    """An empty folder, held until the block ends, with the usual ports where they are free.

    Raises:
        DemoError: the folder is something else's, or a demo runs in it; nothing was changed.
    """
    home = folder.resolve()
    with contextlib.ExitStack() as held:
        try:
            _check_ours(home)
            home.mkdir(parents=True, exist_ok=True)
            _lock(held.enter_context((home / MARKER).open("a")), home)
            _check_idle(home)
            _empty(home)
        except OSError as exc:
            raise DemoError(f"{home} cannot be used ({exc.strerror}): choose another folder with --home") from exc
        addresses = held.enter_context(contextlib.ExitStack())
        clients, metrics, control = held_addresses(addresses, 8000, 8002, 8080)
        yield Place(home, clients, metrics, control, addresses.close)


def _check_ours(home: Path) -> None:
    if home.exists() and any(home.iterdir()) and not (home / MARKER).exists():
        raise DemoError(f"{home} is not empty and not an earlier demo's: choose another folder with --home")


def _lock(marker: TextIO, home: Path) -> None:
    try:
        fcntl.flock(marker, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as exc:
        raise DemoError(f"a demo runs in {home}: stop it, or choose another folder with --home") from exc


def _check_idle(home: Path) -> None:
    """A demo that was killed may have left its processes behind: their files are not taken from under them."""
    left = processes_of(home)
    if left:
        pids = " ".join(str(pid) for pid in left)
        raise DemoError(
            f"an earlier demo was killed and its processes still run in {home}: end them with `kill {pids}`"
        )


def _empty(home: Path) -> None:
    for entry in home.iterdir():
        if entry.is_dir() and not entry.is_symlink():
            shutil.rmtree(entry)
        elif entry.name != MARKER:
            entry.unlink()
