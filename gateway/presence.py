"""What a running gateway leaves in its state directory: a pid file that it holds locked, and what it says of itself.

`sluice gateway reload`, `upgrade` and `status` find it by these, and ask by a signal.
"""

import fcntl
import json
import os
import signal
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from gateway.errors import GatewayError

PID_FILE = "gateway.pid"
STATUS_FILE = "status.json"
POLL_S = 0.05


class NotRunningError(GatewayError):
    """No gateway holds the pid file."""


class Presence:
    """The running gateway's side. What it says is replaced as a whole."""

    def __init__(self, state_dir: Path, fd: int) -> None:
        self._state_dir = state_dir
        self._said: dict[str, Any] = {}
        self.fd = fd
        """Locked as long as it is open; -1 when another gateway holds the pid file."""

    @staticmethod
    def take(state_dir: Path) -> "Presence":
        """Raises GatewayError when the directory cannot be written."""
        try:
            state_dir.mkdir(parents=True, exist_ok=True)
            fd = os.open(state_dir / PID_FILE, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
        except OSError as exc:
            raise GatewayError(f"the gateway cannot write to its state_dir {state_dir}: {exc.strerror}") from exc
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            os.close(fd)
            return Presence(state_dir, -1)
        os.ftruncate(fd, 0)
        os.pwrite(fd, f"{os.getpid()}\n".encode(), 0)
        return Presence(state_dir, fd)

    def say(self, status: dict[str, Any]) -> None:
        """Say how it stands, when that changed. A failing disk costs only that."""
        if self.fd < 0 or status == self._said:
            return
        self._said = status
        staged = self._state_dir / f"status.{os.getpid()}"
        try:
            staged.write_text(json.dumps(status, indent=1) + "\n")
            staged.replace(self._state_dir / STATUS_FILE)
        except OSError:
            self._said = {}

    def leave(self) -> None:
        if self.fd >= 0:
            for name in (STATUS_FILE, PID_FILE):
                (self._state_dir / name).unlink(missing_ok=True)
            os.close(self.fd)
            self.fd = -1


def find(state_dir: Path) -> int:
    """The pid of the gateway that runs there. Raises NotRunningError."""
    file = state_dir / PID_FILE
    missing = NotRunningError(f"no gateway runs with state_dir {state_dir}: start one, or give its --state-dir")
    try:
        with file.open() as pid_file:
            try:
                fcntl.flock(pid_file, fcntl.LOCK_SH | fcntl.LOCK_NB)
            except BlockingIOError:
                return int(pid_file.read())
    except (OSError, ValueError) as exc:
        raise missing from exc
    raise missing


def status(state_dir: Path) -> dict[str, Any]:
    """What the gateway there says of itself. Raises NotRunningError."""
    pid = find(state_dir)
    try:
        said: dict[str, Any] = json.loads((state_dir / STATUS_FILE).read_text())
    except (OSError, ValueError):
        said = {}
    return said if said.get("pid") == pid else {"pid": pid}


def ask(
    state_dir: Path, number: signal.Signals, timeout_s: float, waiting: Callable[[Mapping[str, Any]], None]
) -> dict[str, Any]:
    """Ask the gateway there by a signal; its status when it has done what it was asked, or given it up.

    Raises:
        NotRunningError: there is none, or it ended meanwhile.
        GatewayError: it did not do it in time.
    """
    ends_s = time.monotonic() + timeout_s
    while "asked" not in (before := status(state_dir)):  # It has only just started.
        _pause(ends_s, timeout_s)
    os.kill(before["pid"], number)
    while (now := status(state_dir)).get("done", 0) <= before["asked"]:
        waiting(now)
        _pause(ends_s, timeout_s)
    return now


def _pause(ends_s: float, timeout_s: float) -> None:
    if time.monotonic() > ends_s:
        raise GatewayError(f"the gateway did not come to an end with it within {timeout_s:g} s: see its log")
    time.sleep(POLL_S)
