"""One worker process: listens on the shared sockets, takes route tables, ticks, drains.

Started by the supervisor as `python -m gateway.worker SETTINGS` with the listening socket, its end of the channel and
the counters inherited as file descriptors.
"""

import asyncio
import contextlib
import json
import signal
import socket
import sys
from dataclasses import asdict
from typing import Any

import uvloop

from gateway.channel import Channel
from gateway.config import GatewayConfig
from gateway.counters import Slab, Slot
from gateway.dispatch import Dispatcher
from gateway.heads import AnswerReader
from gateway.http1 import ClientConnection, Front
from gateway.lanes import Room
from gateway.live import LiveTable, SlotKey
from gateway.memory import ByteLedger
from gateway.routes import RouteTable
from gateway.windows import Role

TICK_S = 0.05


class Worker:
    """The process: sockets, channel, ticks, draining."""

    def __init__(self, settings: dict[str, Any]) -> None:
        self._config = GatewayConfig(**settings["config"])
        self._settings = settings
        self._slab = Slab(settings["slab_fd"], settings["regions"], self._config.counter_slots)
        self._cells = self._slab.region(settings["region"])
        self._stopping = asyncio.Event()
        self._has_table = asyncio.Event()
        if not settings["awaits_table"]:
            self._has_table.set()
        self._channel = Channel(self.command, self.supervisor_gone)
        self._memory = memory = ByteLedger(
            self._config.held_bytes or ByteLedger.share_of_memory(self._config.workers)
        )
        self._dispatcher = Dispatcher(self._config, self._channel, memory)
        self._front = Front(self._dispatcher, self._config, memory)
        config = self._config
        self._room = Room(config.release_in_flight, config.release_waiting, config.wait_timeout_s)
        self._answers = AnswerReader()

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
        last_look = listener.dup()
        server = await loop.create_server(self._accept, sock=listener, backlog=self._config.backlog)
        self._channel.say({"ready": True})
        ticking = loop.create_task(self._tick())
        await self._stopping.wait()
        await self._drain(server, last_look)
        ticking.cancel()
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
        if "table" in message:
            self._apply(message)
        elif "unready" in message:
            self._dispatcher.is_ready = False
        elif "drain" in message:
            self.stop()

    def _apply(self, message: dict[str, Any]) -> None:
        table = RouteTable.from_json(message["table"])
        slots: dict[SlotKey, Slot] = {
            (model, revision, release, Role(role)): Slot(self._cells, index)
            for model, revision, release, role, index in message["slots"]
        }
        self._dispatcher.table = LiveTable(
            table, slots, self._dispatcher.table, self._config.connect_timeout_s, self._room, self._answers
        )
        self._dispatcher.is_ready = True
        self._channel.say({"applied": table.version})
        self._has_table.set()

    async def _tick(self) -> None:
        loop = asyncio.get_running_loop()
        second = 0.0
        while True:
            await asyncio.sleep(TICK_S)
            now = loop.time()
            is_new_second = now - second >= 1.0
            if is_new_second:
                second = now
                self._channel.allow_samples(self._config.samples_per_s)
            self._channel.flush()
            self._dispatcher.expire()
            self._front.is_tight = self._memory.is_tight
            if is_new_second or self._stopping.is_set():
                for connection in [one for one in self._front.connections if not one.is_busy and one.deadline_s <= now]:
                    connection.expire()

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


def settings_for(config: GatewayConfig, region: int, regions: int, awaits_table: bool, fds: dict[str, int]) -> str:
    """The command-line argument of a worker. `awaits_table`: one is on its way, and is to be applied before serving."""
    numbers = {"region": region, "regions": regions, "awaits_table": awaits_table}
    return json.dumps({"config": asdict(config), **numbers, **fds})


def main() -> None:
    settings = json.loads(sys.argv[1])

    async def run() -> None:
        await Worker(settings).run()

    uvloop.run(run())


if __name__ == "__main__":
    main()
