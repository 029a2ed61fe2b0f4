"""The route table on its way out: puts a route in force, wakes waiting gateways, knows which of them applied it.

What gateways said last (the version they applied, what they have in flight) is kept in memory: after a restart they
tell it again within a second.
"""

import asyncio
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from gateway.routes import Route, RouteTable
from rollout.errors import StoppingError
from rollout.store import routes
from rollout.store.database import Database


@dataclass(frozen=True, slots=True)
class Heartbeat:
    """What a gateway said last, and when."""

    at_s: float
    applied_version: int
    in_flight: Mapping[str, int]


class Routing:
    """The table in force and the gateways that serve by it. Safe to use from several threads."""

    def __init__(self, database: Database, gateway_timeout_s: float) -> None:
        self._database = database
        self._gateway_timeout_s = gateway_timeout_s
        self._heartbeats: dict[str, Heartbeat] = {}
        self._waiting: set[tuple[asyncio.AbstractEventLoop, asyncio.Event]] = set()
        self._lock = threading.Lock()
        self._started_s = time.monotonic()
        self._stopping = threading.Event()
        with database.reading() as connection:
            self._table = routes.current(connection)

    @property
    def table(self) -> RouteTable:
        return self._table

    def change(self, model: str, change: Callable[[Route | None], Route]) -> RouteTable:
        """Store a model's changed route under the next version and hand it to every gateway that waits."""
        with self._lock:
            route = change(self._table.routes.get(model))
            with self._database.writing() as connection:
                self._table = routes.replace_route(connection, route)
            for loop, event in self._waiting:
                loop.call_soon_threadsafe(event.set)
            return self._table

    async def wait_after(self, version: int, timeout_s: float) -> RouteTable | None:
        """The table as soon as it is newer than `version`; None when it is not within the time."""
        entry = (asyncio.get_running_loop(), asyncio.Event())
        with self._lock:
            self._waiting.add(entry)
        try:
            if self._table.version == version:
                await asyncio.wait_for(entry[1].wait(), timeout_s)
        except TimeoutError:
            return None
        finally:
            with self._lock:
                self._waiting.discard(entry)
        return self._table

    # What gateways say

    def heard(self, gateway: str, applied_version: int, in_flight: Mapping[str, int]) -> None:
        self._heartbeats[gateway] = Heartbeat(time.monotonic(), applied_version, dict(in_flight))

    @property
    def gateways(self) -> dict[str, Heartbeat]:
        """The gateways that were heard of lately."""
        since = time.monotonic() - self._gateway_timeout_s
        return {name: beat for name, beat in self._heartbeats.copy().items() if beat.at_s >= since}

    def wait_applied(self, version: int) -> bool:
        """Wait until every live gateway applied `version`; False when one did not in time.

        Right after a start nobody was heard of yet, so it waits at least until gateways had time to speak.

        Raises:
            StoppingError: the control plane stops.
        """
        ends = time.monotonic() + 2 * self._gateway_timeout_s
        while time.monotonic() < ends:
            gateways = self.gateways
            could_have_spoken = time.monotonic() - self._started_s > self._gateway_timeout_s
            if (gateways or could_have_spoken) and all(one.applied_version >= version for one in gateways.values()):
                return True
            self._pause(0.02)
        return False

    def wait_drained(self, release: str, timeout_s: float) -> bool:
        """Wait until no live gateway, in a report made after this call, has requests of `release` in flight.

        Raises:
            StoppingError: the control plane stops.
        """
        asked = time.monotonic()
        while time.monotonic() < asked + timeout_s:
            beats = self.gateways.values()
            if all(beat.at_s > asked and not beat.in_flight.get(release) for beat in beats):
                return True
            self._pause(0.05)
        return False

    def stop(self) -> None:
        """Let nobody wait any longer."""
        self._stopping.set()

    def _pause(self, seconds: float) -> None:
        if self._stopping.wait(seconds):
            raise StoppingError("the control plane stops")
