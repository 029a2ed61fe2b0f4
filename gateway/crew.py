"""The gateway's worker processes: started, replaced when they die, renewed without a gap, drained.

Knows processes, the listening socket they share and the line to each of them. Does not know routes, counts or the
control plane: what a worker says goes to `Owner.heard`, that one is gone to `Owner.left`.
"""

import asyncio
import contextlib
import json
import logging
import socket
import sys
from collections.abc import Coroutine, Sequence
from typing import Any, Protocol

from gateway.config import GatewayConfig, parse_address
from gateway.counters import Slab
from gateway.errors import GatewayError, ListenError
from gateway.worker import settings_for

READY_TIMEOUT_S = 20.0
DYING_PAUSE_S = 1.0
"""Before a worker that never served is replaced: not in a tight loop."""
LINE_BYTES_MOST = 2**26

log = logging.getLogger("sluice.gateway")


class WorkerProcess:
    """A worker as its supervisor sees it. `generation` is the number of the reload that started it."""

    def __init__(self, region: int, generation: int, process: asyncio.subprocess.Process) -> None:
        self.region = region
        self.generation = generation
        self.process = process
        self.writer: asyncio.StreamWriter | None = None
        self.ready = asyncio.Event()
        """Set when it serves, and when it is gone."""
        self.applied_version = -1
        self.is_draining = False

    def __repr__(self) -> str:
        return f"<Worker pid={self.process.pid} region={self.region} table={self.applied_version}>"

    def say(self, message: dict[str, Any]) -> None:
        if self.writer is not None and not self.writer.is_closing():
            self.writer.write(json.dumps(message).encode() + b"\n")

    def kill(self) -> None:
        if self.process.returncode is None:
            self.process.kill()


class Owner(Protocol):
    """Whom the crew tells."""

    def greeting(self) -> dict[str, Any] | None:
        """What a new worker is told first, the route table, if there is one yet; it serves when it has heard it."""

    def heard(self, worker: WorkerProcess, message: dict[str, Any]) -> None: ...

    def left(self, region: int) -> None:
        """A worker is gone: its region is read for the last time, and may be used again."""


def open_listener(address: str, backlog: int) -> socket.socket:
    """A listening socket. Raises ListenError when the address is in use or not ours."""
    host, port = parse_address(address, "listen")
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listener = socket.socket(family, socket.SOCK_STREAM)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind((host, port))
        listener.listen(backlog)
    except OSError as exc:
        listener.close()
        raise ListenError(
            f"the gateway cannot listen on {address} ({exc.strerror}): stop what uses it, or choose another address"
        ) from exc
    listener.setblocking(False)
    return listener


class Crew:
    """All workers of a gateway, on one listening socket."""

    def __init__(self, config: GatewayConfig, owner: Owner, slab: Slab, regions: int) -> None:
        self._config = config
        self._owner = owner
        self._slab = slab
        self._regions = regions
        self._free_regions = list(range(regions))
        self._generation = -1
        self._renewal = asyncio.Event()
        self._is_stopping = False
        self._tasks: set[asyncio.Task[None]] = set()
        self.workers: list[WorkerProcess] = []
        self.replaced = 0
        self.listener = open_listener(config.listen, config.backlog)

    async def start(self) -> None:
        """Start the workers and wait until all serve. Raises GatewayError, leaving none of them."""
        await self._start_generation(0)
        self._spawn(self._renew_for_ever())

    def renew(self) -> None:
        """Ask for new workers in place of the old; while a renewal is under way, for one more after it."""
        self._renewal.set()

    def say(self, message: dict[str, Any]) -> None:
        for worker in self.workers:
            worker.say(message)

    @property
    def applied_version(self) -> int:
        """The oldest table in a worker that serves; -1 when one has none yet."""
        return min((worker.applied_version for worker in self.workers if not worker.is_draining), default=-1)

    async def stop(self) -> None:
        """Say unready, wait as configured, then drain all."""
        self._is_stopping = True
        self.say({"unready": True})
        await asyncio.sleep(self._config.ready_to_close_s)
        self.listener.close()
        while self.workers:
            await self._drain(self.workers)

    # Generations

    async def _start_generation(self, generation: int) -> None:
        new: list[WorkerProcess] = []
        try:
            async with asyncio.timeout(READY_TIMEOUT_S):
                for _ in range(self._config.workers):
                    new.append(await self._start_worker(generation))
                for worker in new:
                    await worker.ready.wait()
        except (TimeoutError, OSError) as exc:
            self._give_up(new)
            raise GatewayError(f"the gateway's workers were not ready within {READY_TIMEOUT_S:g} s: {exc}") from exc
        if not all(worker in self.workers for worker in new):
            self._give_up(new)
            raise GatewayError("a worker of the gateway ended before it was ready: see its message above")
        self._generation = generation

    def _give_up(self, new: Sequence[WorkerProcess]) -> None:
        for worker in new:
            worker.is_draining = True
            worker.kill()

    async def _renew_for_ever(self) -> None:
        while True:
            await self._renewal.wait()
            self._renewal.clear()
            if self._is_stopping:
                return
            try:
                await self._start_generation(self._generation + 1)
            except GatewayError as exc:
                log.error("reload given up, the old workers serve on: %s", exc)
                continue
            old = [worker for worker in self.workers if worker.generation < self._generation]
            await self._drain(old)
            log.info("reloaded: %d workers replaced", len(old))

    async def _drain(self, workers: Sequence[WorkerProcess]) -> None:
        workers = list(workers)
        for worker in workers:
            worker.is_draining = True
            worker.say({"drain": True})
        ends_s = asyncio.get_running_loop().time() + self._config.drain_timeout_s + 5.0
        while any(worker in self.workers for worker in workers):
            if asyncio.get_running_loop().time() > ends_s:
                for worker in workers:
                    worker.kill()
            await asyncio.sleep(0.02)

    # One worker

    async def _start_worker(self, generation: int) -> WorkerProcess:
        if self._is_stopping:
            raise GatewayError("the gateway is stopping")
        while not self._free_regions:  # Many die while others still drain: wait for one of these.
            await asyncio.sleep(0.05)
        region = self._free_regions.pop()
        ours, theirs = socket.socketpair()
        fds = {"listen_fd": self.listener.fileno(), "channel_fd": theirs.fileno(), "slab_fd": self._slab.fd}
        awaits_table = self._owner.greeting() is not None
        settings = settings_for(self._config, region, self._regions, awaits_table, fds)
        try:
            with theirs:
                process = await asyncio.create_subprocess_exec(
                    sys.executable, "-m", "gateway.worker", settings, pass_fds=tuple(fds.values())
                )
        except BaseException:
            ours.close()
            self._free_regions.append(region)
            raise
        worker = WorkerProcess(region, generation, process)
        self.workers.append(worker)
        self._spawn(self._follow(worker, ours))
        return worker

    async def _follow(self, worker: WorkerProcess, channel: socket.socket) -> None:
        """Take what a worker says until it is gone; then replace it, unless it was sent away or is of no use."""
        reader, worker.writer = await asyncio.open_connection(sock=channel, limit=LINE_BYTES_MOST)
        greeting = self._owner.greeting()
        if greeting is not None:
            worker.say(greeting)
        if worker.is_draining or self._is_stopping:
            worker.say({"drain": True})
        await self._listen(worker, reader)
        await worker.process.wait()
        worker.writer.close()
        self.workers.remove(worker)
        self._owner.left(worker.region)
        self._free_regions.append(worker.region)
        has_served = worker.ready.is_set()
        worker.ready.set()
        if worker.is_draining or self._is_stopping or worker.generation < self._generation:
            return
        log.error("worker %d ended (%s)", worker.process.pid, worker.process.returncode)
        if worker.generation == self._generation:
            await self._replace(has_served)

    async def _listen(self, worker: WorkerProcess, reader: asyncio.StreamReader) -> None:
        with contextlib.suppress(ConnectionError):
            while (line := await reader.readline()).endswith(b"\n"):  # A killed worker's last line may be cut.
                message = json.loads(line)
                if "ready" in message:
                    worker.ready.set()
                if "applied" in message:
                    worker.applied_version = message["applied"]
                self._owner.heard(worker, message)

    async def _replace(self, has_served: bool) -> None:
        self.replaced += 1
        while not self._is_stopping:
            if not has_served:
                await asyncio.sleep(DYING_PAUSE_S)
            try:
                await self._start_worker(self._generation)
                return
            except (OSError, GatewayError) as exc:
                has_served = False
                log.error("a worker could not be started: %s", exc)

    def _spawn(self, coroutine: Coroutine[Any, Any, None]) -> None:
        task = asyncio.get_running_loop().create_task(coroutine)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
