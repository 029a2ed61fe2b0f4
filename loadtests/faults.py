"""Breaks things on purpose: real signals to real processes, found by the records that they write."""

import json
import os
import signal
from pathlib import Path

from loadtests.errors import LoadError


def kill_control_plane(home: Path) -> int:
    """SIGKILL the control plane of a `sluice up`; returns its pid. Raises LoadError when there is none."""
    path = home / "logs" / "control.pid"
    try:
        pid = int(path.read_text())
        os.kill(pid, signal.SIGKILL)
    except (OSError, ValueError) as exc:
        raise LoadError(f"there is no control plane to kill ({path}: {exc})") from exc
    return pid


def crash_pool(home: Path, model: str, release: int) -> int:
    """Crash a release's server process with SIGSEGV, as a faulty operator would; returns its pid.

    Raises:
        LoadError: that release has no server here.
    """
    path = home / "pools" / f"{model}-{release}" / "process.json"
    try:
        pid = int(json.loads(path.read_text())["pid"])
        os.kill(pid, signal.SIGSEGV)
    except (OSError, ValueError, KeyError) as exc:
        raise LoadError(f"there is no server of {model}/{release} to crash ({path}: {exc})") from exc
    return pid
