"""What goes on behind the demo: the real command line, run as a user would run it, each with its log.

Every command runs in a session of its own: Ctrl-C on the terminal reaches the demo alone, which stops them in order.
"""

import asyncio
import contextlib
import os
import signal
import sys
from pathlib import Path
from typing import Any

from loadtests.demo.place import Place
from loadtests.demo.traces import marked_environment
from loadtests.errors import DemoError
from rollout.client import ClientError, ControlClient

STOP_TIMEOUT_S = 90.0
UP_TIMEOUT_S = 60.0
EXAMPLES = Path(__file__).parents[2] / "trainer" / "examples"
PLAN = Path(__file__).parents[2] / "rollout" / "examples" / "demo.toml"


async def sluice(place: Place, *arguments: str) -> str:
    """Run one `sluice` command to its end; returns what it printed.

    Raises:
        DemoError: it failed; with its last line.
    """
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "sluice", *arguments, cwd=place.home, env=marked_environment(place.home),
        stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT, start_new_session=True,
    )  # fmt: skip
    try:
        output, _ = await process.communicate()
    except asyncio.CancelledError:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        await process.wait()
        raise
    text = output.decode(errors="replace").strip()
    if process.returncode:
        raise DemoError(f"`sluice {' '.join(arguments)}` ended with {process.returncode}: {_last_line(text)}")
    return text


def _last_line(text: str) -> str:
    return text.rpartition("\n")[2] or "it said nothing"


async def train(place: Place, number: int) -> None:
    """Train one of the four example runs."""
    name = f"digits-{number}"
    await sluice(place, "train", str(EXAMPLES / f"{name}.toml"), "--out", f"runs/{name}")


async def export(place: Place, number: int) -> None:
    """Export it; as the first, second, ... export it becomes release `digits/number`."""
    await sluice(place, "export", f"runs/digits-{number}", "--model", "digits", "--repository", str(place.models))


class Up:
    """A `sluice up` of the demo's own."""

    def __init__(self, place: Place) -> None:
        self._place = place
        self._process: asyncio.subprocess.Process | None = None

    async def start(self) -> None:
        """Start it and wait until it serves. Raises DemoError when it does not."""
        place, log = self._place, self._place.home / "up.log"
        with log.open("w") as file:
            place.let_go()
            self._process = await asyncio.create_subprocess_exec(
                sys.executable, "-m", "sluice", "up", "--home", str(place.home), "--repository", str(place.models),
                "--listen", place.clients, "--metrics-listen", place.metrics, "--control-listen", place.control,
                stdout=file, stderr=file, env=marked_environment(place.home), start_new_session=True,
            )  # fmt: skip
        for _ in range(int(UP_TIMEOUT_S / 0.2)):
            if self._process.returncode is not None:
                raise DemoError(f"`sluice up` ended: {_last_line(log.read_text().strip())}")
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
