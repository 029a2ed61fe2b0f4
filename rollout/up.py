"""`sluice up`: control plane and gateway on this machine, kept running until told to stop.

Both are processes of their own. One that dies is started again; neither takes the other along, and server processes
outlive the control plane. On SIGINT or SIGTERM: the gateway drains, the control plane ends, the pools are stopped.
"""

import ctypes
import fcntl
import json
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from types import FrameType
from typing import Annotated, Any, TextIO

import httpx
import typer
from rich.console import Console

from rollout.cli import told
from rollout.config import ControlSettings, load_settings
from rollout.errors import ConflictError, ControlError, RefusedError
from rollout.hosting import check_tritons, host_of

READY_TIMEOUT_S = 30.0
STOP_TIMEOUT_S = 45.0
RESTART_EVERY_S = 2.0
PR_SET_PDEATHSIG = 1
_err = Console(stderr=True)


def up(
    config: Annotated[
        Path | None, typer.Option("--config", help="TOML file with the tables control and gateway.")
    ] = None,
    home: Annotated[str | None, typer.Option("--home", help="Where state and logs are kept; default .sluice.")] = None,
    repository: Annotated[
        str | None, typer.Option("--repository", help="The model repository; default models.")
    ] = None,
    listen: Annotated[str | None, typer.Option("--listen", help="Clients; default 127.0.0.1:8000.")] = None,
    metrics_listen: Annotated[str | None, typer.Option("--metrics-listen", help="Default 127.0.0.1:8002.")] = None,
    control_listen: Annotated[str | None, typer.Option("--control-listen", help="Default 127.0.0.1:8080.")] = None,
    workers: Annotated[int | None, typer.Option("--workers", min=1, max=256, help="Default one a core.")] = None,
) -> None:
    """Run everything on this machine: control plane, gateway, and a Triton for each release that serves.

    Example: sluice up --home .sluice --repository models
    """
    with told():
        settings = load_settings(config, home=home, repository=repository, listen=control_listen)
        check_tritons(settings)
        given = {"--config": config, "--listen": listen, "--metrics-listen": metrics_listen, "--workers": workers}
        fixed = {"--control-url": settings.url, "--state-dir": settings.home_path / "gateway"}
        gateway = [str(word) for pair in (given | fixed).items() if pair[1] is not None for word in pair]
        addresses = check_gateway(gateway)
        for address in (*addresses.values(), settings.listen):
            check_free(address)
        Everything(settings, config, addresses["listen"], gateway).run()


def check_gateway(arguments: list[str]) -> dict[str, str]:
    """Where the gateway would listen. Raises RefusedError when it would not take its settings."""
    command = [sys.executable, "-m", "sluice", "gateway", *arguments, "--check"]
    checked = subprocess.run(command, capture_output=True, text=True, check=False)
    if checked.returncode:
        raise RefusedError(checked.stderr.strip().removeprefix("error: "))
    found: dict[str, str] = json.loads(checked.stdout)
    return found


def check_free(address: str) -> None:
    """Raises ConflictError when something listens there."""
    host, _, port = address.rpartition(":")
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, int(port)))
        except (OSError, ValueError, OverflowError) as exc:
            raise ConflictError(
                f"{address} cannot be listened on ({exc}): stop what uses it, or choose another port"
            ) from exc


class Part:
    """One of our processes, with its log and, beside it, its pid."""

    def __init__(self, name: str, arguments: list[str], log: Path) -> None:
        self.name = name
        self._arguments = [sys.executable, "-m", "sluice", *arguments]
        self._log_path = log
        self._log: TextIO | None = None
        self.process: subprocess.Popen[str] | None = None
        self.started_at = 0.0

    def start(self) -> None:
        self._log_path.parent.mkdir(parents=True, exist_ok=True)
        if self._log is None:
            self._log = self._log_path.open("a")
        # A session of its own: Ctrl-C on the terminal reaches `sluice up`, which stops the parts in order.
        self.process = subprocess.Popen(
            self._arguments, stdout=self._log, stderr=subprocess.STDOUT, text=True, start_new_session=True,
            preexec_fn=_end_with_parent,  # noqa: PLW1509  No thread runs here.
        )  # fmt: skip
        self.started_at = time.monotonic()
        self._log_path.with_suffix(".pid").write_text(str(self.process.pid))

    @property
    def is_running(self) -> bool:
        return self.process is not None and self.process.poll() is None

    def stop(self, timeout_s: float) -> None:
        if self.process is not None and self.process.poll() is None:
            self.process.terminate()
            try:
                self.process.wait(timeout_s)
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait()
        if self._log is not None:
            self._log.close()
            self._log = None

    def last_words(self) -> str:
        lines = self._log_path.read_text(errors="replace").strip().splitlines() if self._log_path.exists() else []
        return lines[-1] if lines else "it said nothing"


def _end_with_parent() -> None:
    """In the child: be told to end when `sluice up` dies without being able to say so (prctl(2), PR_SET_PDEATHSIG)."""
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGTERM)


class Everything:
    """Control plane, gateway and pools of one home."""

    def __init__(
        self, settings: ControlSettings, config: Path | None, listen: str, gateway_arguments: list[str]
    ) -> None:
        self._settings = settings
        self._listen = listen
        home = settings.home_path
        control = ["control", "--home", str(home), "--repository", str(settings.repository_path)]
        control += ["--listen", settings.listen, *(["--config", str(config)] if config else [])]
        self._control = Part("control plane", control, home / "logs" / "control.log")
        self._gateway = Part("gateway", ["gateway", *gateway_arguments], home / "logs" / "gateway.log")
        self._is_stopping = False

    def run(self) -> None:
        """Run until a signal. Raises ControlError when it cannot start; nothing is left running."""
        self._settings.home_path.mkdir(parents=True, exist_ok=True)
        with (self._settings.home_path / "up.lock").open("w") as lock:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError as exc:
                raise ConflictError(f"`sluice up` runs already on {self._settings.home_path}") from exc
            for number in (signal.SIGINT, signal.SIGTERM):
                signal.signal(number, self._told_to_stop)
            try:
                self._start()
                if not self._is_stopping:
                    self._announce()
                while not self._is_stopping:
                    self._replace_dead()
                    time.sleep(0.1)
            finally:
                self._stop()

    def _told_to_stop(self, _number: int, _frame: FrameType | None) -> None:
        self._is_stopping = True

    def _start(self) -> None:
        self._control.start()
        self._wait(self._control, self._is_our_control_plane)
        self._wait_for_stables()
        self._gateway.start()
        self._wait(self._gateway, lambda: bool(_told(f"{self._settings.url}/v1/gateways")))

    def _wait_for_stables(self) -> None:
        """Let clients in only when what served before serves again; one that cannot be started holds up nobody else."""
        ends = time.monotonic() + READY_TIMEOUT_S
        while _told(f"{self._settings.url}/v1/health").get("missing") and not self._is_stopping:
            if time.monotonic() > ends:
                _err.print("some stable releases do not start: see the control plane's log", style="yellow")
                return
            time.sleep(0.05)

    def _is_our_control_plane(self) -> bool:
        """Is it ours that answers, not another's on the same port? The gateway that it hears of is then ours too."""
        process = self._control.process
        return process is not None and _told(f"{self._settings.url}/v1/health").get("pid") == process.pid

    def _wait(self, part: Part, is_ready: Callable[[], bool]) -> None:
        ends = time.monotonic() + READY_TIMEOUT_S
        while not is_ready() and not self._is_stopping:
            if not part.is_running or time.monotonic() > ends:
                raise ControlError(f"the {part.name} did not start: {part.last_words()}")
            time.sleep(0.05)

    def _announce(self) -> None:
        _err.print("[bold green]sluice is up[/]", highlight=False)
        logs = str(self._settings.home_path / "logs")
        for what, where in (("clients", f"http://{self._listen}"), ("control", self._settings.url), ("logs", logs)):
            _err.print(f"  {what:8} {where}", highlight=False, soft_wrap=True)
        _err.print("next: sluice rollout start NAME/1 (`sluice releases` lists them); Ctrl-C stops", style="dim")

    def _replace_dead(self) -> None:
        for part in (self._control, self._gateway):
            if not part.is_running and time.monotonic() - part.started_at > RESTART_EVERY_S and not self._is_stopping:
                assert part.process is not None
                ended = f"the {part.name} ended ({part.process.returncode}: {part.last_words()}); starting it again"
                _err.print(ended, style="yellow", markup=False, soft_wrap=True)
                part.start()

    def _stop(self) -> None:
        _err.print("stopping: gateway, control plane, pools", style="dim")
        self._gateway.stop(STOP_TIMEOUT_S)
        self._control.stop(STOP_TIMEOUT_S)
        host = host_of(self._settings)
        for pool in host.found():
            host.stop(pool, 10.0)


def _told(url: str) -> dict[str, Any]:
    """The JSON object behind a URL; empty when there is none."""
    try:
        answer = httpx.get(url, timeout=1.0, trust_env=False)
        found: dict[str, Any] = answer.json() if answer.is_success else {}
    except (httpx.HTTPError, ValueError):
        return {}
    return found
