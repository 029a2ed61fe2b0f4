"""One worker process: listens on the shared sockets, takes route tables, ticks, drains.

Started by the supervisor as `python -m gateway.worker SETTINGS` with the listening socket, its end of the channel and
the counters inherited as file descriptors.
"""

import asyncio
import contextlib
import gc
import json
import logging
import os
import signal
import socket
import sys
from typing import Any

import uvloop

from gateway.channel import Channel
from gateway.config import GatewayConfig
from gateway.counters import region_of
from gateway.dispatch import Dispatcher
from gateway.front import Front
from gateway.http1 import ClientConnection
from gateway.lanes import Room
from gateway.live import Servers, Staging
from gateway.memory import ByteLedger, keep_freed_memory

log = logging.getLogger("sluice.gateway")

TICK_S = 0.05
LOOK_EVERY_S = 0.5
"""How often connections are looked at for those that have had their time; in draining with every tick."""
LOOKED_AT, CUT_AT_ONCE = 500, 8
"""Connections that are looked at, and closed, in one turn of the loop."""
GC_THRESHOLDS = (10_000, 50, 1000)
"""A request leaves almost no cycles behind, so looking for them can wait; and what stays is frozen, not looked at. The
first is what a table of thousands makes a worker look at in one go: 0.4 ms."""
FREEZE_AFTER = 500
"""Routes that were asked for the first time, after which what is known is frozen again."""


class Worker:
    """The process: sockets, channel, ticks, draining."""

    def __init__(self, settings: dict[str, Any]) -> None:
        self._config = config = GatewayConfig(**settings["config"])
        self._settings = settings
        cells = region_of(settings["slab_fd"], settings["region"], config.counter_slots)
        self._servers = Servers(config.connect_timeout_s)
        room = Room(config.release_in_flight, config.release_waiting, config.wait_timeout_s)
        self._staging = Staging(cells, self._servers, room)
        self._frozen = 0
        self._second = self._looked = 0.0
        """When state was told last, and when late clients were looked for."""
        self._stopping = asyncio.Event()
        self._has_table = asyncio.Event()
        if not settings["awaits_table"]:
            self._has_table.set()
        self._channel = Channel(self.command, self.supervisor_gone)
        self._memory = ByteLedger(config.held_bytes or ByteLedger.share_of_memory(config.workers))
        self._dispatcher = Dispatcher(config, self._channel, self._memory)
        self._front = Front(self._dispatcher, config, self._memory)

    async def run(self) -> None:
        loop = asyncio.get_running_loop()
        for number in (signal.SIGINT, signal.SIGHUP):
            signal.signal(number, signal.SIG_IGN)  # The supervisor speaks for us all.
        loop.add_signal_handler(signal.SIGTERM, self.stop)
        channel = socket.socket(fileno=self._settings["channel_fd"])
        await loop.create_connection(lambda: self._channel, sock=channel)
        await self._has_table.wait()
        listener = socket.socket(fileno=self._settings["listen_fd"])
        listener.setblocking(False)
        with contextlib.suppress(OSError, AttributeError):  # Linux has it; who is accepted inherits it.
            listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_NOTSENT_LOWAT, self._config.unsent_bytes)
        last_look = listener.dup()
        server = await loop.create_server(self._accept, sock=listener, backlog=self._config.backlog)
        self._channel.say({"ready": True})
        ticking = loop.create_task(self._tick())
        await self._stopping.wait()
        await self._drain(server, last_look)
        ticking.cancel()
        self._tell_state()
        self._channel.flush()
        if self._channel.transport is not None:
            self._channel.transport.close()
        await asyncio.sleep(0)

    def _accept(self) -> ClientConnection:
        return ClientConnection(self._front)

    def stop(self) -> None:
        self._stopping.set()

    def supervisor_gone(self) -> None:
        """Nobody would replace or stop this worker any more."""
        self._dispatcher.is_ready = False
        self.stop()
        self._has_table.set()

    def command(self, message: dict[str, Any]) -> None:
        if "takes_labels" in message:
            self._channel.takes_labels = message["takes_labels"]
        if "stage" in message:
            self._staging.stage(message["stage"])
        elif "commit" in message:
            self._commit(message["commit"])
        elif "retire" in message:
            for address, is_mirror in message["retire"]:
                self._servers.retire(address, is_mirror)
        elif "unready" in message:
            self._dispatcher.is_ready = False
        elif "drain" in message:
            self.stop()

    def _commit(self, version: int) -> None:
        """Put what was staged in force, all at once."""
        self._dispatcher.table = self._staging.commit(version)
        self._dispatcher.is_ready = True
        self._channel.say({"applied": version})
        self._has_table.set()

    async def _tick(self) -> None:
        while True:
            await asyncio.sleep(TICK_S)
            try:
                await self._look_after(asyncio.get_running_loop().time())
            except Exception:  # Without ticks nothing would ever be cut.
                log.exception("a tick failed; the worker goes on")

    async def _look_after(self, now: float) -> None:
        is_new_second = now - self._second >= 1.0
        if is_new_second:
            self._second = now
            self._tell_state()
            self._dispatcher.next_second(self._config.samples_per_s if self._config.control_url else 0)
            if self._staging.made - self._frozen >= FREEZE_AFTER:
                self._frozen = self._staging.made
                gc.freeze()
        self._channel.flush()
        self._staging.sweep()
        self._dispatcher.expire()
        self._front.is_tight = self._memory.is_tight
        for number, connection in enumerate(self._front.tick(), 1):
            connection.tick()
            if number % CUT_AT_ONCE == 0:
                await asyncio.sleep(0)
        if now - self._looked >= LOOK_EVERY_S or self._stopping.is_set():
            self._looked = now
            await self._cut_late_clients(now)

    async def _cut_late_clients(self, now_s: float) -> None:
        """Close who has had his time. Many may be late at once: other requests get their turns between them."""
        cut = 0
        connections = list(self._front.connections)
        for first in range(0, len(connections), LOOKED_AT):
            for connection in connections[first : first + LOOKED_AT]:
                if connection.deadline_s <= now_s and not connection.is_busy:
                    connection.expire()
                    cut += 1
                    if cut % CUT_AT_ONCE == 0:
                        await asyncio.sleep(0)
            await asyncio.sleep(0)

    def _tell_state(self) -> None:
        gauges, counted = self._dispatcher.state()
        front = self._front
        gauges |= {"connections": len(front.connections), "held_bytes": self._memory.held_bytes}
        counted |= {"accepted": front.accepted}
        refused = {str(status): number for status, number in front.refused.items()}
        self._channel.say({"gauges": gauges, "counted": counted, "refused": refused})
        notes = self._dispatcher.notes.take()
        if notes and not self._channel.is_full:
            self._channel.say({"notes": notes})

    async def _drain(self, server: asyncio.Server, listener: socket.socket) -> None:
        """Stop accepting, answer what is in flight or still comes within the linger time, then close."""
        loop = asyncio.get_running_loop()
        server.close()
        await self._accept_waiting(listener)
        self._front.is_draining = True
        for connection in self._front.connections:
            connection.drain()
        ends_s = loop.time() + self._config.drain_timeout_s
        while (self._front.connections or self._dispatcher.in_flight) and loop.time() < ends_s:
            await asyncio.sleep(TICK_S)  # The ticks close who has had his time.
        for connection in list(self._front.connections):
            connection.abort()

    async def _accept_waiting(self, listener: socket.socket) -> None:
        """Take the connections that the kernel made but nobody accepted: closing the last listener would reset them."""
        loop = asyncio.get_running_loop()
        with listener, contextlib.suppress(OSError):
            while True:
                client, _ = listener.accept()
                client.setblocking(False)
                await loop.connect_accepted_socket(self._accept, client)


def main() -> None:
    settings = json.loads(sys.argv[1])
    keep_freed_memory()
    cores = settings["config"]["cpu_affinity"]
    if cores is not False:
        chosen = sorted(os.sched_getaffinity(0)) if cores is True else cores
        os.sched_setaffinity(0, {chosen[settings["place"] % len(chosen)]})

    async def run() -> None:
        worker = Worker(settings)
        gc.collect()
        gc.freeze()
        gc.set_threshold(*GC_THRESHOLDS)
        await worker.run()

    uvloop.run(run())


if __name__ == "__main__":
    main()
