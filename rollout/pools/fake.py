"""A fake host of pools, for tests of whoever uses `PoolHost`: tiny HTTP servers in this process instead of Tritons.

Knows `PoolHost`'s promises and keeps them. Must not know HTTP: `fake_server` does.
"""

import os
import time
from collections.abc import Mapping
from pathlib import Path

from exporter.release import Release
from rollout.pools.errors import PoolStartError
from rollout.pools.fake_server import Behaviour, FakeServer
from rollout.pools.records import PoolProcess


class FakeHost:
    """Pools that start at once. `behaviours` is keyed by release name, as in {"digits/2": Behaviour(fail_every=3)}."""

    def __init__(self, folder: Path, behaviours: Mapping[str, Behaviour] | None = None) -> None:
        self._folder = folder
        self.behaviours = dict(behaviours or {})
        self._servers: dict[PoolProcess, FakeServer] = {}
        self._starts = 0

    def start(self, release: Release, folder: Path) -> PoolProcess:
        behaviour = self.behaviours.get(release.name, Behaviour())
        time.sleep(behaviour.start_delay_s)
        if behaviour.start_error is not None:
            raise PoolStartError(f"the server of {release.name} ended while it started: {behaviour.start_error}")
        for pool in self.found():
            if pool.name == release.name:
                return pool
        server = FakeServer(release, behaviour)
        self._starts += 1
        pool = PoolProcess(
            model=release.model,
            release=release.number,
            pid=os.getpid(),
            started_ticks=self._starts,
            http_port=server.server_port,
            grpc_port=0,
            metrics_port=0,
            folder=self._folder,
            shm_prefix=f"fake_{self._starts}_",
        )
        self._servers[pool] = server
        return pool

    def is_alive(self, pool: PoolProcess) -> bool:
        return pool in self._servers

    def last_words(self, pool: PoolProcess) -> str | None:
        return f"the fake server of {pool.name} was ended"

    def stop(self, pool: PoolProcess, timeout_s: float) -> None:
        server = self._servers.pop(pool, None)
        if server is not None:
            server.end()

    def found(self) -> list[PoolProcess]:
        return list(self._servers)

    def crash(self, pool: PoolProcess) -> None:
        """End a pool as if its process had been killed. Not part of `PoolHost`."""
        self.stop(pool, timeout_s=0)

    def requests(self, pool: PoolProcess) -> int:
        """How many inferences a living pool was asked for. Not part of `PoolHost`."""
        return self._servers[pool].asked

    def close(self) -> None:
        """End all pools. Not part of `PoolHost`."""
        for pool in self.found():
            self.stop(pool, timeout_s=0)
