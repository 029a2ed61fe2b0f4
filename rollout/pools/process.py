"""Pools as tritonserver processes on this machine: one for each release, which outlive the control plane.

Knows the order in which a server is started, watched and ended. Must not know routes, rollouts or who asks.

The laws: a record is on disk before a server runs; a start that fails leaves no process and no segment; a stop ends
the whole session of the server, and its record goes last.
"""

import contextlib
import os
import signal
from dataclasses import replace
from pathlib import Path

from exporter.release import Release, ReleaseError, verify_files
from rollout.pools import kernel, records, server, v2
from rollout.pools.errors import PoolError, PoolStartError
from rollout.pools.installation import Installation, Places, install, this_machine
from rollout.pools.records import PoolProcess

START_TIMEOUT_S = 60.0
# Another process may take a port between its choice and its use.
ATTEMPTS = 3


class TritonHost:
    """Runs one tritonserver for each release, with records and logs below `home`."""

    def __init__(self, home: Path, places: Places | None = None, start_timeout_s: float = START_TIMEOUT_S) -> None:
        self._home = home.resolve()
        self._places = places or this_machine()
        self._start_timeout_s = start_timeout_s
        self._installation: Installation | None = None

    def __repr__(self) -> str:
        return f"TritonHost({str(self._home)!r}, server={self._installation.version if self._installation else None})"

    def start(self, release: Release, folder: Path) -> PoolProcess:
        """See `PoolHost.start`."""
        home = records.pool_folder(self._home, release.model, release.number)
        with records.locked(home):
            before = records.read_record(home)
            if before is not None and (good := self._if_good(before.pool, release)) is not None:
                return good
            if before is not None:
                self.stop(before.pool, timeout_s=0)
            try:
                verify_files(release, folder)
            except ReleaseError as exc:
                raise PoolStartError(str(exc)) from exc
            return self._start_somewhere(release, folder.resolve())

    def is_alive(self, pool: PoolProcess) -> bool:
        """See `PoolHost.is_alive`."""
        return _is_running(pool) and len(kernel.in_session(pool.pid)) >= pool.processes

    def last_words(self, pool: PoolProcess) -> str:
        """See `PoolHost.last_words`."""
        return server.last_words(pool)

    def stop(self, pool: PoolProcess, timeout_s: float) -> None:
        """See `PoolHost.stop`."""
        if timeout_s > 0 and self.is_alive(pool):
            with contextlib.suppress(ProcessLookupError):
                os.kill(pool.pid, signal.SIGTERM)
            server.wait(lambda: not _is_running(pool), timeout_s)
        server.end_session(pool)
        kernel.remove_segments(pool.shm_prefix)
        records.remove_record(pool)

    def found(self) -> list[PoolProcess]:
        """See `PoolHost.found`."""
        alive = []
        for folder in records.recorded_folders(self._home):
            record = records.read_record(folder)
            if record is not None and record.is_ready and self.is_alive(record.pool):
                alive.append(record.pool)
            else:
                self._tidy(folder)
        return alive

    def _tidy(self, folder: Path) -> None:
        """End what nobody is starting any more. Read again under the lock: a start may just have come to its end."""
        with records.locked(folder, wait=False) as is_held:
            record = records.read_record(folder) if is_held else None
            if record is not None and not (record.is_ready and self.is_alive(record.pool)):
                self.stop(record.pool, timeout_s=0)

    def _if_good(self, pool: PoolProcess, release: Release) -> PoolProcess | None:
        """Brings a pool whose start was interrupted to its end."""
        if not self.is_alive(pool):
            return None
        try:
            return self._verified(pool, release)
        except PoolError:
            return None

    def _start_somewhere(self, release: Release, folder: Path) -> PoolProcess:
        self._installation = install(self._places, self._home / "cache")
        for _ in range(ATTEMPTS - 1):
            with contextlib.suppress(server.PortTakenError):
                return self._start(self._installation, release, folder)
        return self._start(self._installation, release, folder)

    def _start(self, installation: Installation, release: Release, folder: Path) -> PoolProcess:
        pool = server.plan(self._home, release)
        records.write_record(pool, is_ready=False)
        try:
            pool = server.spawn(installation, pool, folder)
            records.write_record(pool, is_ready=False)
            return self._verified(pool, release)
        except BaseException:
            self.stop(pool, timeout_s=0)
            raise

    def _verified(self, pool: PoolProcess, release: Release) -> PoolProcess:
        """The pool, once it is ready and answers its golden rows; recorded so. Raises PoolError."""

        def is_over() -> bool:
            return not self.is_alive(pool) or v2.is_ready(pool.address, release.model, release.number)

        in_time = server.wait(is_over, self._start_timeout_s)
        if not self.is_alive(pool):
            raise server.died(pool)
        if not in_time:
            log = pool.folder / server.LOG
            raise PoolStartError(
                f"the server of {pool.name} was not ready after {self._start_timeout_s:g} s; see {log}"
            )
        v2.check_golden(pool.address, release)
        pool = replace(pool, processes=len(kernel.in_session(pool.pid)))
        records.write_record(pool, is_ready=True)
        return pool


def _is_running(pool: PoolProcess) -> bool:
    return bool(pool.pid) and kernel.is_running(pool.pid, pool.started_ticks)
