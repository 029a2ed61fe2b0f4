"""Breaks things on purpose: real signals to real processes, found by the records that they write.

A record may be older than its process. Only the very process that wrote it is hurt, never one that got its number.
"""

import os
import signal
from pathlib import Path

from loadtests.errors import LoadError
from rollout.pools import kernel, records


def kill_control_plane(home: Path) -> int:
    """SIGKILL the control plane of a `sluice up`; returns its pid. Raises LoadError when there is none."""
    path = home / "logs" / "control.pid"
    try:
        pid = int(path.read_text())
        command = Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")
    except (OSError, ValueError) as exc:
        raise LoadError(f"there is no control plane to kill ({path}: {exc})") from exc
    if b"control" not in command or str(home).encode() not in command:
        raise LoadError(f"there is no control plane to kill ({path} names process {pid}, which is another)")
    os.kill(pid, signal.SIGKILL)
    return pid


def crash_pool(home: Path, model: str, release: int) -> int:
    """Crash a release's server process with SIGSEGV, as a faulty operator would; returns its pid.

    Raises:
        LoadError: that release has no server here.
    """
    folder = records.pool_folder(home, model, release)
    record = records.read_record(folder)
    if record is None or not record.pool.pid or not kernel.is_running(record.pool.pid, record.pool.started_ticks):
        raise LoadError(
            f"there is no server of {model}/{release} to crash: {folder / records.RECORD} names none that runs"
        )
    os.kill(record.pool.pid, signal.SIGSEGV)
    return record.pool.pid
