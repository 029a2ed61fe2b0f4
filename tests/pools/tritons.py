"""Tritons as users start them: on one repository, with nothing loaded, told by nobody but whoever loads models."""

import contextlib
import os
import secrets
import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

from rollout.pools import kernel, server, v2
from rollout.pools.installation import install, this_machine
from rollout.pools.triton import Triton


class RunningTriton:
    """A server that can be killed, and started again at the same addresses."""

    def __init__(self, folder: Path, repository: Path) -> None:
        http, grpc, self._metrics = kernel.free_ports(3)
        self.triton = Triton(f"127.0.0.1:{http}", f"127.0.0.1:{grpc}")
        self._ports = http, grpc
        self._repository = repository
        self._installation = install(this_machine(), folder / "cache")
        self._prefix = f"sluice_{secrets.token_hex(8)}_"
        self._log = folder / f"triton-{http}.log"
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        http, grpc = self._ports
        command = [
            str(self._installation.server),
            f"--model-repository={self._repository}",
            f"--backend-directory={self._installation.backends}",
            f"--backend-config=python,shm-region-prefix-name={self._prefix}",
            "--model-control-mode=explicit",
            "--disable-auto-complete-config",
            "--http-address=127.0.0.1",
            f"--http-port={http}",
            "--grpc-address=127.0.0.1",
            f"--grpc-port={grpc}",
            "--metrics-address=127.0.0.1",
            f"--metrics-port={self._metrics}",
        ]
        with self._log.open("a") as log:
            self._process = subprocess.Popen(
                command, env=dict(self._installation.environment), stdout=log, stderr=log, start_new_session=True
            )

    def wait(self) -> None:
        assert server.wait(lambda: v2.is_live(self.triton.http, 1.0), 30.0), self._log.read_text()

    def signal(self, number: signal.Signals) -> None:
        assert self._process is not None
        os.kill(self._process.pid, number)

    def kill(self) -> None:
        """With what it started, leaving nothing."""
        if self._process is None:
            return
        self._process.kill()
        self._process.wait()
        deadline = time.monotonic() + 10
        while members := kernel.in_session(self._process.pid):
            assert time.monotonic() < deadline
            for pid in members:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
        kernel.remove_segments(self._prefix)
        self._process = None


@contextlib.contextmanager
def running_tritons(folder: Path, repository: Path, count: int = 2) -> Iterator[list[RunningTriton]]:
    repository.mkdir(parents=True, exist_ok=True)
    servers = [RunningTriton(folder, repository) for _ in range(count)]
    try:
        for one in servers:
            one.start()
        for one in servers:
            one.wait()
        yield servers
    finally:
        for one in servers:
            one.kill()
