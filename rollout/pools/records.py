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
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

from rollout.pools import kernel
from rollout.pools.seam import PoolProcess

RECORD = "process.json"


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
    """Replace the record in one step, flushed to disk."""
    path = pool.folder / RECORD
    beside = path.with_suffix(".tmp")
    with beside.open("w") as file:
        json.dump({"is_ready": is_ready, **pool.to_json()}, file)
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
