"""The route table as a worker uses it: every route with its servers and its counters. Replaced as a whole.

A new table comes in parts and into force in one step. Its routes are kept as text until somebody asks for the model, so
that a table of ten thousand costs a worker a few milliseconds, spread over many turns of its loop. A server keeps its
connections from table to table as long as some route names it.
"""

from collections.abc import Callable, Mapping

from gateway.balance import Pool
from gateway.changes import ServerKey, read_text
from gateway.counters import Slot
from gateway.heads import AnswerReader
from gateway.lanes import Lane, LiveRoute, Room
from gateway.upstream import Server
from gateway.windows import Role

SWEPT_AT_ONCE = 500


class Servers:
    """The servers that live routes name, each with its connections, whatever table it came with."""

    def __init__(self, connect_timeout_s: float) -> None:
        self._connect_timeout_s = connect_timeout_s
        self._reader = AnswerReader()
        self._known: dict[ServerKey, Server] = {}

    def get(self, address: str, is_mirror: bool) -> Server:
        server = self._known.get((address, is_mirror))
        if server is None:
            server = self._known[address, is_mirror] = Server(address, self._connect_timeout_s, self._reader)
        return server

    def retire(self, address: str, is_mirror: bool) -> None:
        """No route names it any more."""
        server = self._known.pop((address, is_mirror), None)
        if server is not None:
            server.retire()


class Routes(dict[str, LiveRoute]):
    """Live routes by model. Each is made of its text when it is first asked for, by `routes[model]`."""

    __slots__ = ("_make", "asleep")

    def __init__(self, make: Callable[[str], LiveRoute]) -> None:
        super().__init__()
        self.asleep: dict[str, str] = {}
        self._make = make

    def __missing__(self, model: str) -> LiveRoute:
        live = self[model] = self._make(self.asleep[model])
        del self.asleep[model]
        return live


class LiveTable:
    """All live routes of one version of the table. Made from the one before it, and from what changed."""

    def __init__(self, version: int, routes: Routes) -> None:
        self.version = version
        self.routes = routes


class Staging:
    """Takes what is to change, bit by bit, and makes the next table of all of it at once."""

    def __init__(self, cells: memoryview, servers: Servers, room: Room) -> None:
        self._cells, self._servers, self._room = cells, servers, room
        self._staged: dict[str, str | None] = {}
        self._gone: list[LiveRoute] = []
        self.made = 0
        """Live routes made so far."""
        self._table = LiveTable(-1, Routes(self._live))

    def stage(self, texts: Mapping[str, str | None]) -> None:
        self._staged |= texts

    def commit(self, version: int) -> LiveTable:
        routes, staged = self._table.routes, self._staged
        routes.asleep.update((model, text) for model, text in staged.items() if text is not None)
        for model in [model for model, text in staged.items() if text is None]:
            routes.asleep.pop(model, None)
        fewer = list(staged) if len(staged) < len(routes) else list(routes)
        awake = [model for model in fewer if model in staged and model in routes]
        self._gone += [routes.pop(model) for model in awake]
        self._staged = {}
        self._table = LiveTable(version, routes)
        return self._table

    def sweep(self) -> None:
        """Let go of some of the live routes that were replaced: of thousands at once would hold the loop up."""
        del self._gone[-SWEPT_AT_ONCE:]

    def _live(self, text: str) -> LiveRoute:
        route, slots = read_text(text)
        self.made += 1

        def lane(release: int, is_mirror: bool) -> Lane:
            own = {Role(role): Slot(self._cells, index) for of, role, index in slots if of == release}
            pool = Pool(tuple(self._servers.get(address, is_mirror) for address in route.servers[release]))
            return Lane(route.model, release, pool, own, self._room)

        lanes = {release: lane(release, False) for release in route.servers}
        return LiveRoute(route, lanes, lane(route.shadow.release, True) if route.shadow is not None else None)
