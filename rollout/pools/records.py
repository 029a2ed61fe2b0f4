"""The records of pools on disk, by which a control plane that was killed finds its servers again.

Knows `HOME/pools/MODEL-N/process.json`. Must not start or stop anything.

A record is written before its server is started, with pid 0; again once it runs; and again once it is ready. Killed in
between, the server is still found: by `shm_prefix`, which stands in its command line and nowhere else. Whoever starts
a pool holds its folder's lock meanwhile, so a record that is not ready and not locked is an interrupted start.
"""

import contextlib
import fcntl
import json
import os
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from typing import Any

from rollout.pools import kernel

RECORD = "process.json"


@dataclass(frozen=True, slots=True)
class PoolProcess:
    """A pool that is one server process of its own.

    `started_ticks` is the process's start in clock ticks since boot, from /proc/PID/stat: with `pid` it names one
    process for ever, while a pid alone may be given to another. `folder` holds the record and the log. The server's
    shared-memory segments have names that begin with `shm_prefix`, and no one else's have. `processes` is how many
    processes it consists of: the server, and where the backend has some of its own, those.
    """

    model: str
    release: int
    pid: int
    started_ticks: int
    http_port: int
    grpc_port: int
    metrics_port: int
    folder: Path
    shm_prefix: str
    processes: int = 1

    @property
    def name(self) -> str:
        return f"{self.model}/{self.release}"

    @property
    def address(self) -> str:
        return f"127.0.0.1:{self.http_port}"

    @property
    def addresses(self) -> tuple[str, ...]:
        return (self.address,)

    def to_json(self) -> dict[str, Any]:
        return {**asdict(self), "folder": str(self.folder)}

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> "PoolProcess":
        """Unknown fields are ignored. Raises KeyError for a missing one."""
        pool = cls(**{field.name: data[field.name] for field in fields(cls)})
        return replace(pool, folder=Path(pool.folder))


@dataclass(frozen=True, slots=True)
class Record:
    """A pool, and whether it answered its golden rows."""

    pool: PoolProcess
    is_ready: bool


def pool_folder(home: Path, model: str, number: int) -> Path:
    return home / "pools" / f"{model}-{number}"


@contextlib.contextmanager
def locked(folder: Path, wait: bool = True) -> Iterator[bool]:
    """Hold a pool's folder, made where it is not there. Without `wait`, yields False where another holds it."""
    folder.mkdir(parents=True, exist_ok=True)
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        yield _lock(descriptor, wait)
    finally:
        os.close(descriptor)


def write_record(pool: PoolProcess, *, is_ready: bool) -> None:
    write_json(pool.folder / RECORD, {"is_ready": is_ready, **pool.to_json()})


def write_json(path: Path, data: Mapping[str, Any]) -> None:
    """Replace a file in one step, flushed to disk."""
    beside = path.with_suffix(".tmp")
    with beside.open("w") as file:
        json.dump(data, file)
        file.flush()
        os.fsync(file.fileno())
    beside.replace(path)


def read_record(folder: Path) -> Record | None:
    """What was last started there, or None. A damaged record counts as none."""
    try:
        data = json.loads((folder / RECORD).read_text())
        pool, is_ready = PoolProcess.from_json(data), bool(data["is_ready"])
    except (OSError, ValueError, KeyError, TypeError):
        return None
    return Record(pool if pool.pid else _with_pid(pool), is_ready)


def recorded_folders(home: Path) -> list[Path]:
    return [path.parent for path in sorted((home / "pools").glob(f"*/{RECORD}"))]


def remove_record(pool: PoolProcess) -> None:
    (pool.folder / RECORD).unlink(missing_ok=True)


def _lock(descriptor: int, wait: bool) -> bool:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
    except BlockingIOError:
        return False
    return True


def _with_pid(pool: PoolProcess) -> PoolProcess:
    pid = kernel.with_argument(pool.shm_prefix)
    stat = kernel.read_stat(pid) if pid else None
    return replace(pool, pid=pid, started_ticks=stat.started_ticks) if pid and stat else pool
