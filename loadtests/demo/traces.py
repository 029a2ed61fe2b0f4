"""What a demo may leave behind: processes, known by a mark in their environment, and shared memory. Linux only."""

import contextlib
import json
import os
import signal
from pathlib import Path

MARK = "SLUICE_DEMO_HOME"
"""Set in the environment of everything that a demo starts, and inherited by whatever that starts."""


def marked_environment(home: Path) -> dict[str, str]:
    """The environment for a process of the demo in `home`."""
    return {**os.environ, MARK: str(home)}


def processes_of(home: Path) -> list[int]:
    """The living processes that the demo in `home` started, at first or any hand."""
    mark, found = f"{MARK}={home}".encode(), []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit() and int(entry.name) != os.getpid():
            with contextlib.suppress(OSError):  # It is gone, or another user's.
                if mark in (entry / "environ").read_bytes().split(b"\0"):
                    found.append(int(entry.name))
    return sorted(found)


class Traces:
    """Watches what one demo leaves. A server's record goes with it, so its segments' prefix is noted while it runs."""

    def __init__(self, home: Path) -> None:
        self._home = home
        self._prefixes: set[str] = set()

    def look(self) -> None:
        """Note the shared memory of the servers that run now."""
        for record in (self._home / "pools").glob("*/process.json"):
            with contextlib.suppress(OSError, ValueError, KeyError):  # Just replaced, or just removed.
                self._prefixes.add(json.loads(record.read_text())["shm_prefix"])

    def left(self) -> list[str]:
        """What still runs or lies about, in words."""
        segments = [entry.name for entry in Path("/dev/shm").iterdir()]
        return [
            *(f"process {pid}" for pid in processes_of(self._home)),
            *(f"shared memory {name}" for name in segments if name.startswith(tuple(self._prefixes))),
        ]

    def end(self) -> None:
        """Kill what was left."""
        for pid in processes_of(self._home):
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
