"""From a whole request to its exchange: which model, which release, which key; and what the gateway answers itself.

Knows paths, the live route table, request ids and labels. What happens to a request after it was assigned is the
business of `exchange`, and of `mirror` after its answer left.
"""

import json
import os
import time

from gateway.answers import error_body
from gateway.channel import Channel
from gateway.config import GatewayConfig
from gateway.exchange import Exchange
from gateway.front import Exchanging
from gateway.heads import AnswerHead, Request, RequestHead
from gateway.http1 import ClientConnection
from gateway.live import LiveTable
from gateway.memory import ByteLedger
from gateway.mirror import Mirror, MirrorBudget
from gateway.notes import Notes
from gateway.paths import Asked, Kind, NotServedError, understand
from gateway.plane import Plane
from gateway.routes import place
from gateway.samples import Answer, Label, Sample
from gateway.upstream import Chunks
from gateway.way import find_way

_UNDERSTOOD_MOST = 16384
_EXTENSIONS = [
    "classification",
    "sequence",
    "model_configuration",
    "binary_tensor_data",
    "statistics",
    "sluice_feedback",
]


class Dispatcher:
    """Understands a request and starts its exchange (http1.Handler), and sees what became of it (exchange.Observer)."""

    def __init__(self, config: GatewayConfig, channel: Channel, memory: ByteLedger) -> None:
        self._config = config
        self._channel = channel
        self._plane = Plane(config, memory, self)
        self._mirrors = MirrorBudget(config, memory)
        self.notes = Notes(config)
        self._plane.is_watched = self.notes.are_wanted
        self._understood: dict[bytes, Asked] = {}
        """What request lines ask for, by the line."""
        self._id_prefix = os.urandom(6).hex().encode()
        self._ids = 0
        self.table: LiveTable | None = None
        self.is_ready = False

    def next_second(self, number: int) -> None:
        """A new second: so many answers may be recorded in it."""
        self._channel.allow_samples(number)
        self._plane.is_recording = number > 0
        self.notes.next_second()

    def expire(self) -> None:
        self._plane.expire()
        self._mirrors.expire()

    @property
    def in_flight(self) -> int:
        return len(self._plane.in_flight)

    def state(self) -> tuple[dict[str, int], dict[str, int]]:
        """What this worker has at the moment, and what it counted since its start (metrics.GAUGES and COUNTERS)."""
        waiting = sum(exchange.is_waiting for exchange in self._plane.in_flight)
        gauges = {"exchanges": self.in_flight, "waiting": waiting, "mirrors": len(self._mirrors.copies)}
        counted = {
            "ejections": self._plane.ejections,
            "openings": self._plane.openings,
            "notes_dropped": self.notes.dropped,
        }
        return gauges, counted

    def handle(self, request: Request, client: ClientConnection) -> Exchanging | None:
        head = request.head
        way = head.way
        if way is None or way.table is not self.table:
            try:
                asked = self._understand(head)
                if not asked.model:
                    self._own(asked.kind, request, client)
                    return None
                head.way = way = find_way(asked, head, self.table)
            except NotServedError as exc:
                client.answer(request, exc.status, error_body(exc.text), exc.headers)
                return None
        live = way.live
        if request.size > live.body_bytes:
            text = f"the body is larger than the {live.body_bytes} bytes that {way.asked.model!r} takes"
            client.answer(request, 413, error_body(text))
            return None
        if head.has_id:
            request_id = head.values[b"x-request-id"]
        else:
            self._ids += 1
            request_id = b"%s-%x" % (self._id_prefix, self._ids)
        lane, key = way.lane, way.key or request_id
        tracer = self.notes.tracer
        span = tracer.begin(request) if tracer is not None else None
        exchange = Exchange(self._plane, client, request, way, lane or live.pick(key), key, request_id)
        if span is not None:
            exchange.span = span
        exchange.start()
        return exchange

    def _understand(self, head: RequestHead) -> Asked:
        asked = self._understood.get(head.line)
        if asked is None:
            asked = understand(head.method, head.target)
            if len(self._understood) >= _UNDERSTOOD_MOST:
                self._understood.clear()
            self._understood[head.line] = asked
        return asked

    def _own(self, kind: Kind, request: Request, client: ClientConnection) -> None:
        if kind is Kind.LIVE:
            client.answer(request, 200, b"{}")
        elif kind is Kind.READY:
            ready = self.is_ready and self.table is not None
            client.answer(request, 200 if ready else 503, b"{}" if ready else error_body("not ready"))
        elif kind is Kind.SERVER:
            client.answer(
                request, 200, json.dumps({"name": "sluice", "version": "1", "extensions": _EXTENSIONS}).encode()
            )
        else:
            self._feedback(request, client)

    def _feedback(self, request: Request, client: ClientConnection) -> None:
        if request.size > self._config.label_body_bytes:
            client.answer(
                request, 413, error_body(f"labels take at most {self._config.label_body_bytes} bytes at once")
            )
            return
        try:
            labels = read_labels(b"".join(request.body))
        except ValueError as exc:
            client.answer(request, 400, error_body(str(exc)))
            return
        if self._channel.take(labels):
            client.answer(request, 202, json.dumps({"accepted": len(labels)}).encode())
        else:
            client.answer(
                request, 503, error_body("too many labels are waiting; send them again"), b"retry-after: 1\r\n"
            )

    # exchange.Observer

    def answered(self, exchange: Exchange) -> None:
        """An answer left: copy its request to the shadow, or just record it."""
        live, body = exchange.way.live, exchange.recordable() if self._plane.is_recording else None
        is_stables = not exchange.is_pinned and exchange.assigned is live.stable
        if live.mirror is not None and is_stables and live.is_mirrored(exchange.key):
            mirror = Mirror(self._mirrors, exchange, live.mirror, body, self._mirrored)
            if mirror.start():
                return
        if body is not None:
            self._record(exchange, body, None)

    def over(self, exchange: Exchange, status: int, latency_s: float) -> None:
        self.notes.over(exchange, status, latency_s)

    def _mirrored(
        self, exchange: Exchange, answered: Chunks | None, head: AnswerHead, copied: Chunks | None, release: int
    ) -> None:
        if answered is not None:
            mirrored = None if copied is None else _recorded(release, head, copied)
            self._record(exchange, answered, mirrored)

    def _record(self, exchange: Exchange, answered: Chunks, mirrored: Answer | None) -> None:
        """Record a sample of the route's share, while there is room for one this second."""
        share = exchange.way.live.route.sample_share
        if not self._channel.wants_sample:
            self._plane.is_recording = False
        elif exchange.head is not None and (share >= 1.0 or place("sample", exchange.request_id) < share):
            answer = _recorded(exchange.lane.release, exchange.head, answered)
            request_id = exchange.request_id.decode()
            self._channel.record(Sample(request_id, exchange.way.asked.model, time.time(), answer, mirrored))


def _recorded(release: int, head: AnswerHead, body: Chunks) -> Answer:
    length = head.values.get(b"inference-header-content-length", b"")
    encoding = head.values.get(b"content-encoding", b"").decode("latin-1")
    return Answer(release, b"".join(body), int(length) if length.isdigit() and len(length) <= 18 else None, encoding)


def read_labels(body: bytes) -> list[Label]:
    """The labels of a POST to /v1/feedback: one object, or `{"labels": [...]}`.

    Raises:
        ValueError: it is neither; the text says what is wrong.
    """
    try:
        data = json.loads(body)
    except (ValueError, RecursionError) as exc:
        raise ValueError("the body must be JSON") from exc
    entries = data["labels"] if isinstance(data, dict) and "labels" in data else [data]
    if not isinstance(entries, list) or not entries:
        raise ValueError("'labels' must be a list of labels")
    return [Label.from_json(entry) for entry in entries]
