"""The gateway's parent process: puts route tables in force, reads the counters, speaks with the control plane.

No request passes through it. On SIGHUP its workers (`crew`) are renewed; on SIGTERM or SIGINT readiness says no, all
workers drain, and the last counts are sent.
"""

import asyncio
import json
import logging
import os
import signal
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

from gateway.config import GatewayConfig, parse_address
from gateway.control import ControlLink
from gateway.counters import Slab
from gateway.crew import Crew, WorkerProcess
from gateway.errors import GatewayError, SlotsExhaustedError
from gateway.ledger import Ledger
from gateway.metrics import Seen, serve_metrics
from gateway.routes import RouteTable, RouteTableError

APPLY_TIMEOUT_S = 5.0
SEND_LAST_S = 3.0

log = logging.getLogger("sluice.gateway")


class Supervisor:
    """Runs the gateway until it is told to stop (crew.Owner)."""

    def __init__(self, config: GatewayConfig, table: RouteTable | None = None) -> None:
        self._config = config
        self._boot = os.urandom(6).hex()
        regions = 2 * config.workers + 1  # Two generations while a reload drains, and one to spare.
        slab = Slab.create(regions, config.counter_slots)
        self._ledger = Ledger(slab, regions, config.counter_slots, config.name, self._boot)
        self._crew = Crew(config, self, slab, regions)
        self._stopping = asyncio.Event()
        self._slots: list[tuple[str, int, int, str, int]] = []
        self._samples: list[dict[str, Any]] = []
        self._labels: list[dict[str, Any]] = []
        self._reports = 0
        self._takes_labels = True
        self._routes_file = Path(config.state_dir) / "routes.json"
        self._table = table if table is not None else self._stored_table()
        self._link = (
            ControlLink(config.control_url, config.name, config.backlog_reports, self.apply)
            if config.control_url
            else None
        )
        self._seen = Seen({}, {}, self._version, 0, 0, False)

    @property
    def address(self) -> str:
        host, port = self._crew.listener.getsockname()[:2]
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
        loop.add_signal_handler(signal.SIGHUP, self._crew.renew)
        if self._table is not None:
            self._slots = self._ledger.lease(self._table, time.time())
        await self._crew.start()
        reporting = loop.create_task(self._report_for_ever())
        linking = loop.create_task(self._link.run(self._version)) if self._link else None
        on_ready(self)
        await self._stopping.wait()
        await self._crew.stop()
        reporting.cancel()
        self._report()
        await self._send_last()
        if linking is not None:
            linking.cancel()
        metrics.shutdown()
        metrics.server_close()

    # The crew's owner

    def greeting(self) -> dict[str, Any] | None:
        return self._table_message(self._table) if self._table is not None else None

    def heard(self, worker: WorkerProcess, message: dict[str, Any]) -> None:
        self._samples += message.get("samples", ())
        self._labels += message.get("labels", ())

    def left(self, region: int) -> None:
        self._ledger.worker_died(region)
        self._report()
        self._ledger.free_region(region)

    # Routes

    async def apply(self, table: RouteTable) -> None:
        """Put a table in force in all workers, and on disk. Raises RouteTableError when it cannot be."""
        try:
            self._slots = self._ledger.lease(table, time.time())
        except SlotsExhaustedError as exc:
            raise RouteTableError(str(exc)) from exc
        self._table = table
        self._crew.say(self._table_message(table))
        self._store(table)
        ends = asyncio.get_running_loop().time() + APPLY_TIMEOUT_S
        while self._crew.applied_version != table.version and asyncio.get_running_loop().time() < ends:
            await asyncio.sleep(0.005)
        self._report()

    def _table_message(self, table: RouteTable) -> dict[str, Any]:
        return {"table": table.to_json(), "slots": self._slots, "takes_labels": self._takes_labels}

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
            await asyncio.sleep(self._config.report_every_s)
            self._report()

    def _report(self) -> None:
        """Read the counters and queue what changed, with the samples and labels that came."""
        now = time.time()
        windows = self._ledger.read(now, self._crew.applied_version == self._version)
        in_flight = self._ledger.in_flight()
        samples, self._samples = self._samples, []
        labels, self._labels = self._labels, []
        self._seen = Seen(
            dict(self._ledger.totals), in_flight, self._version, len(self._crew.workers), self._crew.replaced,
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
                "applied_version": self._crew.applied_version,
                "in_flight": in_flight,
                "refused": self._link.refused,
                "windows": [window.to_json() for window in windows],
                "samples": samples,
                "labels": labels,
            }
        )
        if self._link.takes_labels is not self._takes_labels:
            self._takes_labels = self._link.takes_labels
            self._crew.say({"takes_labels": self._takes_labels})

    async def _send_last(self) -> None:
        """Give the last counts a moment to reach the control plane."""
        ends = asyncio.get_running_loop().time() + SEND_LAST_S
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
