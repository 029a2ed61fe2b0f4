"""The records of pools on disk, by which a control plane that was killed finds its servers again.

Knows `HOME/pools/MODEL-N/process.json`. Must not start or stop anything.

A record is written before its server is started, with pid 0, and again after. Killed in between, the server is still
found: by `shm_prefix`, which stands in its command line and nowhere else.
"""

import json
import os
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

from rollout.pools import kernel
from rollout.pools.seam import PoolProcess

RECORD = "process.json"


def pool_folder(home: Path, model: str, number: int) -> Path:
    return home / "pools" / f"{model}-{number}"


def write_record(pool: PoolProcess) -> None:
    """Replace the record in one step, flushed to disk."""
    path = pool.folder / RECORD
    beside = path.with_suffix(".tmp")
    with beside.open("w") as file:
        json.dump(pool.to_json(), file)
        file.flush()
        os.fsync(file.fileno())
    beside.replace(path)


def read_record(folder: Path) -> PoolProcess | None:
    """The pool that was last started there, or None. A damaged record counts as none."""
    try:
        pool = PoolProcess.from_json(json.loads((folder / RECORD).read_text()))
    except (OSError, ValueError, KeyError, TypeError):
        return None
    return pool if pool.pid else _with_pid(pool)


def read_records(home: Path) -> Iterator[PoolProcess]:
    for path in sorted((home / "pools").glob(f"*/{RECORD}")):
        pool = read_record(path.parent)
        if pool is not None:
            yield pool


def remove_record(pool: PoolProcess) -> None:
    (pool.folder / RECORD).unlink(missing_ok=True)


def _with_pid(pool: PoolProcess) -> PoolProcess:
    pid = kernel.with_argument(pool.shm_prefix)
    stat = kernel.read_stat(pid) if pid else None
    return replace(pool, pid=pid, started_ticks=stat.started_ticks) if pid and stat else pool
