"""The gateway's parent process: owns the listening socket, keeps N workers on it, speaks with the control plane.

No request passes through it. Workers are started as fresh processes and inherit the socket, so none is lost when one of
them goes; one that dies is replaced at once. On SIGHUP new workers are started and, when all are ready, the old ones
drain. On SIGTERM or SIGINT readiness says no, all workers drain, and the last counts are sent.
"""

import asyncio
import contextlib
import json
import logging
import os
import signal
import socket
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

from gateway.config import GatewayConfig, parse_address
from gateway.control import ControlLink
from gateway.counters import Slab
from gateway.errors import GatewayError, ListenError, SlotsExhaustedError
from gateway.ledger import Ledger
from gateway.metrics import Seen, serve_metrics
from gateway.routes import RouteTable, RouteTableError
from gateway.worker import settings_for

READY_TIMEOUT_S = 20.0
REPORT_S = 1.0
APPLY_TIMEOUT_S = 5.0

log = logging.getLogger("sluice.gateway")


class WorkerProcess:
    """A worker as the supervisor sees it."""

    def __init__(self, region: int, process: asyncio.subprocess.Process, writer: asyncio.StreamWriter) -> None:
        self.region = region
        self.process = process
        self.writer = writer
        self.ready = asyncio.Event()
        self.applied_version = -1
        self.is_draining = False

    def __repr__(self) -> str:
        return f"<Worker pid={self.process.pid} region={self.region} table={self.applied_version}>"

    def say(self, message: dict[str, Any]) -> None:
        if not self.writer.is_closing():
            self.writer.write(json.dumps(message).encode() + b"\n")


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


class Supervisor:
    """Runs the gateway until it is told to stop."""

    def __init__(self, config: GatewayConfig, table: RouteTable | None = None) -> None:
        self._config = config
        self._boot = os.urandom(6).hex()
        self._regions = 2 * config.workers + 1
        self._slab = Slab.create(self._regions, config.counter_slots)
        self._ledger = Ledger(self._slab, self._regions, config.counter_slots, config.name, self._boot)
        self._free_regions = list(range(self._regions))
        self._workers: list[WorkerProcess] = []
        self._tasks: set[asyncio.Task[None]] = set()
        self._stopping = asyncio.Event()
        self._slots: list[tuple[str, int, int, str, int]] = []
        self._samples: list[dict[str, Any]] = []
        self._labels: list[dict[str, Any]] = []
        self._reports = 0
        self._replaced = 0
        self._routes_file = Path(config.state_dir) / "routes.json"
        self._table = table if table is not None else self._stored_table()
        self._link = (
            ControlLink(config.control_url, config.name, config.backlog_reports, self.apply)
            if config.control_url
            else None
        )
        self._seen = Seen({}, {}, self._version, 0, 0, False)
        self._listener = open_listener(config.listen, config.backlog)

    @property
    def address(self) -> str:
        host, port = self._listener.getsockname()[:2]
        return f"{host}:{port}"

    @property
    def _version(self) -> int:
        return self._table.version if self._table is not None else -1

    # Life

    async def run(self, on_ready: Callable[["Supervisor"], None]) -> None:
        """Serve until SIGTERM or SIGINT. Raises GatewayError when it cannot start."""
        loop = asyncio.get_running_loop()
        host, port = parse_address(self._config.metrics_listen, "metrics_listen")
        metrics, _ = serve_metrics(host, port, lambda: self._seen)
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self._stopping.set)
        loop.add_signal_handler(signal.SIGHUP, lambda: self._spawn(self._reload()))
        if self._table is not None:
            self._slots = self._ledger.lease(self._table, time.time())
        await self._start_workers()
        reporting = loop.create_task(self._report_for_ever())
        linking = loop.create_task(self._link.run(self._version)) if self._link else None
        on_ready(self)
        await self._stopping.wait()
        await self._drain(list(self._workers))
        reporting.cancel()
        self._report()
        await self._send_last()
        if linking is not None:
            linking.cancel()
        metrics.shutdown()
        metrics.server_close()
        self._listener.close()

    async def _start_workers(self) -> None:
        """Start a full set of workers and wait until each serves. Raises GatewayError, leaving none of them."""
        new = [await self._start_worker() for _ in range(self._config.workers)]
        try:
            async with asyncio.timeout(READY_TIMEOUT_S):
                for worker in new:
                    await worker.ready.wait()
        except TimeoutError as exc:
            for worker in new:
                worker.is_draining = True
                worker.process.kill()
            raise GatewayError(f"the gateway's workers were not ready within {READY_TIMEOUT_S:g} s") from exc

    async def _start_worker(self) -> WorkerProcess:
        region = self._free_regions.pop()
        ours, theirs = socket.socketpair()
        fds = {"listen_fd": self._listener.fileno(), "channel_fd": theirs.fileno(), "slab_fd": self._slab.fd}
        settings = settings_for(self._config, region, self._regions, fds)
        with theirs:
            process = await asyncio.create_subprocess_exec(
                sys.executable, "-m", "gateway.worker", settings, pass_fds=tuple(fds.values())
            )
        reader, writer = await asyncio.open_connection(sock=ours, limit=2**26)
        worker = WorkerProcess(region, process, writer)
        self._workers.append(worker)
        if self._table is not None:
            worker.say(self._table_message(self._table))
        self._spawn(self._listen_to(worker, reader))
        return worker

    def _spawn(self, coroutine: Any) -> None:
        task: asyncio.Task[None] = asyncio.get_running_loop().create_task(coroutine)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _listen_to(self, worker: WorkerProcess, reader: asyncio.StreamReader) -> None:
        """Take what a worker says until it is gone; then replace it if nobody sent it away."""
        with contextlib.suppress(ConnectionError):
            while line := await reader.readline():
                self._hear(worker, json.loads(line))
        await worker.process.wait()
        worker.writer.close()
        self._workers.remove(worker)
        self._ledger.worker_died(worker.region)
        self._report()
        self._ledger.free_region(worker.region)
        self._free_regions.append(worker.region)
        if not worker.is_draining and not self._stopping.is_set():
            self._replaced += 1
            log.error("worker %d died (%s); replaced", worker.process.pid, worker.process.returncode)
            if not worker.ready.is_set():
                await asyncio.sleep(1.0)  # It never served: do not start the next one in a tight loop.
            await self._start_worker()

    def _hear(self, worker: WorkerProcess, message: dict[str, Any]) -> None:
        if "ready" in message:
            worker.ready.set()
        if "applied" in message:
            worker.applied_version = message["applied"]
        self._samples += message.get("samples", ())
        self._labels += message.get("labels", ())

    async def _reload(self) -> None:
        """Replace all workers without refusing a request; the old ones stay when the new ones do not get ready."""
        old = list(self._workers)
        if any(worker.is_draining for worker in old):
            log.warning("a reload is under way already")
            return
        try:
            await self._start_workers()
        except GatewayError as exc:
            log.error("reload given up, the old workers serve on: %s", exc)
            return
        await self._drain(old)
        log.info("reloaded: %d workers replaced", len(old))

    async def _drain(self, workers: list[WorkerProcess]) -> None:
        if self._stopping.is_set():
            for worker in workers:
                worker.say({"unready": True})
            await asyncio.sleep(self._config.ready_to_close_s)
        for worker in workers:
            worker.is_draining = True
            worker.say({"drain": True})
        ends = asyncio.get_running_loop().time() + self._config.drain_timeout_s + 5.0
        while any(worker in self._workers for worker in workers):
            if asyncio.get_running_loop().time() > ends:
                for worker in workers:
                    if worker.process.returncode is None:
                        worker.process.kill()
            await asyncio.sleep(0.02)

    # Routes

    async def apply(self, table: RouteTable) -> None:
        """Put a table in force in all workers, and on disk. Raises RouteTableError when it cannot be."""
        try:
            self._slots = self._ledger.lease(table, time.time())
        except SlotsExhaustedError as exc:
            raise RouteTableError(str(exc)) from exc
        self._table = table
        message = self._table_message(table)
        for worker in self._workers:
            worker.say(message)
        self._store(table)
        ends = asyncio.get_running_loop().time() + APPLY_TIMEOUT_S
        while self._applied_version < table.version and asyncio.get_running_loop().time() < ends:
            await asyncio.sleep(0.005)
        self._report()

    def _table_message(self, table: RouteTable) -> dict[str, Any]:
        return {"table": table.to_json(), "slots": self._slots}

    @property
    def _applied_version(self) -> int:
        serving = [worker.applied_version for worker in self._workers if not worker.is_draining]
        return min(serving, default=-1)

    def _store(self, table: RouteTable) -> None:
        """Keep the table for a restart without control plane; a failing disk costs only that."""
        try:
            self._routes_file.parent.mkdir(parents=True, exist_ok=True)
            staged = self._routes_file.with_suffix(f".{os.getpid()}")
            with staged.open("w") as file:
                json.dump(table.to_json(), file)
                file.flush()
                os.fsync(file.fileno())
            staged.replace(self._routes_file)
        except OSError as exc:
            log.error("the route table could not be kept in %s: %s", self._routes_file, exc)

    def _stored_table(self) -> RouteTable | None:
        try:
            return RouteTable.from_json(json.loads(self._routes_file.read_text()))
        except FileNotFoundError:
            return None
        except (OSError, ValueError) as exc:
            log.error("the stored route table %s is of no use: %s", self._routes_file, exc)
            return None

    # Reports

    async def _report_for_ever(self) -> None:
        while True:
            await asyncio.sleep(REPORT_S)
            self._report()

    def _report(self) -> None:
        """Read the counters and queue what changed, with the samples and labels that came."""
        now = time.time()
        windows = self._ledger.read(now)
        in_flight = self._ledger.in_flight()
        samples, self._samples = self._samples, []
        labels, self._labels = self._labels, []
        self._seen = Seen(
            dict(self._ledger.totals), in_flight, self._version, len(self._workers), self._replaced,
            self._link is not None and self._link.is_reached, self._link.dropped_reports if self._link else 0,
        )  # fmt: skip
        if self._link is None:
            return
        self._reports += 1
        self._link.report(
            {
                "gateway": self._config.name,
                "boot": self._boot,
                "sequence": self._reports,
                "at": now,
                "applied_version": self._applied_version,
                "in_flight": in_flight,
                "windows": [window.to_json() for window in windows],
                "samples": samples,
                "labels": labels,
            }
        )

    async def _send_last(self) -> None:
        """Give the last counts a moment to reach the control plane."""
        ends = asyncio.get_running_loop().time() + 3.0
        while self._link is not None and self._link.is_reached and asyncio.get_running_loop().time() < ends:
            if not self._link.has_backlog:
                return
            await asyncio.sleep(0.05)


async def serve(config: GatewayConfig, routes: Path | None, on_ready: Callable[[Supervisor], None]) -> None:
    """Run a gateway. `routes` is a static route table's file, for a gateway without a control plane.

    Raises:
        GatewayError: it cannot start; nothing is left running.
    """
    table = None
    if routes is not None:
        try:
            table = RouteTable.from_json(json.loads(routes.read_text()))
        except (OSError, ValueError) as exc:
            raise GatewayError(f"the route table {routes} cannot be used: {exc}") from exc
        config = replace(config, control_url="")
    await Supervisor(config, table).run(on_ready)
