"""The gateway's parent process: puts route tables in force, reads the counters, speaks with the control plane.

No request passes through it. On SIGHUP it reads its settings again and its workers (`crew`) are renewed; on SIGUSR2 it
becomes the code on disk first, in place (`handover`); on SIGTERM or SIGINT readiness says no, all workers drain, and
the last counts are sent.
"""

import asyncio
import gc
import logging
import os
import resource
import signal
import socket
import time
from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from gateway import handover
from gateway.aside import threads
from gateway.channel import Message
from gateway.config import GatewayConfig
from gateway.control import ControlLink
from gateway.counters import Slab
from gateway.crew import Crew, open_listener
from gateway.errors import GatewayError
from gateway.ledger import Ledger
from gateway.metrics import serve_metrics
from gateway.notes import NoteKeeper
from gateway.presence import Presence
from gateway.reports import Reporter
from gateway.routes import RouteTable
from gateway.tables import TableInForce
from gateway.watch import RoutesFile
from gateway.worker import GC_THRESHOLDS
from gateway.worker_process import WorkerProcess

SEND_LAST_S = 3.0
READING_SHARE = 0.03
"""What reading counters may take of a core: with ten thousand busy models, windows are longer than a second."""
NEEDS_RESTART = ("listen", "metrics_listen", "control_url", "state_dir", "name", "counter_slots", "backlog_reports")
"""Settings that a reload leaves as they are."""

log = logging.getLogger("sluice.gateway")


class Supervisor:
    """Runs the gateway until it is told to stop (crew.Owner). `load` reads its settings, now and for each reload."""

    def __init__(self, load: Callable[[], GatewayConfig], routes: Path | None, state: dict[str, Any] | None) -> None:
        self._load = load
        config = load()
        self._config = config if state is None else kept(GatewayConfig(**state["config"]), config)[0]
        config, self._state = self._config, state
        self._boot = state["boot"] if state else os.urandom(6).hex()
        self._began_at = state["began_at"] if state else time.time()
        self._stopping = asyncio.Event()
        self._asked = asyncio.Event()
        self._is_upgrade_asked = False
        self._numbers = {"asked": 0, "done": 0}
        self._answers = 0
        """How many of those asked for the reload or upgrade under way answers."""
        self._outcome: dict[str, Any] = {}
        self._running: list[asyncio.Task[None]] = []
        self._file = RoutesFile(routes) if routes is not None else None
        self._open(config, state)
        self._ledger = Ledger(self._slab, config.name, self._boot)
        self._tables = TableInForce(self._ledger, None if routes else Path(config.state_dir) / "routes.json")
        self._link = (
            ControlLink(config.control_url, config.name, config.backlog_reports, self._apply)
            if config.control_url and routes is None
            else None
        )
        self._notes = NoteKeeper(config)
        self._reporter = Reporter(config.name, self._boot, self._ledger, self._link)
        self._crew = Crew(config, self, self._slab.fd, self._listener)

    def _open(self, config: GatewayConfig, state: dict[str, Any] | None) -> None:
        """Whatever is held open: anew, or as it was handed over."""
        if state is None:
            self._listener = open_listener(config.listen, config.backlog)
            self._metrics = open_listener(config.metrics_listen, 128, "metrics_listen")
            self._metrics.setblocking(True)
            self._slab = Slab.create(1, config.counter_slots)
            self._presence = Presence.take(Path(config.state_dir))
        else:
            listener, metrics, slab, presence = state["fds"]
            self._listener, self._metrics = socket.socket(fileno=listener), socket.socket(fileno=metrics)
            self._slab = Slab(slab, 1, config.counter_slots)
            self._presence = Presence(Path(config.state_dir), presence)
        host, port = self._listener.getsockname()[:2]
        self.address = f"{host}:{port}"
        if self._presence.fd < 0:
            log.warning("another gateway has this state_dir: `sluice gateway reload` finds that one; give --state-dir")

    # Life

    async def run(self, on_ready: Callable[["Supervisor"], None]) -> None:
        """Serve until SIGTERM or SIGINT. Raises GatewayError when it cannot start."""
        loop = asyncio.get_running_loop()
        loop.set_default_executor(threads())
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self._stopping.set)
        loop.add_signal_handler(signal.SIGHUP, self._ask, False)
        loop.add_signal_handler(signal.SIGUSR2, self._ask, True)
        if self._state is None:
            await self._begin()
        else:
            self._restore(self._state)
        self._report()
        handover.take_signals()
        metrics = serve_metrics(self._metrics, lambda: self._reporter.seen)
        self._start_tasks()
        renewing = loop.create_task(self._renew_for_ever(has_been_upgraded=self._state is not None))
        self._state = None
        gc.collect()
        gc.freeze()
        gc.set_threshold(*GC_THRESHOLDS)
        on_ready(self)
        await self._stopping.wait()
        renewing.cancel()
        await self._crew.stop()
        await self._end_tasks(but=self._link)
        self._report()
        await self._send_last()
        await self._end_tasks()
        metrics.shutdown()
        metrics.server_close()
        self._presence.leave()
        self._notes.close()

    async def _begin(self) -> None:
        table = self._file.read_first() if self._file is not None else self._tables.stored()
        if table is not None:
            self._tables.begin(table)
        try:
            await self._crew.renew(self._config)
        except GatewayError:
            self._crew.kill()
            raise

    def _start_tasks(self) -> None:
        loop = asyncio.get_running_loop()
        self._running = [loop.create_task(self._report_for_ever(), name="reports")]
        if self._link is not None:
            self._running.append(loop.create_task(self._link.run(self._tables.version), name="link"))
        if self._file is not None:
            watching = self._file.watch(lambda: self._tables.table, self._apply)
            self._running.append(loop.create_task(watching, name="routes"))

    async def _end_tasks(self, but: ControlLink | None = None) -> None:
        ending = [task for task in self._running if but is None or task.get_name() != "link"]
        for task in ending:
            task.cancel()
        await asyncio.gather(*ending, return_exceptions=True)
        self._running = [task for task in self._running if task not in ending]

    async def _send_last(self) -> None:
        """Give the last counts a moment to reach the control plane."""
        ends = asyncio.get_running_loop().time() + SEND_LAST_S
        while self._link is not None and self._link.is_reached and asyncio.get_running_loop().time() < ends:
            if not self._link.has_backlog:
                return
            await asyncio.sleep(0.05)

    # The crew's owner

    def greeting(self) -> tuple[bytes, bool]:
        table = self._tables.greeting()
        takes_labels = b'{"takes_labels": false}\n' if not self._reporter.takes_labels else b""
        return takes_labels + table, bool(table)

    def region(self) -> int:
        return self._ledger.take_region()

    def heard(self, worker: WorkerProcess, message: Message) -> None:
        self._reporter.heard(worker.post.region, message)
        if "notes" in message:
            self._notes.take(message["notes"])

    def left(self, region: int) -> None:
        self._ledger.worker_died(region)
        self._reporter.states.left(region)
        self._report()
        self._ledger.free_region(region)

    # Routes and reports

    async def _apply(self, table: RouteTable) -> None:
        """Raises RouteTableError when it cannot be put in force."""
        await self._tables.apply(table, self._crew)
        self._report()

    @property
    def _refused(self) -> str:
        return self._file.refused if self._file is not None else self._link.refused if self._link is not None else ""

    async def _report_for_ever(self) -> None:
        pause_s = self._config.report_every_s
        while True:
            await asyncio.sleep(pause_s)
            began_s = time.process_time()
            self._report()
            took_s = time.process_time() - began_s
            pause_s = max(self._config.report_every_s, took_s / READING_SHARE)

    def _report(self) -> None:
        self._reporter.report(self._crew, self._tables.version, self._refused)
        self._say()

    def _say(self) -> None:
        workers = [
            {"pid": one.pid, "generation": one.post.generation, "state": one.state, "table": one.applied_version}
            for one in self._crew.workers
        ]
        self._presence.say(
            {
                "pid": os.getpid(), "name": self._config.name, "boot": self._boot, "began_at": self._began_at,
                "listen": self.address, "metrics_listen": self._config.metrics_listen,
                "generation": self._crew.generation, "workers": workers, "workers_replaced": self._crew.replaced,
                "table_version": self._crew.applied_version, "table_refused": self._refused,
                "control_plane": self._config.control_url if self._link is not None else None,
                "control_plane_is_reached": self._link is not None and self._link.is_reached,
                **self._numbers, "outcome": self._outcome,
            }
        )  # fmt: skip

    # Reloads and upgrades

    def _ask(self, upgrade: bool) -> None:
        """Ask for new workers in place of the old; while that is under way, for once more after it."""
        self._numbers["asked"] += 1
        self._is_upgrade_asked |= upgrade
        self._asked.set()
        self._say()

    async def _renew_for_ever(self, has_been_upgraded: bool) -> None:
        if has_been_upgraded:
            await self._renew("upgrade", self._config, "")
        while True:
            await self._crew.drained()
            await self._asked.wait()
            self._asked.clear()
            self._answers = self._numbers["asked"]
            upgrade, self._is_upgrade_asked = self._is_upgrade_asked, False
            try:
                await (self._upgrade() if upgrade else self._reload())
            except Exception:
                log.exception("a reload failed")
                self._done("upgrade" if upgrade else "reload", False, "it failed: see the log")

    async def _reload(self) -> None:
        try:
            config, note = kept(self._config, self._load())
        except GatewayError as exc:
            self._done("reload", False, f"reload given up, the old workers serve on: {exc}")
            return
        await self._renew("reload", config, note)

    async def _renew(self, what: str, config: GatewayConfig, note: str) -> None:
        notes = before = self._notes
        try:
            notes = before.renewed(config)
            old = await self._crew.renew(config)
        except GatewayError as exc:
            if notes is not before:
                notes.close()
            self._done(what, False, f"{what} given up, the old workers serve on: {exc}")
            return
        self._config, self._notes = config, notes
        if notes is not before:
            await asyncio.to_thread(before.close)
        done = "reloaded" if what == "reload" else "upgraded"
        self._done(what, True, f"{done}: {config.workers} new workers serve, {old} old ones drain{note}")

    async def _upgrade(self) -> None:
        """Become the code on disk; the new image renews the workers. Returns only if that cannot be."""
        why = await handover.why_not()
        if not why:
            await asyncio.to_thread(self._notes.flush)
            async with self._tables.changing:
                await self._end_tasks()
                self._report()
                try:
                    handover.become(self._handed_over(), self._fds)
                except OSError as exc:
                    why = f"it cannot be started: {exc}"
                self._start_tasks()
        self._done("upgrade", False, f"upgrade given up, nothing was changed: {why}")

    def _done(self, what: str, ok: bool, text: str) -> None:
        log.log(logging.INFO if ok else logging.ERROR, text)
        self._numbers["done"] = self._answers
        self._outcome = {"what": what, "ok": ok, "text": text, "at": time.time()}
        self._say()

    @property
    def _fds(self) -> list[int]:
        """Our own open descriptors, then the workers' lines."""
        own = [self._listener.fileno(), self._metrics.fileno(), self._slab.fd, self._presence.fd]
        return own + [worker.line.fd for worker in self._crew.workers]

    def _handed_over(self) -> dict[str, Any]:
        return {
            "config": asdict(self._config),
            "boot": self._boot,
            "began_at": self._began_at,
            "fds": self._fds[:4],
            "lines": self._fds[4:],
            "numbers": self._numbers,
            "answers": self._answers,
            "ledger": self._ledger.to_json(),
            "tables": self._tables.to_json(),
            "reporter": self._reporter.to_json(),
            "link": self._link.to_json() if self._link is not None else None,
            "crew": self._crew.to_json(),
        }

    def _restore(self, state: dict[str, Any]) -> None:
        self._numbers, self._answers = state["numbers"], state["answers"]
        self._ledger.restore(state["ledger"])
        self._tables.restore(state["tables"])
        self._reporter.restore(state["reporter"])
        if self._link is not None and state["link"] is not None:
            self._link.restore(state["link"])
        self._crew.restore(state["crew"])


def kept(before: GatewayConfig, after: GatewayConfig) -> tuple[GatewayConfig, str]:
    """`after`, but what cannot change as it was `before`; and a note that names what that is."""
    stay = {name: getattr(before, name) for name in NEEDS_RESTART if getattr(before, name) != getattr(after, name)}
    if not stay:
        return after, ""
    told = ", ".join(f"{name} ({value}, not {getattr(after, name)})" for name, value in stay.items())
    note = f"; needs a restart, so it stays as it is: {told}"
    return replace(after, **stay), note


def raise_file_limit() -> None:
    """Each connection takes a file: allow as many as we may (the workers inherit it)."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


async def serve(load: Callable[[], GatewayConfig], routes: Path | None, on_ready: Callable[[Supervisor], None]) -> None:
    """Run a gateway. `routes` is a static route table's file, for a gateway without a control plane.

    Raises:
        GatewayError: it cannot start; nothing is left running.
    """
    raise_file_limit()
    await Supervisor(load, routes, handover.handed_over()).run(on_ready)
