"""One worker process: listens on the shared sockets, takes route tables, ticks, drains.

Started by the supervisor as `python -m gateway.worker SETTINGS` with the listening socket, its end of the channel and
the counters inherited as file descriptors.
"""

import asyncio
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
from gateway.http1 import ClientConnection
from gateway.live import LiveTable, SlotKey
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
        self._connections: set[ClientConnection] = set()
        self._stopping = asyncio.Event()
        self._channel = Channel(self.command, self.stop)
        self._dispatcher = Dispatcher(self._config, self._channel)

    async def run(self) -> None:
        loop = asyncio.get_running_loop()
        for number in (signal.SIGINT, signal.SIGHUP):
            signal.signal(number, signal.SIG_IGN)  # The supervisor speaks for us all.
        loop.add_signal_handler(signal.SIGTERM, self.stop)
        channel = socket.socket(fileno=self._settings["channel_fd"])
        await loop.create_connection(lambda: self._channel, sock=channel)
        listener = socket.socket(fileno=self._settings["listen_fd"])
        server = await loop.create_server(self._accept, sock=listener, backlog=self._config.backlog)
        self._channel.say({"ready": True})
        ticking = loop.create_task(self._tick())
        await self._stopping.wait()
        await self._drain(server)
        ticking.cancel()
        self._channel.flush()
        if self._channel.transport is not None:
            self._channel.transport.close()
        await asyncio.sleep(0)

    def _accept(self) -> ClientConnection:
        return ClientConnection(self._dispatcher, self._config, self._connections)

    def stop(self) -> None:
        self._stopping.set()

    def command(self, message: dict[str, Any]) -> None:
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
        self._dispatcher.table = LiveTable(table, slots, self._dispatcher.table, self._config.connect_timeout_s)
        self._dispatcher.is_ready = True
        self._channel.say({"applied": table.version})

    async def _tick(self) -> None:
        loop = asyncio.get_running_loop()
        second = 0.0
        while True:
            await asyncio.sleep(TICK_S)
            self._dispatcher.expire()
            self._channel.flush()
            now = loop.time()
            if now - second >= 1.0:
                second = now
                self._channel.allow_samples(self._config.samples_per_s)
                for connection in [one for one in self._connections if not one.is_busy and one.deadline_s <= now]:
                    connection.expire()

    async def _drain(self, server: asyncio.Server) -> None:
        """Stop accepting, answer what is in flight, linger for idle clients, then close."""
        loop = asyncio.get_running_loop()
        self._dispatcher.is_ready = False
        server.close()
        for connection in self._connections:
            connection.is_draining = True
        lingers_until = loop.time() + self._config.linger_s
        ends = loop.time() + self._config.drain_timeout_s
        while (self._connections or self._dispatcher.in_flight) and loop.time() < ends:
            if loop.time() >= lingers_until:
                for connection in [one for one in self._connections if not one.is_busy]:
                    connection.expire()
            await asyncio.sleep(TICK_S)
        for connection in list(self._connections):
            connection.abort()


def settings_for(config: GatewayConfig, region: int, regions: int, fds: dict[str, int]) -> str:
    """The command-line argument of a worker."""
    return json.dumps({"config": asdict(config), "region": region, "regions": regions, **fds})


def main() -> None:
    settings = json.loads(sys.argv[1])

    async def run() -> None:
        await Worker(settings).run()

    uvloop.run(run())


if __name__ == "__main__":
    main()
