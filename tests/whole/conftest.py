"""Real releases in a folder of their own, and `sluice` as a user runs it."""

import os
import shutil
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from rollout.pools.process import TritonHost
from tests.exporter.tiny import tiny_release, tiny_run

Sluice = Callable[..., subprocess.CompletedProcess[str]]


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return int(listener.getsockname()[1])


@pytest.fixture(scope="session")
def two_releases(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A repository with digits/1 and digits/2, trained and exported for real."""
    folder = tmp_path_factory.mktemp("whole")
    for seed in (0, 1):
        tiny_release(tiny_run(folder / "runs" / f"tiny-{seed}", seed), folder / "models")
    return folder


@pytest.fixture
def place(two_releases: Path, tmp_path: Path) -> Path:
    """A copy of the releases, to be changed at will."""
    shutil.copytree(two_releases, tmp_path / "place")
    return tmp_path / "place"


@pytest.fixture
def sluice(place: Path) -> Sluice:
    """Runs one command in the place, to its end."""

    def run(*arguments: str, timeout_s: float = 60.0, **more: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-m", "sluice", *arguments]
        return subprocess.run(
            command,
            cwd=place,
            env={**os.environ, **more},
            capture_output=True,
            text=True,
            timeout=timeout_s,
            check=False,
        )

    return run


@dataclass(frozen=True, slots=True)
class Up:
    """A running `sluice up`, its addresses and its home."""

    process: subprocess.Popen[str]
    clients: str
    control: str
    home: Path

    @property
    def url(self) -> str:
        return f"http://{self.control}"


@pytest.fixture
def up(place: Path) -> Iterator[Up]:
    """`sluice up` on free ports. Afterwards it is told to stop, and must leave nothing running."""
    clients, metrics, control = (f"127.0.0.1:{free_port()}" for _ in range(3))
    home = place / "home"
    command = [
        sys.executable, "-m", "sluice", "up", "--home", str(home), "--repository", "models", "--workers", "1",
        "--listen", clients, "--metrics-listen", metrics, "--control-listen", control,
    ]  # fmt: skip
    with subprocess.Popen(command, cwd=place, stderr=subprocess.PIPE, text=True) as process:
        assert process.stderr is not None
        while "sluice is up" not in (line := process.stderr.readline()):
            assert line, "it ended before it was up"
        yield Up(process, clients, control, home)
        process.terminate()
        assert process.wait(60) == 0
    assert TritonHost(home).found() == []
    assert running_with(home) == []


def running_with(home: Path) -> list[str]:
    """The command lines that name a folder."""
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                command = (entry / "cmdline").read_bytes().replace(b"\0", b" ").decode()
            except OSError:
                continue
            if str(home) in command:
                found.append(command)
    return found
