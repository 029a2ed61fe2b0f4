"""Prometheus: what the gateway counted since its start, on a port of its own."""

import socket
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from socketserver import ThreadingMixIn
from typing import Any
from wsgiref.simple_server import WSGIRequestHandler, WSGIServer

from prometheus_client import CollectorRegistry, make_wsgi_app
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily
from prometheus_client.metrics_core import Metric
from prometheus_client.registry import Collector

from gateway.counters import FALLBACKS, RETRIES, Counts
from gateway.ledger import Arm
from gateway.windows import BUCKETS_PER_OCTAVE, LAST_BUCKET, Outcome, upper_edge_us

SCRAPES_MOST, SCRAPE_TIMEOUT_S = 32, 5.0
"""Connections that are served at a time, and how long one may send or take nothing."""
_LABELS = ["model", "release", "role"]


@dataclass(frozen=True, slots=True)
class Seen:
    """A reading of the gateway for one scrape."""

    totals: dict[Arm, Counts]
    in_flight: dict[str, int]
    table_version: int
    workers: int
    workers_replaced: int
    control_plane_is_reached: bool
    reports_dropped: int = 0
    table_is_refused: bool = False
    """The newest route table offered could not be used; an older one is in force."""
    generation: int = 0
    gauges: Mapping[str, int] = field(default_factory=dict)
    counted: Mapping[str, int] = field(default_factory=dict)
    refused: Mapping[str, int] = field(default_factory=dict)
    """Requests and connections that the gateway itself refused, by status."""


class GatewayCollector(Collector):
    """Turns a reading into metric families at each scrape."""

    def __init__(self, read: Callable[[], Seen]) -> None:
        self._read = read

    def collect(self) -> Iterable[Metric]:
        seen = self._read()
        yield from _by_arm(seen.totals)
        in_flight = GaugeMetricFamily("sluice_requests_in_flight", "Requests on their way.", labels=["release"])
        for release, n in seen.in_flight.items():
            in_flight.add_metric([release], n)
        yield in_flight
        for name, text, value in (
            ("sluice_route_table_version", "Version of the route table in force.", seen.table_version),
            (
                "sluice_route_table_refused",
                "1 when the newest route table offered cannot be used, so that an older one is in force.",
                seen.table_is_refused,
            ),
            ("sluice_workers", "Worker processes that serve.", seen.workers),
            ("sluice_generation", "Reloads and upgrades since the start.", seen.generation),
            (
                "sluice_control_plane_up",
                "1 when the control plane was reached last time.",
                seen.control_plane_is_reached,
            ),
        ):
            yield GaugeMetricFamily(name, text, value=float(value))
        yield from _by_worker(seen)
        yield CounterMetricFamily("sluice_workers_replaced", "Workers that died.", value=seen.workers_replaced)
        yield CounterMetricFamily(
            "sluice_reports_dropped", "Reports the backlog had no room for.", value=seen.reports_dropped
        )


GAUGES = {
    "connections": "Clients' connections.",
    "exchanges": "Requests that clients wait for, waiting ones included.",
    "waiting": "Requests that wait for room at their release.",
    "mirrors": "Copies on their way.",
    "held_bytes": "Bodies, copies and unread answers held in memory.",
}
COUNTERS = {
    "accepted": ("sluice_connections_accepted", "Clients' connections since the start."),
    "ejections": ("sluice_ejections", "How often a server was left out after failures in a row."),
    "openings": ("sluice_breaker_openings", "How often a release that only failed was cut off on the spot."),
    "notes_dropped": ("sluice_notes_dropped", "Log lines and spans there was no room for."),
}


def _by_worker(seen: Seen) -> Iterator[Metric]:
    for name, text in GAUGES.items():
        yield GaugeMetricFamily(f"sluice_{name}", text, value=seen.gauges.get(name, 0))
    for name, (metric, text) in COUNTERS.items():
        yield CounterMetricFamily(metric, text, value=seen.counted.get(name, 0))
    refused = CounterMetricFamily(
        "sluice_refused", "Requests and connections that the gateway itself refused.", labels=["status"]
    )
    for status, number in seen.refused.items():
        refused.add_metric([status], number)
    yield refused


def _by_arm(totals: dict[Arm, Counts]) -> Iterator[Metric]:
    requests = CounterMetricFamily(
        "sluice_requests", "Requests by the release assigned first, and how they ended.", labels=[*_LABELS, "outcome"]
    )
    latency = HistogramMetricFamily("sluice_latency_seconds", "Latency of good answers.", labels=_LABELS)
    fallbacks = CounterMetricFamily("sluice_fallbacks", "Failures that stable answered instead.", labels=_LABELS)
    retries = CounterMetricFamily("sluice_retries", "Requests tried on another server.", labels=_LABELS)
    dropped = CounterMetricFamily("sluice_mirrors_dropped", "Copies not sent, by reason.", labels=[*_LABELS, "reason"])
    for (model, release, role), counts in totals.items():
        labels = [model, str(release), role.value]
        for outcome in Outcome:
            requests.add_metric([*labels, outcome.name.lower()], counts[outcome])
        buckets, total_s = _octaves(counts)
        latency.add_metric(labels, buckets, total_s)
        fallbacks.add_metric(labels, counts[FALLBACKS])
        retries.add_metric(labels, counts[RETRIES])
        for reason, n in counts.dropped().items():
            dropped.add_metric([*labels, reason], n)
    yield from (requests, latency, fallbacks, retries, dropped)


def _octaves(counts: Counts) -> tuple[list[tuple[str, float]], float]:
    """Cumulative counts at every doubling of 50 us; the sum is estimated from upper edges (2 % wide buckets)."""
    cumulative, total_s = 0, 0.0
    buckets: list[tuple[str, float]] = []
    histogram = counts.histogram()
    for bucket in range(LAST_BUCKET + 1):
        n = histogram.get(bucket, 0)
        cumulative += n
        if n:
            total_s += n * upper_edge_us(min(bucket, LAST_BUCKET - 1)) / 1e6
        if bucket % BUCKETS_PER_OCTAVE == 0 and bucket < LAST_BUCKET:
            buckets.append((f"{upper_edge_us(bucket) / 1e6:.6g}", cumulative))
    buckets.append(("+Inf", cumulative))
    return buckets, total_s


def serve_metrics(listener: socket.socket, read: Callable[[], Seen]) -> WSGIServer:
    """Serve /metrics on a listening socket, in threads, until the server is shut down."""
    registry = CollectorRegistry()
    registry.register(GatewayCollector(read))
    host, port = listener.getsockname()[:2]
    server = _Server((host, port), _Silent, bind_and_activate=False)
    server.socket.close()
    server.socket = listener
    server.server_name, server.server_port = host, port
    server.setup_environ()
    server.set_app(make_wsgi_app(registry))
    threading.Thread(target=server.serve_forever, args=(0.1,), daemon=True).start()
    return server


class _Server(ThreadingMixIn, WSGIServer):
    """A thread for each connection, and for a few of them at a time: more are closed."""

    daemon_threads = True

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._room = threading.BoundedSemaphore(SCRAPES_MOST)

    def verify_request(self, request: Any, client_address: Any) -> bool:
        return self._room.acquire(blocking=False)

    def process_request_thread(self, request: Any, client_address: Any) -> None:
        try:
            super().process_request_thread(request, client_address)
        finally:
            self._room.release()

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A scraper that goes away, or is too slow, is no news either."""


class _Silent(WSGIRequestHandler):
    timeout = SCRAPE_TIMEOUT_S

    def log_message(self, *_: object) -> None:
        """Scrapes are no news."""
