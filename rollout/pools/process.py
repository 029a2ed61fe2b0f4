"""Pools as tritonserver processes on this machine: one for each release, which outlive the control plane.

Knows how a server is started, watched and ended. Must not know routes, rollouts or who asks.

The laws: a record is on disk before a server runs; a start that fails leaves no process and no segment; a stop ends
the whole session of the server, and its record goes last.
"""

import contextlib
import os
import re
import secrets
import signal
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from exporter.release import Release, ReleaseError, verify_files
from rollout.pools import kernel, records, v2
from rollout.pools.errors import PoolError, PoolStartError
from rollout.pools.installation import Installation, Places, install, this_machine
from rollout.pools.seam import PoolProcess

LOG = "triton.log"
START_TIMEOUT_S = 60.0
# Another process may take a port between its choice and its use.
ATTEMPTS = 3
POLL_S = 0.02
HTTP_THREADS = 4
# For what is in flight when a server is asked to end; the gateway has drained it before.
EXIT_TIMEOUT_S = 5
KILL_TIMEOUT_S = 5.0

_LOG_PREFIX = re.compile(r"^E\d{4} [\d:.]+ \d+ \S+\] ")
_NOISE = ("CudaDriverHelper", "NVML")


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
            if before is not None and self._is_good(before.pool, release):
                return before.pool
            if before is not None:
                self.stop(before.pool, timeout_s=0)
            try:
                verify_files(release, folder)
            except ReleaseError as exc:
                raise PoolStartError(str(exc)) from exc
            return self._start_somewhere(release, folder.resolve())

    def is_alive(self, pool: PoolProcess) -> bool:
        """See `PoolHost.is_alive`."""
        return bool(pool.pid) and kernel.is_running(pool.pid, pool.started_ticks)

    def stop(self, pool: PoolProcess, timeout_s: float) -> None:
        """See `PoolHost.stop`."""
        if timeout_s > 0 and self.is_alive(pool):
            with contextlib.suppress(ProcessLookupError):
                os.kill(pool.pid, signal.SIGTERM)
            _wait(lambda: not self.is_alive(pool), timeout_s)
        _end_session(pool)
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

    def _is_good(self, pool: PoolProcess, release: Release) -> bool:
        """Brings a pool whose start was interrupted to its end."""
        if not self.is_alive(pool):
            return False
        try:
            self._verify(pool, release)
        except PoolError:
            return False
        return True

    def _start_somewhere(self, release: Release, folder: Path) -> PoolProcess:
        self._installation = install(self._places, self._home / "cache")
        for _ in range(ATTEMPTS - 1):
            with contextlib.suppress(_PortTakenError):
                return self._start(self._installation, release, folder)
        return self._start(self._installation, release, folder)

    def _start(self, installation: Installation, release: Release, folder: Path) -> PoolProcess:
        pool = _plan(self._home, release)
        records.write_record(pool, is_ready=False)
        try:
            pool = _spawn(installation, pool, folder)
            records.write_record(pool, is_ready=False)
            self._verify(pool, release)
        except BaseException:
            self.stop(pool, timeout_s=0)
            raise
        return pool

    def _verify(self, pool: PoolProcess, release: Release) -> None:
        def is_over() -> bool:
            return not self.is_alive(pool) or v2.is_ready(pool.http_port, release.model, release.number)

        in_time = _wait(is_over, self._start_timeout_s)
        if not self.is_alive(pool):
            raise _died(pool)
        if not in_time:
            raise PoolStartError(
                f"the server of {pool.name} was not ready after {self._start_timeout_s:g} s; see {pool.folder / LOG}"
            )
        v2.check_golden(pool.http_port, release)
        records.write_record(pool, is_ready=True)


class _PortTakenError(PoolStartError):
    """Worth another attempt."""


def _plan(home: Path, release: Release) -> PoolProcess:
    http_port, grpc_port, metrics_port = kernel.free_ports(3)
    return PoolProcess(
        model=release.model,
        release=release.number,
        pid=0,
        started_ticks=0,
        http_port=http_port,
        grpc_port=grpc_port,
        metrics_port=metrics_port,
        folder=records.pool_folder(home, release.model, release.number),
        shm_prefix=f"sluice_{secrets.token_hex(8)}_",
    )


def _spawn(installation: Installation, pool: PoolProcess, release_folder: Path) -> PoolProcess:
    """Start the server as leader of a session of its own, so that it outlives us. Its output goes to the log."""
    log = str(pool.folder / LOG)
    try:
        pid = os.posix_spawn(
            installation.server,
            _command(installation, pool, release_folder),
            installation.environment,
            file_actions=[
                (os.POSIX_SPAWN_OPEN, 0, "/dev/null", os.O_RDONLY, 0),
                (os.POSIX_SPAWN_OPEN, 1, log, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o644),
                (os.POSIX_SPAWN_DUP2, 1, 2),
            ],
            setsid=True,
            setsigmask=[],
            setsigdef=[signal.SIGPIPE, signal.SIGXFSZ, signal.SIGINT, signal.SIGTERM, signal.SIGHUP],
        )
    except OSError as exc:
        raise PoolStartError(f"{installation.server} cannot be started: {exc}") from exc
    stat = kernel.read_stat(pid)
    assert stat is not None, "a child stays at least a zombie until it is waited for"
    return replace(pool, pid=pid, started_ticks=stat.started_ticks)


def _command(installation: Installation, pool: PoolProcess, release_folder: Path) -> list[str]:
    return [
        str(installation.server),
        f"--id={pool.name}",
        f"--model-repository={release_folder / 'triton'}",
        f"--backend-directory={installation.backends}",
        f"--backend-config=python,shm-region-prefix-name={pool.shm_prefix}",
        "--model-control-mode=explicit",
        f"--load-model={pool.model}",
        "--disable-auto-complete-config",
        "--http-address=127.0.0.1",
        f"--http-port={pool.http_port}",
        f"--http-thread-count={HTTP_THREADS}",
        "--grpc-address=127.0.0.1",
        f"--grpc-port={pool.grpc_port}",
        "--metrics-address=127.0.0.1",
        f"--metrics-port={pool.metrics_port}",
        f"--exit-timeout-secs={EXIT_TIMEOUT_S}",
    ]


def _end_session(pool: PoolProcess) -> None:
    """Kill the server and what it started. A pid that now belongs to another process is left alone."""
    stat = kernel.read_stat(pool.pid) if pool.pid else None
    is_reused = stat is not None and stat.started_ticks != pool.started_ticks
    if not pool.pid or is_reused:
        return

    def is_empty() -> bool:
        kernel.is_running(pool.pid, pool.started_ticks)
        members = kernel.in_session(pool.pid)
        for pid in members:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        return not members

    _wait(is_empty, KILL_TIMEOUT_S)


def _wait(condition: Callable[[], bool], timeout_s: float) -> bool:
    """Did it become true in time?"""
    deadline = time.monotonic() + timeout_s
    while not condition():
        if time.monotonic() >= deadline:
            return False
        time.sleep(POLL_S)
    return True


def _died(pool: PoolProcess) -> PoolStartError:
    text = (pool.folder / LOG).read_text(errors="replace")
    errors = [_LOG_PREFIX.sub("", line) for line in text.splitlines() if _LOG_PREFIX.match(line) or "error:" in line]
    causes = [line for line in errors if not any(noise in line for noise in _NOISE)]
    reason = causes[-1] if causes else "its log gives no reason"
    kind = _PortTakenError if "already in use" in text else PoolStartError
    return kind(f"the server of {pool.name} ended while it started: {reason}; see {pool.folder / LOG}")
