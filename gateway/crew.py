"""The gateway's worker processes: started, replaced when they die, renewed without a gap, drained.

Knows generations and the listening socket they share. Does not know routes, counts or the control plane: what a worker
says goes to `Owner.heard`, that one is gone to `Owner.left`. There are never more than two generations.
"""

import asyncio
import contextlib
import logging
import signal
import socket
from collections.abc import Coroutine, Iterable, Mapping, Sequence
from typing import Any, Protocol

from gateway.channel import Message
from gateway.config import GatewayConfig, parse_address
from gateway.errors import GatewayError, ListenError
from gateway.worker_process import Post, WorkerProcess

DYING_PAUSE_S = 1.0
"""Before a worker that never served is replaced: not in a tight loop."""
KILL_AFTER_S = 5.0
"""How much longer than its own limit a worker may drain."""

log = logging.getLogger("sluice.gateway")


class Owner(Protocol):
    """Whom the crew tells, and who knows the counters."""

    def greeting(self) -> tuple[bytes, bool]:
        """What a new worker is told first, and whether a route table is in it: it serves when it has that."""

    def region(self) -> int:
        """A region of the counters, for a new worker."""

    def heard(self, worker: WorkerProcess, message: Message) -> None: ...

    def left(self, region: int) -> None:
        """A worker is gone: its region is read for the last time, and may be used again."""


def open_listener(address: str, backlog: int, setting: str = "listen") -> socket.socket:
    """A listening socket. Raises ListenError, which names the setting, when the address is in use or not ours."""
    host, port = parse_address(address, setting)
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listener = socket.socket(family, socket.SOCK_STREAM)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind((host, port))
        listener.listen(backlog)
    except OSError as exc:
        listener.close()
        raise ListenError(
            f"the gateway cannot listen on {address} ({exc.strerror}): stop what uses it, or choose another {setting}"
        ) from exc
    listener.setblocking(False)
    return listener


class Crew:
    """All workers of a gateway, on one listening socket."""

    def __init__(self, config: GatewayConfig, owner: Owner, slab_fd: int, listener: socket.socket) -> None:
        self._config = config
        self._owner = owner
        self._slab_fd = slab_fd
        self._is_stopping = False
        self._tasks: set[asyncio.Task[None]] = set()
        self.listener = listener
        self.workers: list[WorkerProcess] = []
        self.replaced = 0
        self.generation = -1
        asyncio.get_running_loop().add_signal_handler(signal.SIGCHLD, self._reap)

    def write(self, lines: bytes) -> None:
        for worker in self.workers:
            worker.line.write(lines)

    def say(self, message: Message) -> None:
        for worker in self.workers:
            worker.line.say(message)

    @property
    def applied_version(self) -> int:
        """The oldest table in a worker that serves; -1 when one has none yet."""
        return min((worker.applied_version for worker in self.workers if not worker.is_draining), default=-1)

    # Generations

    async def renew(self, config: GatewayConfig) -> int:
        """Start a new generation and wait until all of it serve; then send the old ones away, how many is returned.

        Raises GatewayError when it does not serve in time; then none of it is left, and the old ones serve on.
        """
        new: list[WorkerProcess] = []
        try:
            async with asyncio.timeout(config.ready_timeout_s):
                for place in range(config.workers):
                    new.append(self._start_worker(config, self.generation + 1, place))
                for worker in new:
                    await worker.has_begun.wait()
        except (TimeoutError, OSError) as exc:
            self._give_up(new)
            raise GatewayError(f"the new workers were not ready within {config.ready_timeout_s:g} s: {exc}") from exc
        except GatewayError:
            self._give_up(new)
            raise
        if not all(worker.exit_code is None for worker in new):
            self._give_up(new)
            raise GatewayError("a new worker ended before it was ready: see its message in the log")
        self._config = config
        self.generation += 1
        old = [worker for worker in self.workers if worker.post.generation < self.generation]
        for worker in old:
            worker.drain()
        return len(old)

    async def drained(self) -> None:
        """Wait until only the newest generation is left; who takes too long to end is killed."""
        await self._until_gone([worker for worker in self.workers if worker.is_draining])

    async def stop(self) -> None:
        """Say unready, wait as configured, then drain all."""
        self._is_stopping = True
        self.say({"unready": True})
        await asyncio.sleep(self._config.ready_to_close_s)
        self.listener.close()
        for worker in self.workers:
            worker.drain()
        await self._until_gone(self.workers)
        for task in self._tasks:
            task.cancel()

    def kill(self) -> None:
        for worker in self.workers:
            worker.kill()

    def _give_up(self, new: Sequence[WorkerProcess]) -> None:
        """Those that serve already may have taken requests: they are drained."""
        for worker in new:
            worker.drain()
            if not worker.is_ready:
                worker.kill()

    async def _until_gone(self, workers: Iterable[WorkerProcess]) -> None:
        left, loop = list(workers), asyncio.get_running_loop()
        ends_s = loop.time() + self._config.drain_timeout_s + KILL_AFTER_S
        while left := [worker for worker in left if worker.exit_code is None]:
            if loop.time() > ends_s:
                for worker in left:
                    worker.kill()
            await asyncio.sleep(0.02)

    # One worker

    def _start_worker(self, config: GatewayConfig, generation: int, place: int) -> WorkerProcess:
        """Raises OSError, and GatewayError when the gateway is stopping."""
        if self._is_stopping:
            raise GatewayError("the gateway is stopping")
        post = Post(self._owner.region(), generation, place)
        fds = {"listen_fd": self.listener.fileno(), "slab_fd": self._slab_fd}
        greeting, has_table = self._owner.greeting()
        try:
            worker = WorkerProcess.start(config, post, fds, has_table, self._owner.heard)
        except BaseException:
            self._owner.left(post.region)
            raise
        worker.line.write(greeting)
        self.workers.append(worker)
        return worker

    def _reap(self) -> None:
        """See who is gone."""
        for worker in [worker for worker in self.workers if worker.reap()]:
            self.workers.remove(worker)
            self._owner.left(worker.post.region)
            if worker.is_draining or self._is_stopping or worker.post.generation < self.generation:
                continue
            log.error("worker %d ended (%s)", worker.pid, worker.exit_code)
            if worker.post.generation == self.generation:
                self.replaced += 1
                self._spawn(self._replace(worker.post, worker.is_ready))

    async def _replace(self, post: Post, has_served: bool) -> None:
        while not self._is_stopping:
            if not has_served:
                await asyncio.sleep(DYING_PAUSE_S)
            if post.generation != self.generation:
                return
            with contextlib.suppress(GatewayError):
                try:
                    self._start_worker(self._config, post.generation, post.place)
                    return
                except OSError as exc:
                    has_served = False
                    log.error("a worker could not be started: %s", exc)

    def _spawn(self, coroutine: Coroutine[Any, Any, None]) -> None:
        task = asyncio.get_running_loop().create_task(coroutine)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    # Handed over to a new supervisor

    def to_json(self) -> dict[str, Any]:
        return {
            "generation": self.generation,
            "places": self._config.workers,
            "replaced": self.replaced,
            "workers": [worker.to_json() for worker in self.workers],
        }

    def restore(self, data: Mapping[str, Any]) -> None:
        """Go on with the workers of the supervisor before this one; who is gone meanwhile is replaced."""
        self.generation, self.replaced = data["generation"], data["replaced"]
        self.workers = [WorkerProcess.adopt(worker, self._owner.heard) for worker in data["workers"]]
        there = {worker.post.place for worker in self.workers if worker.post.generation == self.generation}
        for place in set(range(data["places"])) - there:  # It had died, and its successor had not been started yet.
            self._spawn(self._replace(Post(-1, self.generation, place), True))
        self._reap()
