"""The gateway's real core between virtual clients and virtual servers, and what must hold of it, above all at rest."""

import asyncio
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from gateway.changes import servers_of, slot_keys, text_of
from gateway.channel import Channel
from gateway.config import GatewayConfig
from gateway.counters import HISTOGRAM, SLOT_CELLS, STARTED
from gateway.dispatch import Dispatcher
from gateway.exchange import Exchange
from gateway.front import Exchanging, Front
from gateway.heads import AnswerHead, AnswerReader, Request, RequestHead, RequestReader
from gateway.http1 import ClientConnection
from gateway.lanes import Lane, LiveRoute, Room
from gateway.live import Servers, Staging
from gateway.memory import ByteLedger
from gateway.routes import Candidate, Route, Shadow
from gateway.upstream import Connection, Server
from loadtests.fuzz.ends import ClientEnd, Got, ServerEnd, VirtualServer
from loadtests.fuzz.loop import VirtualLoop
from loadtests.fuzz.oracle import Read, WrongError, answers_to, is_same, requests_of
from loadtests.fuzz.wire import Wire

STABLE, CANDIDATE, SECOND, SHADOW = "127.0.0.1:9001", "127.0.0.1:9002", "127.0.0.1:9003", "127.0.0.1:9004"
ROUTES = (
    Route("plain", 1, 1, {1: (STABLE,), 2: (CANDIDATE,)}),
    Route("canary", 1, 1, {1: (STABLE,), 2: (CANDIDATE,)}, Candidate(2, 1.0), deadline_s=2.0),
    Route("pair", 1, 1, {1: (STABLE, SECOND)}, deadline_s=2.0),
    Route("shadow", 1, 1, {1: (STABLE,), 2: (SHADOW,)}, shadow=Shadow(2, 1.0), deadline_s=2.0),
)
TICK_S = 0.05
REFUSALS = frozenset((400, 408, 413, 414, 417, 431, 501, 503, 505))
_SLOTS = 32


@dataclass(slots=True)
class Dial:
    """A connection that the gateway is making."""

    address: str
    factory: Callable[[], asyncio.Protocol]
    made: asyncio.Future[asyncio.Protocol]
    end: ServerEnd | None = None


class _Nobody:
    """The supervisor's end of the channel."""

    def took(self, data: bytes) -> None:
        pass

    def saw_eof(self) -> None:
        pass

    def saw_close(self) -> None:
        pass


class _Watch:
    """Sees that each exchange is over once (plane.Observer)."""

    def __init__(self, behind: Dispatcher) -> None:
        self._behind = behind
        self.wrong: list[str] = []

    def answered(self, exchange: Exchange) -> None:
        self._behind.answered(exchange)

    def over(self, exchange: Exchange, status: int, latency_s: float) -> None:
        if "was_over" in vars(exchange) or latency_s < 0:
            self.wrong.append(f"an exchange was over twice, now with {status}, or took {latency_s} s")
        vars(exchange)["was_over"] = True


class _Ordered(dict[Any, None]):
    """A set that is gone through in the order of its making, so that a seed always does the same."""

    def add(self, one: Any) -> None:
        self[one] = None

    def discard(self, one: Any) -> None:
        self.pop(one, None)


class Stage:
    """One worker's core. `handled` by client is what went through `Handler.handle`."""

    def __init__(self, config: GatewayConfig, samples: int = 0, held_bytes: int = 1 << 30) -> None:
        self.loop = loop = VirtualLoop()
        loop.network = self
        self.config = config
        self.memory = ByteLedger(held_bytes)
        self._cells = memoryview(bytearray(_SLOTS * SLOT_CELLS * 8)).cast("Q")
        channel = Channel(lambda _: None, lambda: None)
        Wire(loop, channel, _Nobody()).made()
        self.channel = channel
        with loop.running():
            self.dispatcher = Dispatcher(config, channel, self.memory)
        self.dispatcher.is_ready = True
        self.dispatcher.next_second(samples)
        self._plane = self.dispatcher._plane
        self._watch = self._plane.observer = _Watch(self.dispatcher)
        self._plane.is_watched = True
        self.front = Front(self, config, self.memory)
        self._plane.in_flight = _Ordered()  # type: ignore[assignment]
        self.dispatcher._mirrors.copies = _Ordered()  # type: ignore[assignment]
        self.front.connections = _Ordered()  # type: ignore[assignment]
        self.servers = {address: VirtualServer(address.encode()) for address in (STABLE, CANDIDATE, SECOND, SHADOW)}
        for server in self.servers.values():
            server.check = self._check_asked
        self.dials: list[Dial] = []
        self.clients: dict[ClientConnection, ClientEnd] = {}
        self._asked: set[tuple[bytes, bytes, bytes]] = set()
        self._known = Servers(config.connect_timeout_s)
        room = Room(config.release_in_flight, config.release_waiting, config.wait_timeout_s)
        self._staging = Staging(self._cells, self._known, room)
        slots = iter(range(_SLOTS))
        self._texts = {
            route.model: text_of(route, [(of, role, next(slots)) for _, _, of, role in slot_keys(route)])
            for route in ROUTES
        }
        self._lives: list[LiveRoute] = []
        self.pools: list[Server] = []
        self.change({route.model for route in ROUTES})

    def change(self, models: set[str]) -> None:
        """A new table of these models comes into force; servers that it does not name are retired."""
        if self.dispatcher.table is not None:
            self._lives += self.dispatcher.table.routes.values()
        self._staging.stage({model: text if model in models else None for model, text in self._texts.items()})
        self.dispatcher.table = self._staging.commit(1)
        named = {key for route in ROUTES if route.model in models for key in servers_of(route)}
        for key in SERVER_KEYS:
            if key not in named:
                self._known.retire(*key)
            elif self._known.get(*key) not in self.pools:
                self.pools.append(self._known.get(*key))

    @contextmanager
    def running(self) -> Iterator["Stage"]:
        with self.loop.running():
            yield self

    # http1.Handler

    def handle(self, request: Request, client: ClientConnection) -> Exchanging | None:
        end = self.clients[client]
        end.handled.append(request)
        method = b"GET" if request.head.method == b"HEAD" else request.head.method
        self._asked.add((method, _key(request.head.target), b"".join(request.body) if method == b"POST" else b""))
        return self.dispatcher.handle(request, client)

    def _check_asked(self, got: Got) -> None:
        if (got.method, _key(got.target), got.body) not in self._asked:
            raise WrongError(f"a server got what no client asked: {got!r}")

    # loop.Network

    async def connect(self, factory: Callable[[], asyncio.Protocol], address: str) -> asyncio.Protocol:
        dial = Dial(address, factory, self.loop.create_future())
        self.dials.append(dial)
        try:
            return await dial.made
        except BaseException:
            if dial.end is not None:
                dial.end.wire.abort()  # It was made, and given up in the same turn; uvloop closes it.
            raise
        finally:
            if dial in self.dials:
                self.dials.remove(dial)

    def take_call(self, dial: Dial) -> ServerEnd | None:
        """The server's kernel takes the connection."""
        self.dials.remove(dial)
        if dial.made.done():
            return None
        end = dial.end = ServerEnd(self.servers[dial.address])
        protocol = dial.factory()
        end.wire = Wire(self.loop, protocol, end)
        end.server.ends.append(end)
        end.wire.made()
        dial.made.set_result(protocol)
        return end

    def refuse_call(self, dial: Dial) -> None:
        self.dials.remove(dial)
        if not dial.made.done():
            dial.made.set_exception(ConnectionRefusedError(111, "refused"))

    # Acting

    def client(self, address: str = "127.0.0.1") -> ClientEnd:
        end = ClientEnd()
        connection = ClientConnection(self.front)
        self.clients[connection] = end
        end.wire = Wire(self.loop, connection, end, address)
        end.wire.made()
        return end

    def run(self) -> None:
        """Run until nothing is due; servers take every connection, and whoever drips is read on."""
        while True:
            self.loop.run()
            dripping = list(self.front.tick())
            if not self.dials and not dripping:
                return
            for dial in list(self.dials):
                self.take_call(dial)
            for connection in dripping:
                connection.tick()

    def tick(self) -> None:
        """What a worker does twenty times a second (`Worker._tick`)."""
        now = self.loop.time()
        self.channel.flush()
        self.dispatcher.expire()
        self.front.is_tight = self.memory.is_tight
        for dripping in self.front.tick():
            dripping.tick()
        for connection in [one for one in self.front.connections if not one.is_busy and one.deadline_s <= now]:
            connection.expire()

    def pass_time(self, seconds: float) -> None:
        self.loop.advance(seconds)
        self.tick()

    def drain(self, is_draining: bool) -> None:
        """The worker stops, or one that does not takes its place."""
        self.front.is_draining = is_draining
        for connection in self.front.connections if is_draining else ():
            connection.drain()

    # What must hold

    def check_client(self, end: ClientEnd) -> None:
        """One answer a request at most, in order, well-formed; and llhttp reads the same requests."""
        if end.wire.late_writes:
            raise WrongError("something was written after the connection was closed")
        handled = end.handled
        check_read(handled, requests_of(b"".join(end.sent)))
        methods, is_closed = [one.head.method for one in handled], end.has_ended and not end.left
        answers = answers_to(methods, bytes(end.received), is_closed, may_be_cut=end.left)
        continues = [one for one in answers if one.status < 200]
        if len(continues) > sum(one.head.expects for one in handled) + 1 or any(one.status != 100 for one in continues):
            raise WrongError(f"interim answers that were not asked for: {continues!r}")
        finals = [one for one in answers if one.status >= 200]
        if len(finals) > len(handled):
            last = finals[-1]
            is_refusal = last.status in REFUSALS and last.fields.get(b"connection") == b"close"
            if len(finals) > len(handled) + 1 or not is_refusal:
                raise WrongError(f"{len(handled)} requests and {len(finals)} answers: {finals!r}")
        for index, one in enumerate(finals):
            if index < len(finals) - 1 and (not one.is_whole or one.fields.get(b"connection") == b"close"):
                raise WrongError(f"an answer behind the last one: {finals!r}")
        for request, one in zip(handled, finals, strict=False):
            request_id, head = one.fields.get(b"x-request-id"), request.head
            if head.has_id and request_id is not None and request_id != head.values[b"x-request-id"]:
                raise WrongError(f"the answer to {request_id!r} for {head.values[b'x-request-id']!r}")
            echo = one.fields.get(b"x-echo")
            if echo is not None and request_id is not None and echo != request_id:
                raise WrongError(f"{request_id!r} was answered what the server said to {echo!r}")

    def check_errors(self) -> None:
        if self.loop.errors or self._watch.wrong:
            raise WrongError("; ".join(self.loop.errors + self._watch.wrong))

    def settle(self, clients: Iterable[ClientEnd]) -> None:
        """Clients leave, servers say no more, time passes: then nothing may be held any more."""
        for end in clients:
            if not end.wire.is_lost:
                end.leave(by_reset=bool(end.wire.get_write_buffer_size()))
        for _ in range(100):  # Pipelined requests wait for their deadlines one after the other.
            self.run()
            if not self.dispatcher.in_flight and not self.copies and not self.front.connections:
                break
            self.pass_time(2.1)
        self.run()
        self.check_errors()
        self.check_rest()
        for end in clients:
            self.check_client(end)

    @property
    def copies(self) -> int:
        """Mirrors on their way."""
        return len(self.dispatcher._mirrors.copies)

    def lanes(self) -> Iterator[Lane]:
        assert self.dispatcher.table is not None
        for live in (*self._lives, *self.dispatcher.table.routes.values()):
            yield from live.lanes.values()
            if live.mirror is not None:
                yield live.mirror

    def check_rest(self) -> None:
        """At rest nothing is held: no request, seat, place in a queue, copy, byte, task or connection without use."""
        held: dict[str, Any] = {
            "clients": len(self.front.connections),
            "addresses": dict(self.front._by_address),
            "exchanges": self.dispatcher.in_flight,
            "bytes": self.memory.held_bytes,
            "copies": self.copies,
            "bytes of copies": self.dispatcher._mirrors.held_bytes,
            "tasks": len(self.loop.tasks),
            "dials": len(self.dials),
            "timers": self.loop.waiting,
        }
        for server in self.pools:
            held[f"in flight at {server.address}"] = server.in_flight
            held[f"being made to {server.address}"] = len(server._connecting)
        for lane in self.lanes():
            held[f"seats of {lane.release_name!r}"] = lane.in_flight
            held[f"queue of {lane.release_name!r}"] = lane.waiting
        leaks = {what: count for what, count in held.items() if count}
        if leaks:
            raise WrongError(f"held at rest: {leaks}")
        self._check_idle()
        for reader in (self.front.reader, self._known._reader):
            check_remembered(reader)
        heads = self._cells[: _SLOTS * HISTOGRAM].tolist()
        for slot in range(0, len(heads), HISTOGRAM):
            if heads[slot + STARTED] != sum(heads[slot : slot + STARTED]):
                raise WrongError(f"slot {slot // HISTOGRAM} started and ended different numbers")
        self._lives.clear()
        self.pools = [server for server in self.pools if server in self._known._known.values()]

    def _check_idle(self) -> None:
        """Every open connection to a server is an idle one that somebody will use again."""
        idle = [connection for server in self.pools for connection in server._idle]
        wires = {id(connection.transport) for connection in idle}
        if len(wires) != len(idle) or any(not _is_idle(connection) for connection in idle):
            raise WrongError(f"idle connections that are not: {idle!r}")
        opened = [end.wire for server in self.servers.values() for end in server.ends if not end.wire.is_lost]
        lost = [wire for wire in opened if id(wire) not in wires and not wire.is_closing()]
        if lost or len(wires) > len(opened):
            raise WrongError(f"{len(opened)} open connections to servers, {len(wires)} idle")


SERVER_KEYS = (*((address, False) for address in (STABLE, CANDIDATE, SECOND)), (SHADOW, False), (SHADOW, True))


def check_remembered(reader: RequestReader | AnswerReader) -> None:
    """Equal heads share one: is each still as it was read? They are forgotten then."""
    known: dict[bytes, RequestHead | AnswerHead] = dict(reader.items())
    reader.clear()
    for data, head in known.items():
        names = [name for name in head.__slots__ if name != "way"]
        if changed := [name for name in names if getattr(head, name) != getattr(reader[data], name)]:
            raise WrongError(f"what was remembered of {data!r} changed: {changed}")
    reader.clear()


def _is_idle(connection: Connection) -> bool:
    transport = connection.transport
    return connection.listener is None and transport is not None and transport.is_reading()


def _key(target: bytes) -> bytes:
    """Model and action of a target, without its version and query."""
    parts = target.partition(b"?")[0].split(b"/")
    if parts[4:5] == [b"versions"]:
        del parts[4:6]
    return b"/".join(parts)


def check_read(handled: list[Request], read: list[Read]) -> None:
    """Is each request that was taken one that llhttp reads there too, with the same fields and body?"""
    for index, request in enumerate(handled):
        head = request.head
        if index >= len(read):
            raise WrongError(f"request {index} was taken, and llhttp reads none: {head.line!r} {head.values!r}")
        other = read[index]
        target = other.target
        if target[:1] != b"/":
            target = b"/" + target.split(b"/", 3)[3]
        body = b"".join(request.body)
        if (head.method, head.target) != (other.method, target) or not is_same(body, other.body):
            raise WrongError(f"{head.method!r} {head.target!r} {body!r} was taken, llhttp reads {other!r}")
        if request.size != len(body):
            raise WrongError(f"a body of {len(body)} bytes was counted as {request.size}")
        for name, value in head.values.items():
            if name[-10:] != b"connection" and (name, value) not in other.fields:
                raise WrongError(f"{name!r}: {value!r} was taken, llhttp reads {other.fields!r}")
