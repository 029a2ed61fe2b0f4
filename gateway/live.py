"""The route table as a worker uses it: every route with its servers and its counters. Replaced as a whole.

A server keeps its connections from table to table as long as some route names it.
"""

from collections.abc import Mapping

from gateway.balance import Pool
from gateway.counters import Slot
from gateway.heads import AnswerReader
from gateway.lanes import Lane, LiveRoute, Room
from gateway.routes import Route, RouteTable
from gateway.upstream import Server
from gateway.windows import Role

SlotKey = tuple[str, int, int, Role]
"""(model, revision, release, role): what one slot counts."""


def slot_keys(table: RouteTable) -> list[SlotKey]:
    """Every slot that a table needs."""
    keys: list[SlotKey] = []
    for route in table.routes.values():
        for release in route.servers:
            keys.append((route.model, route.revision, release, Role.PINNED))
        compared = {route.stable} | ({route.candidate.release} if route.candidate else set())
        keys += [(route.model, route.revision, release, Role.ANSWERED) for release in sorted(compared)]
        if route.shadow is not None:
            keys.append((route.model, route.revision, route.shadow.release, Role.MIRRORED))
    return keys


class LiveTable:
    """All live routes of one version of the table."""

    def __init__(
        self,
        table: RouteTable,
        slots: Mapping[SlotKey, Slot],
        before: "LiveTable | None",
        connect_timeout_s: float,
        room: Room,
        reader: AnswerReader,
    ) -> None:
        self.version = table.version
        self._known = before.servers if before is not None else {}
        self._connect_timeout_s, self._room, self._reader = connect_timeout_s, room, reader
        self.servers: dict[tuple[str, bool], Server] = {}
        self.routes = {model: self._live(route, slots) for model, route in table.routes.items()}
        for key, server in self._known.items():
            if key not in self.servers:
                server.retire()
        self._known = {}

    def _live(self, route: Route, slots: Mapping[SlotKey, Slot]) -> LiveRoute:
        def lane(release: int, is_mirror: bool) -> Lane:
            own = {role: slot for role in Role if (slot := slots.get((route.model, route.revision, release, role)))}
            pool = Pool(tuple(self._server(address, is_mirror) for address in route.servers[release]))
            return Lane(route.model, release, pool, own, self._room)

        lanes = {release: lane(release, False) for release in route.servers}
        return LiveRoute(route, lanes, lane(route.shadow.release, True) if route.shadow is not None else None)

    def _server(self, address: str, is_mirror: bool) -> Server:
        key = (address, is_mirror)
        server = self.servers.get(key) or self._known.get(key) or Server(address, self._connect_timeout_s, self._reader)
        self.servers[key] = server
        return server
