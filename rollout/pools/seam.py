"""What the controller asks of whoever runs pools, and the record of one running pool.

Knows releases. Must not know Triton, processes or files: `process.TritonHost` does, and `fake.FakeHost` pretends to.
"""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from typing import Any, Protocol

from exporter.release import Release


@dataclass(frozen=True, slots=True)
class PoolProcess:
    """One server process for one release.

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
        """Where it takes requests, as the route table wants it."""
        return f"127.0.0.1:{self.http_port}"

    def to_json(self) -> dict[str, Any]:
        return {**asdict(self), "folder": str(self.folder)}

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> "PoolProcess":
        """Unknown fields are ignored. Raises KeyError for a missing one."""
        pool = cls(**{field.name: data[field.name] for field in fields(cls)})
        return replace(pool, folder=Path(pool.folder))


class PoolHost(Protocol):
    """Runs pools. Every method may block for seconds and may be called from any thread; all are idempotent."""

    def start(self, release: Release, folder: Path) -> PoolProcess:
        """Bring up the release in `folder` (exporter.release's layout) until it answers its golden rows.

        A pool of that release that already runs and answers them is returned as it is.

        Raises:
            PoolError: it could not; the message has the reason, and nothing is left running.
        """

    def is_alive(self, pool: PoolProcess) -> bool:
        """Do exactly this process, and those of its backend, still run? Says nothing about how well it answers."""

    def stop(self, pool: PoolProcess, timeout_s: float) -> None:
        """Ask it to end, and after `timeout_s` end it; then remove what it leaves. A dead pool is only tidied up."""

    def found(self) -> list[PoolProcess]:
        """The pools that run and were ready once, whoever started them: after a restart, the ones to adopt.

        What dead pools and interrupted starts have left is removed.
        """
