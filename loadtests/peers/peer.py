"""What a peer is: a program that does the task, one way to start it, and its version where it is installed."""

import shutil
import subprocess
from collections.abc import Callable
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

WEIGHT = 0.1
"""The candidate's share where a task says nothing else."""


@dataclass(frozen=True, slots=True)
class Task:
    """What a peer is to do: listen there, split between these two, and keep its files in `folder`.

    `weight` in [0, 1] is the candidate's share of the sticky keys. `mirror` is a third server, which gets a copy of
    every request that stable answers; None: no copies.
    """

    listen: str
    stable: str
    candidate: str
    folder: Path
    weight: float = WEIGHT
    mirror: str | None = None

    @property
    def percent(self) -> int:
        return round(100 * self.weight)


@dataclass(frozen=True, slots=True)
class Peer:
    """`command` writes what configuration it needs and says how to start the peer in the foreground."""

    name: str
    version: Callable[[], str | None]
    """None where it is not installed."""
    install: str
    """What installs it."""
    command: Callable[[Task], list[str]]
    mirrors: bool = False
    """Can it do a task with a mirror?"""


def program_version(*command: str) -> Callable[[], str | None]:
    """What a program says of its version, in its first line."""

    def ask() -> str | None:
        if shutil.which(command[0]) is None:
            return None
        said = subprocess.run(command, capture_output=True, text=True, check=False)
        return (said.stdout + said.stderr).partition("\n")[0].strip()

    return ask


def package_versions(*packages: str) -> Callable[[], str | None]:
    """The versions of these distributions; None when one of them is missing."""

    def ask() -> str | None:
        try:
            return ", ".join(f"{package} {version(package)}" for package in packages)
        except PackageNotFoundError:
            return None

    return ask
