"""One tritonserver process: how it is planned, started and ended, and what its log says of a bad end.

Knows Triton's command line and log. Must not know when a server is wanted, nor whether its answers are right.
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

from exporter.release import Release
from rollout.pools import kernel, records
from rollout.pools.errors import PoolStartError
from rollout.pools.installation import Installation
from rollout.pools.records import PoolProcess

LOG = "triton.log"
POLL_S = 0.02
HTTP_THREADS = 4
# For what is in flight when a server is asked to end; the gateway has drained it before.
EXIT_TIMEOUT_S = 5
KILL_TIMEOUT_S = 5.0
SHELL = "/bin/sh"
STACK_KIB = 512 * 1024
"""Triton's HTTP server puts whole bodies on a thread's stack: with the usual 8 MiB a body of 5 MB is a segmentation
fault, with 64 MiB one of 60 MB still is (measured with 2.51). Threads take their stack's size from this limit."""
_WITH_STACK = 'ulimit -S -s "$1" 2>/dev/null || ulimit -S -s "$(ulimit -H -s)"; shift; exec "$@"'

_LOG_PREFIX = re.compile(r"^E\d{4} [\d:.]+ \d+ \S+\] ")
_NOISE = ("CudaDriverHelper", "NVML")


class PortTakenError(PoolStartError):
    """Worth another attempt."""


def plan(home: Path, release: Release) -> PoolProcess:
    """The pool of a release as it will be, without a pid."""
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


def spawn(installation: Installation, pool: PoolProcess, release_folder: Path) -> PoolProcess:
    """Start the server as leader of a session of its own, so that it outlives us. Its output goes to the log."""
    log = str(pool.folder / LOG)
    try:
        pid = os.posix_spawn(
            SHELL,
            [SHELL, "-c", _WITH_STACK, SHELL, str(STACK_KIB), *_command(installation, pool, release_folder)],
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


def end_session(pool: PoolProcess) -> None:
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

    wait(is_empty, KILL_TIMEOUT_S)


def wait(condition: Callable[[], bool], timeout_s: float) -> bool:
    """Did it become true in time?"""
    deadline = time.monotonic() + timeout_s
    while not condition():
        if time.monotonic() >= deadline:
            return False
        time.sleep(POLL_S)
    return True


def died(pool: PoolProcess) -> PoolStartError:
    """What to raise when the server ended while it started."""
    kind = PortTakenError if "already in use" in _log_text(pool) else PoolStartError
    return kind(f"the server of {pool.name} ended while it started: {last_words(pool)}")


def last_words(pool: PoolProcess) -> str:
    """Why the server ended, by the last error in its log, and where that is."""
    lines = _log_text(pool).splitlines()
    errors = [
        _LOG_PREFIX.sub("", line)
        for line in lines
        if _LOG_PREFIX.match(line) or "error:" in line or line.startswith("Signal (")
    ]
    causes = [line for line in errors if not any(noise in line for noise in _NOISE)]
    return f"{causes[-1] if causes else 'its log gives no reason'}; see {pool.folder / LOG}"


def _log_text(pool: PoolProcess) -> str:
    try:
        return (pool.folder / LOG).read_text(errors="replace")
    except OSError:
        return ""
