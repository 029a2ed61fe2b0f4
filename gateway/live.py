"""The route table as a worker uses it: every route with its servers and its counters. Replaced as a whole.

A new table comes in parts and into force in one step. Its routes are kept as text, and made live when somebody asks for
the model, so that a table of ten thousand costs a worker a few milliseconds, spread over many turns of its loop. A
server keeps its connections from table to table as long as some route names it.
"""

from collections.abc import Callable, Mapping

from gateway.balance import Pool
from gateway.changes import ServerKey, read_text
from gateway.counters import Slot
from gateway.heads import AnswerReader
from gateway.lanes import Lane, LiveRoute, Room
from gateway.upstream import Server
from gateway.windows import Role

SWEPT_AT_ONCE = 100
"""Letting go of so many live routes takes about 0.3 ms."""


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

    __slots__ = ("_wake", "texts")

    def __init__(self, wake: Callable[[str, str], LiveRoute], texts: dict[str, str]) -> None:
        super().__init__()
        self._wake = wake
        self.texts = texts

    def __missing__(self, model: str) -> LiveRoute:
        live = self[model] = self._wake(model, self.texts[model])
        return live

    def copied(self) -> "Routes":
        copy = Routes(self._wake, self.texts.copy())
        copy.update(self)
        return copy


class LiveTable:
    """All live routes of one version of the table."""

    def __init__(self, version: int, routes: Routes) -> None:
        self.version = version
        self.routes = routes


class Staging:
    """Makes the next table bit by bit, from the one before it and from what changed; puts it in force at once."""

    def __init__(self, cells: memoryview, servers: Servers, room: Room) -> None:
        self._cells, self._servers, self._room = cells, servers, room
        self._table = LiveTable(-1, Routes(self._wake, {}))
        self._next: Routes | None = None
        self._going: list[LiveRoute] = []
        self._gone: list[LiveRoute] = []
        """Live routes that the next table has no longer, and those that no table has."""
        self.made = 0
        """Live routes made so far."""

    def stage(self, texts: Mapping[str, str | None]) -> None:
        coming = self._next if self._next is not None else self._table.routes.copied()
        self._next = coming
        for model, text in texts.items():
            live = coming.pop(model, None)
            if live is not None:
                self._going.append(live)
            if text is not None:
                coming.texts[model] = text
            else:
                coming.texts.pop(model, None)

    def commit(self, version: int) -> LiveTable:
        self._table = LiveTable(version, self._next if self._next is not None else self._table.routes)
        self._gone += self._going
        self._next, self._going = None, []
        return self._table

    def sweep(self) -> None:
        """Let go of some of the live routes that were replaced: of thousands at once would hold the loop up."""
        del self._gone[-max(SWEPT_AT_ONCE, len(self._gone) // SWEPT_AT_ONCE) :]

    def _wake(self, model: str, text: str) -> LiveRoute:
        live = self._live(text)
        if self._next is not None and self._next.texts.get(model) is text:  # The next table has it too.
            self._next[model] = live
        return live

    def _live(self, text: str) -> LiveRoute:
        route, slots = read_text(text)
        self.made += 1

        def lane(release: int, is_mirror: bool) -> Lane:
            own = {Role(role): Slot(self._cells, index) for of, role, index in slots if of == release}
            pool = Pool(tuple(self._servers.get(address, is_mirror) for address in route.servers[release]))
            return Lane(route.model, release, pool, own, self._room)

        lanes = {release: lane(release, False) for release in route.servers}
        return LiveRoute(route, lanes, lane(route.shadow.release, True) if route.shadow is not None else None)
