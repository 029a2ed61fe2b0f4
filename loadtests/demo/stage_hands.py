"""What goes on behind the demo: the real command line, run as a user would run it, each with its log."""

import asyncio
import contextlib
import shutil
import signal
import socket
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from loadtests.errors import DemoError
from rollout.client import ClientError, ControlClient

STOP_TIMEOUT_S = 90.0
UP_TIMEOUT_S = 60.0
EXAMPLES = Path(__file__).parents[2] / "trainer" / "examples"
PLAN = Path(__file__).parents[2] / "rollout" / "examples" / "demo.toml"


@dataclass(frozen=True, slots=True)
class Place:
    """Where the demo runs: its folder and its addresses."""

    home: Path
    clients: str
    metrics: str
    control: str

    @property
    def control_url(self) -> str:
        return f"http://{self.control}"

    @property
    def clients_url(self) -> str:
        return f"http://{self.clients}"

    @property
    def models(self) -> Path:
        return self.home / "models"


def new_place(folder: Path) -> Place:
    """An empty folder and addresses that are free: the usual ports where they are, others where not.

    Raises:
        DemoError: the folder belongs to something else, or a demo runs in it.
    """
    if folder.exists():
        marker = folder / ".sluice-demo"
        if any(folder.iterdir()) and not marker.exists():
            raise DemoError(f"{folder} is not empty and not an earlier demo's: choose another folder with --home")
        shutil.rmtree(folder)
    folder.mkdir(parents=True)
    (folder / ".sluice-demo").touch()
    with _held_ports() as ports:
        clients, metrics, control = (next(ports_for(ports, usual)) for usual in (8000, 8002, 8080))
    return Place(folder.resolve(), clients, metrics, control)


@contextlib.contextmanager
def _held_ports() -> Iterator[list[socket.socket]]:
    """Sockets that hold chosen ports until all are chosen."""
    held: list[socket.socket] = []
    yield held
    for one in held:
        one.close()


def ports_for(held: list[socket.socket], usual: int) -> Iterator[str]:
    for port in (usual, 0):
        probe = socket.socket()
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            probe.close()
            continue
        held.append(probe)
        yield f"127.0.0.1:{probe.getsockname()[1]}"


async def sluice(place: Place, *arguments: str) -> str:
    """Run one `sluice` command to its end; returns what it printed.

    Raises:
        DemoError: it failed; with its last line.
    """
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "sluice", *arguments,
        stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT, cwd=place.home,
    )  # fmt: skip
    try:
        output, _ = await process.communicate()
    except asyncio.CancelledError:
        process.kill()
        await process.wait()
        raise
    text = output.decode(errors="replace").strip()
    if process.returncode:
        raise DemoError(f"`sluice {' '.join(arguments)}` ended with {process.returncode}: {text.splitlines()[-1:]}")
    return text


async def make_release(place: Place, number: int) -> None:
    """Train and export one of the four example runs, as release `digits/number`."""
    name = f"digits-{number}"
    await sluice(place, "train", str(EXAMPLES / f"{name}.toml"), "--out", f"runs/{name}")


class Up:
    """A `sluice up` of the demo's own."""

    def __init__(self, place: Place) -> None:
        self._place = place
        self._process: asyncio.subprocess.Process | None = None

    async def start(self) -> None:
        """Start it and wait until it serves. Raises DemoError when it does not."""
        place, log = self._place, self._place.home / "up.log"
        with log.open("w") as file:
            self._process = await asyncio.create_subprocess_exec(
                sys.executable, "-m", "sluice", "up", "--home", str(place.home), "--repository", str(place.models),
                "--listen", place.clients, "--metrics-listen", place.metrics, "--control-listen", place.control,
                stdout=file, stderr=file, start_new_session=True,
            )  # fmt: skip
        for _ in range(int(UP_TIMEOUT_S / 0.2)):
            if self._process.returncode is not None:
                raise DemoError(f"`sluice up` ended: {log.read_text().strip()}")
            if "sluice is up" in log.read_text():
                return
            await asyncio.sleep(0.2)
        raise DemoError(f"`sluice up` did not serve within {UP_TIMEOUT_S:g} s: see {log}")

    async def stop(self) -> None:
        """Stop it, and with it everything it started."""
        if self._process is None or self._process.returncode is not None:
            return
        self._process.send_signal(signal.SIGTERM)
        try:
            await asyncio.wait_for(self._process.wait(), STOP_TIMEOUT_S)
        except TimeoutError:
            self._process.kill()
            await self._process.wait()


async def ask(place: Place, key: int) -> dict[str, Any] | None:
    """A rollout as it stands; None while the control plane is away."""

    def fetch() -> dict[str, Any] | None:
        try:
            with ControlClient(place.control_url, timeout_s=2.0) as client:
                return client.rollout(key)
        except ClientError as exc:
            if exc.status:
                raise DemoError(str(exc)) from exc
            return None

    return await asyncio.to_thread(fetch)
