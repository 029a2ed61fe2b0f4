"""What all client connections of a worker share: limits, the reader of heads, who is connected, the handler behind.

Decides who may connect; reads and writes nothing.
"""

import resource
from collections import Counter, deque
from collections.abc import Iterator
from typing import TYPE_CHECKING, Protocol

from gateway.chunks import ChunkLimits
from gateway.config import GatewayConfig
from gateway.heads import Request, RequestReader
from gateway.memory import ByteLedger

if TYPE_CHECKING:
    from gateway.http1 import ClientConnection


DRIPS_PER_TICK = 100
"""So many pieces of requests that are not whole yet are read in a tick (20 a second); who sends more waits for a later
one. Thousands that send a byte each at the same moment would hold everybody else up for tens of milliseconds."""


class Exchanging(Protocol):
    """What a connection needs of the exchange that answers its request."""

    def client_gone(self) -> None: ...

    def client_is_slow(self) -> None: ...

    def client_is_ready(self) -> None: ...


class Handler(Protocol):
    """Takes a whole request; answers through the connection, now or later."""

    def handle(self, request: Request, client: "ClientConnection") -> Exchanging | None: ...


class Front:
    """What all client connections of a worker share."""

    def __init__(self, handler: Handler, limits: GatewayConfig, memory: ByteLedger) -> None:
        self.handler, self.limits, self.memory = handler, limits, memory
        self.reader = RequestReader(
            limits.request_line_bytes, limits.field_bytes, limits.head_bytes, limits.head_fields, limits.body_bytes
        )
        self.chunks = ChunkLimits(limits.body_bytes, limits.body_chunks, limits.head_bytes, limits.head_fields)
        self.connections: set[ClientConnection] = set()
        self.is_draining = self.is_tight = False
        self.requests_most = limits.requests_per_connection
        self._most = limits.connections or most_connections()
        self._by_address: Counter[str] = Counter()
        self.accepted = 0
        self.refused: Counter[int] = Counter()
        """Requests and connections that never became an exchange, by status."""
        self._drips_left = DRIPS_PER_TICK
        self._dripping: deque[ClientConnection] = deque()
        """Who is not read on before a later tick."""

    def enter(self, connection: "ClientConnection", address: str) -> bool:
        """A connection was made; False when there are too many."""
        self.connections.add(connection)
        self.accepted += 1
        self._by_address[address] += 1
        own = address.startswith("127.") or address == "::1"
        most = self.limits.connections_per_address
        return len(self.connections) <= self._most and (own or not most or self._by_address[address] <= most)

    def leave(self, connection: "ClientConnection", address: str) -> None:
        self.connections.discard(connection)
        self._by_address[address] -= 1
        if not self._by_address[address]:
            del self._by_address[address]

    def may_read_on(self, connection: "ClientConnection") -> bool:
        """A piece came, and the request is not whole. False: read on when a tick says so."""
        self._drips_left -= 1
        if self._drips_left >= 0:
            return True
        self._dripping.append(connection)
        return False

    def tick(self) -> Iterator["ClientConnection"]:
        """Who may be read on now: half of what this tick has room for, since others send pieces too."""
        self._drips_left = DRIPS_PER_TICK
        for _ in range(min(len(self._dripping), DRIPS_PER_TICK // 2)):
            yield self._dripping.popleft()


def most_connections() -> int:
    """Four fifths of the files that the process may open, and at least 64 left for its servers."""
    files = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
    return max(1, min(files * 4 // 5, files - 64))
