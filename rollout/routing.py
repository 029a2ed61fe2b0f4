"""The route table on its way out: puts a route in force, wakes waiting gateways, knows which of them applied it.

What gateways said last (the version they applied, what they have in flight) is kept in memory: after a restart they
tell it again within a second.
"""

import asyncio
import logging
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from gateway.routes import Route, RouteTable
from rollout.errors import StoppingError
from rollout.store import routes
from rollout.store.database import Transactions

SPEAK_S = 3.0
"""A living gateway reports every second."""
WARN_AFTER_S = 10.0

log = logging.getLogger("sluice.control")


@dataclass(frozen=True, slots=True)
class Heartbeat:
    """What a gateway said last, and when: the table it serves by, what is on its way, and why it refused a table."""

    at_s: float
    applied_version: int
    in_flight: Mapping[str, int]
    refused: str = ""


class Routing:
    """The table in force and the gateways that serve by it. Safe to use from several threads."""

    def __init__(self, database: Transactions, gateway_timeout_s: float) -> None:
        self._database = database
        self._gateway_timeout_s = gateway_timeout_s
        self._heartbeats: dict[str, Heartbeat] = {}
        self._waiting: set[tuple[asyncio.AbstractEventLoop, asyncio.Event]] = set()
        self._changing = threading.Lock()
        self._lock = threading.Lock()
        self._stopping = threading.Event()
        self.reload()

    @property
    def table(self) -> RouteTable:
        return self._table

    def reload(self) -> None:
        """Begin anew with the stored table: gateways are still to be heard of."""
        self._started_s = time.monotonic()
        self._heartbeats.clear()
        with self._database.reading() as connection:
            self._table = routes.current(connection)

    def refresh(self) -> None:
        """Show the table that another control plane put in force."""
        with self._database.reading() as connection:
            self._table = routes.current(connection)

    def change(self, model: str, change: Callable[[Route | None], Route]) -> RouteTable:
        """Store a model's changed route under the next version, then hand it to the gateways that wait."""
        with self._changing:
            with self._database.writing() as connection:
                route = change(routes.current(connection).routes.get(model))
                table = routes.replace_route(connection, route, time.time())
            self._table = table
        with self._lock:
            for loop, event in self._waiting:
                loop.call_soon_threadsafe(event.set)
        return table

    async def wait_after(self, version: int, timeout_s: float) -> RouteTable | None:
        """The table as soon as it is newer than `version`; None when it is not within the time."""
        entry = (asyncio.get_running_loop(), asyncio.Event())
        with self._lock:
            self._waiting.add(entry)
        try:
            if self._table.version <= version:
                await asyncio.wait_for(entry[1].wait(), timeout_s)
        except TimeoutError:
            return None
        finally:
            with self._lock:
                self._waiting.discard(entry)
        return self._table

    # What gateways say

    def heard(self, gateway: str, beat: Heartbeat) -> None:
        self._heartbeats[gateway] = beat

    @property
    def gateways(self) -> dict[str, Heartbeat]:
        """The gateways that were heard of lately. One that fell silent is counted until it is taken for gone."""
        since = time.monotonic() - self._gateway_timeout_s
        return {name: beat for name, beat in self._heartbeats.copy().items() if beat.at_s >= since}

    def wait_applied(self, version: int) -> None:
        """Wait until every gateway that is not taken for gone has applied `version`, or a newer one.

        Raises:
            StoppingError: the control plane stops.
        """
        warn_at = time.monotonic() + WARN_AFTER_S
        while not self._all(lambda beat: beat.applied_version >= version):
            if time.monotonic() > warn_at:
                log.warning("route table %d is not applied everywhere yet: %s", version, self.gateways)
                warn_at += WARN_AFTER_S
            self._pause(0.02)

    def wait_drained(self, release: str, timeout_s: float) -> bool:
        """Wait until no gateway has requests of `release` in flight, by what it says after this call.

        Raises:
            StoppingError: the control plane stops.
        """
        asked, version = time.monotonic(), self._table.version
        while time.monotonic() < asked + timeout_s:
            # A report that had to wait in a backlog tells of an older table.
            if self._all(
                lambda beat: beat.at_s > asked and beat.applied_version >= version and not beat.in_flight.get(release)
            ):
                return True
            self._pause(0.05)
        return False

    def _all(self, holds: Callable[[Heartbeat], bool]) -> bool:
        """Does it hold of every gateway? Right after a start, not before they had time to speak."""
        gateways = self.gateways
        could_have_spoken = time.monotonic() - self._started_s > min(SPEAK_S, self._gateway_timeout_s)
        return (bool(gateways) or could_have_spoken) and all(map(holds, gateways.values()))

    def stop(self) -> None:
        """Let nobody wait any longer."""
        self._stopping.set()

    def _pause(self, seconds: float) -> None:
        if self._stopping.wait(seconds):
            raise StoppingError("the control plane stops")
