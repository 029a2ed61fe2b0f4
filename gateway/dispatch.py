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
from gateway.exchange import Exchange, Plane
from gateway.http1 import ClientConnection, Exchanging, Request
from gateway.live import LiveRoute, LiveTable
from gateway.mirror import Mirror, MirrorBudget
from gateway.paths import Asked, Kind, PathError, understand
from gateway.routes import place
from gateway.samples import Answer, Label, Sample
from gateway.windows import Role

_EXTENSIONS = [
    "classification",
    "sequence",
    "model_configuration",
    "binary_tensor_data",
    "statistics",
    "sluice_feedback",
]


class Dispatcher:
    """Understands a request and starts its exchange (http1.Handler)."""

    def __init__(self, config: GatewayConfig, channel: Channel) -> None:
        self._config = config
        self._channel = channel
        self._plane = Plane(config, self._answered)
        self._mirrors = MirrorBudget(config)
        self._id_prefix = os.urandom(6).hex()
        self._ids = 0
        self.table: LiveTable | None = None
        self.is_ready = False

    def expire(self) -> None:
        self._plane.expire()
        self._mirrors.expire()

    @property
    def in_flight(self) -> int:
        return len(self._plane.in_flight)

    def handle(self, request: Request, client: ClientConnection) -> Exchanging | None:
        try:
            asked = understand(request.method, request.target)
        except PathError as exc:
            allow = b"allow: %s\r\n" % exc.allow if exc.allow else b""
            client.answer(request, exc.status, error_body(exc.text), allow)
            return None
        if asked.kind in (Kind.INFER, Kind.GENERATE, Kind.READ):
            return self._exchange(asked, request, client)
        self._own(asked.kind, request, client)
        return None

    def _exchange(self, asked: Asked, request: Request, client: ClientConnection) -> Exchanging | None:
        live = self.table.routes.get(asked.model) if self.table is not None else None
        if live is None:
            status = 503 if self.table is None else 404
            text = "no route table has arrived yet" if self.table is None else f"unknown model {asked.model!r}"
            client.answer(request, status, error_body(text))
            return None
        request_id = self._request_id(request)
        key = request.header(live.sticky_header) or request_id
        asked = _pinned(asked, request)
        release = asked.version if asked.version is not None else _release(asked, live, key)
        lane = live.lanes.get(release)
        if lane is None:
            client.answer(request, 404, error_body(f"model {asked.model!r} has no release {release} here"))
            return None
        exchange = Exchange(self._plane, client, request, asked, live, lane, key, request_id)
        exchange.start()
        return exchange

    def _request_id(self, request: Request) -> bytes:
        given = request.header(b"x-request-id")
        if given is not None and 0 < len(given) <= 128 and given.isascii() and b" " not in given:
            return given
        self._ids += 1
        return f"{self._id_prefix}-{self._ids:x}".encode()

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

    def _answered(self, exchange: Exchange, answer: Answer | None) -> None:
        """An answer left: copy its request to the shadow, or just record it."""
        live = exchange.live
        is_stables = exchange.role is Role.ANSWERED and exchange.assigned.release == live.route.stable
        if live.mirror is not None and is_stables and live.route.is_mirrored(exchange.key):
            mirror = Mirror(self._mirrors, exchange, live.mirror, answer, self._record)
            if mirror.start():
                return
        self._record(exchange, answer, None)

    def _record(self, exchange: Exchange, answered: Answer | None, mirrored: Answer | None) -> None:
        """Record a sample, unless stable's answer was too large for one."""
        if answered is None:
            return
        share = exchange.live.route.sample_share
        if share >= 1.0 or place("sample", exchange.request_id) < share:
            request_id = exchange.request_id.decode()
            self._channel.record(Sample(request_id, exchange.asked.model, time.time(), answered, mirrored))


def _release(asked: Asked, live: LiveRoute, key: bytes) -> int:
    return live.route.stable if asked.kind is Kind.READ else live.route.pick(key)


def _pinned(asked: Asked, request: Request) -> Asked:
    """A release asked for by the `x-sluice-release` header counts like one in the path."""
    header = request.header(b"x-sluice-release") if asked.version is None else None
    if header is None:
        return asked
    model, _, number = header.rpartition(b"/")
    is_meant = number.isdigit() and len(number) <= 18 and model in (b"", asked.model.encode())
    version = int(number) if is_meant else 0  # Which no release has.
    return Asked(asked.kind, asked.model, version, asked.action)


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
