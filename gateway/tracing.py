"""Traces: W3C `traceparent` in and out (https://www.w3.org/TR/trace-context/), and spans sent to a collector by OTLP.

A worker begins and ends spans as plain values (`Tracer`); the supervisor makes OpenTelemetry's of them and sends them
in batches (`SpanExporter`), so that no request waits for a collector and none is lost with a worker.
"""

import os
import random
import re
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from gateway.errors import ConfigError
from gateway.heads import Request

_TRACEPARENT = re.compile(rb"([0-9a-f]{2})-([0-9a-f]{32})-([0-9a-f]{16})-([0-9a-f]{2})(-.*)?")
_SAMPLED = 1
FLUSH_S = 2.0


@dataclass(frozen=True, slots=True)
class Span:
    """A span that began: ids in hex, `parent_id` empty for the first of its trace."""

    trace_id: str
    span_id: str
    parent_id: str


def parse_traceparent(value: bytes) -> tuple[str, str, bool] | None:
    """Trace id, parent's span id and whether it is sampled; None for what is not valid and starts a new trace."""
    match = _TRACEPARENT.fullmatch(value)
    if match is None or match[1] == b"ff" or (match[1] == b"00" and match[5]):
        return None
    trace_id, parent_id = match[2].decode(), match[3].decode()
    if not trace_id.strip("0") or not parent_id.strip("0"):
        return None
    return trace_id, parent_id, bool(int(match[4], 16) & _SAMPLED)


class Tracer:
    """Begins a span for what is sampled: what the caller's `traceparent` says, or `share` of the rest."""

    def __init__(self, share: float) -> None:
        self._share = share

    def begin(self, request: Request) -> Span | None:
        """A span for this request, whose server is told of it as its parent; None when it is not sampled."""
        given = parse_traceparent(request.head.values.get(b"traceparent", b""))
        if given is None:
            if random.random() >= self._share:
                return None
            span = Span(os.urandom(16).hex(), os.urandom(8).hex(), "")
        elif given[2]:
            span = Span(given[0], os.urandom(8).hex(), given[1])
        else:
            return None
        request.head = request.head.with_line(f"traceparent: 00-{span.trace_id}-{span.span_id}-01\r\n".encode())
        return span


class SpanExporter:
    """Sends spans to an OTLP collector in the background. Needs the extra `otel`."""

    def __init__(self, endpoint: str, gateway: str) -> None:
        """Raises ConfigError when OpenTelemetry is not installed."""
        try:
            from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
            from opentelemetry.sdk.resources import Resource
            from opentelemetry.sdk.trace.export import BatchSpanProcessor
        except ImportError as exc:
            raise ConfigError(
                "trace_endpoint needs OpenTelemetry: pip install 'sluice[otel]', or leave trace_endpoint empty"
            ) from exc
        self._resource = Resource.create({"service.name": "sluice-gateway", "service.instance.id": gateway})
        self._processor = BatchSpanProcessor(OTLPSpanExporter(endpoint=endpoint))

    def export(self, note: Mapping[str, Any]) -> None:
        """Queue the span of a request that is over; `note` as `notes.note_of` makes it."""
        from opentelemetry.sdk.trace import ReadableSpan
        from opentelemetry.trace import SpanContext, SpanKind, Status, StatusCode, TraceFlags

        def context(trace_id: str, span_id: str, is_remote: bool) -> SpanContext:
            return SpanContext(int(trace_id, 16), int(span_id, 16), is_remote, TraceFlags(TraceFlags.SAMPLED))

        trace_id, span_id, parent_id = note["span"]
        ended_ns = int(note["at"] * 1e9)
        code = StatusCode.ERROR if note["status"] >= 500 or not note["status"] else StatusCode.UNSET
        attributes = {
            "http.request.method": note["method"],
            "http.response.status_code": note["status"],
            "sluice.model": note["model"],
            "sluice.release": note["release"],
            "sluice.assigned": note["assigned"],
            "sluice.request_id": note["request_id"],
        }
        span = ReadableSpan(
            name=f"{note['method']} {note['action']} {note['model']}",
            context=context(trace_id, span_id, False),
            parent=context(trace_id, parent_id, True) if parent_id else None,
            resource=self._resource,
            attributes=attributes,
            kind=SpanKind.SERVER,
            start_time=ended_ns - int(note["latency_ms"] * 1e6),
            end_time=ended_ns,
            status=Status(code),
        )
        self._processor.on_end(span)

    def flush(self) -> None:
        """Send what is queued, within two seconds."""
        _within(FLUSH_S, self._processor.force_flush)

    def close(self) -> None:
        """The same, for the last time."""
        _within(FLUSH_S, self._processor.shutdown)


def _within(seconds: float, work: Callable[[], Any]) -> None:
    """Wait so long for it, whatever it does meanwhile: OpenTelemetry waits half a minute for a collector that hangs."""
    thread = threading.Thread(target=work, daemon=True)
    thread.start()
    thread.join(seconds)
