"""What the kernel says about processes, ports and shared memory. Linux only.

Knows /proc, /dev/shm and sockets. Must not know Triton or pools.
"""

import contextlib
import os
import random
import socket
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

SHARED_MEMORY = Path("/dev/shm")
# Below the range from which Linux takes ports for outgoing connections (32768 on), so none of those is in the way.
PORTS = range(18_000, 32_000)

_ZOMBIE = "Z"


@dataclass(frozen=True, slots=True)
class Stat:
    """A process as proc(5) gives it: `started_ticks` are clock ticks from boot to its start."""

    state: str
    session: int
    started_ticks: int


def read_stat(pid: int) -> Stat | None:
    """None where there is no such process."""
    try:
        text = Path(f"/proc/{pid}/stat").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return None
    # The name in parentheses may hold anything, so count from the last one: the third field of proc(5) follows it.
    values = text.rpartition(")")[2].split()
    return Stat(state=values[0], session=int(values[3]), started_ticks=int(values[19]))


def is_running(pid: int, started_ticks: int) -> bool:
    """Is this the very process that started then, and not dead? A dead child of ours is laid to rest."""
    stat = read_stat(pid)
    if stat is None or stat.started_ticks != started_ticks:
        return False
    if stat.state == _ZOMBIE:
        with contextlib.suppress(ChildProcessError):
            os.waitpid(pid, os.WNOHANG)
        return False
    return True


def in_session(session: int) -> list[int]:
    """The living processes of a session: a server started as its leader, and the ones it started."""
    living = ((pid, read_stat(pid)) for pid in _pids())
    return [pid for pid, stat in living if stat is not None and stat.session == session and stat.state != _ZOMBIE]


def with_argument(text: str) -> int | None:
    """The process that has `text` in its command line and leads its session."""
    for pid in _pids():
        with contextlib.suppress(OSError):
            stat = read_stat(pid)
            if text.encode() in Path(f"/proc/{pid}/cmdline").read_bytes() and stat and stat.session == pid:
                return pid
    return None


def _pids() -> Iterator[int]:
    return (int(entry.name) for entry in Path("/proc").iterdir() if entry.name.isdigit())


def free_ports(count: int) -> list[int]:
    """Ports of 127.0.0.1 that nothing listens on now. Another may take one before it is used: try again then."""
    chosen: list[int] = []
    while len(chosen) < count:
        port = random.choice(PORTS)
        with socket.socket() as probe, contextlib.suppress(OSError):
            probe.bind(("127.0.0.1", port))
            if port not in chosen:
                chosen.append(port)
    return chosen


def remove_segments(prefix: str) -> None:
    """Remove the shared-memory segments whose names begin with `prefix`; their processes must be dead."""
    assert prefix
    for path in SHARED_MEMORY.glob(f"{prefix}*"):
        path.unlink(missing_ok=True)
