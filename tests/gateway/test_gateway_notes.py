"""What is told of single requests: the access log, spans, and metrics of the workers themselves."""

import gzip
import json
import signal
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

from gateway.tracing import parse_traceparent
from tests.gateway.fakes import OK, FakeServer, after, http_answer, says
from tests.gateway.harness import Client, eventually, free_port, get, infer, route, running, table

TRACE, PARENT = "4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7"
BROKEN = says(http_answer(b'{"error": "x"}', b"500 Internal Server Error"))


def lines(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []


def test_every_failure_is_logged_and_of_the_rest_a_share(server: FakeServer, tmp_path: Path) -> None:
    log = tmp_path / "logs" / "access.jsonl"
    routes = table(route("m", {1: [server.address]}))
    with running(tmp_path, routes, access_log=str(log), access_log_share=0.0) as gateway:
        with Client(gateway.address) as client:
            assert client.ask(infer("m", headers=b"X-Request-Id: good\r\n")).status == 200
            server.behave = BROKEN
            assert client.ask(infer("m", b"12345", headers=b"X-Request-Id: bad\r\n")).status == 500
        (line,) = eventually(lambda: lines(log))
        assert (line["request_id"], line["status"], line["release"], line["request_bytes"]) == ("bad", 500, "m/1", 5)
        log.rename(log.with_suffix(".1"))  # As a rotation does.
        with Client(gateway.address) as client:
            client.ask(infer("m", headers=b"X-Request-Id: later\r\n"))
        assert eventually(lambda: lines(log))[0]["request_id"] == "later"


def test_a_line_tells_of_a_fallback_and_all_good_ones_can_be_logged(server: FakeServer, tmp_path: Path) -> None:
    log = tmp_path / "access.jsonl"
    servers = {1: [server.address], 2: [f"127.0.0.1:{free_port()}"]}
    routes = table(route("m", servers, candidate={"release": 2, "weight": 1.0}), route("n", {1: [server.address]}))
    with running(tmp_path, routes, access_log=str(log), access_log_share=1.0) as gateway:
        with Client(gateway.address) as client:
            client.ask(infer("m"))
            client.ask(infer("n", version="/versions/1"))
            client.ask(get("/v2/models/n"))
        eventually(lambda: len(lines(log)) == 3)
    first, second, third = lines(log)
    assert (first["release"], first["assigned"], first["fallback"], first["status"]) == ("m/1", "m/2", True, 200)
    assert (second["pinned"], second["action"], third["action"], third["method"]) == (True, "infer", "metadata", "GET")
    assert all(line["latency_ms"] > 0 and line["answer_bytes"] > 0 for line in (first, second, third))


def test_a_reload_begins_and_ends_the_log(server: FakeServer, tmp_path: Path) -> None:
    log, config = tmp_path / "access.jsonl", tmp_path / "gateway.toml"
    with running(tmp_path, table(route("m", {1: [server.address]}))) as gateway:
        plain = config.read_text()
        for number, settings in enumerate((f'access_log = "{log}"\naccess_log_share = 1.0\n', ""), 1):
            config.write_text(plain + settings)
            gateway.signal(signal.SIGHUP)
            eventually(lambda number=number: gateway.metric("sluice_generation") == number)
            with Client(gateway.address) as client:
                client.ask(infer("m"))
            eventually(lambda: len(lines(log)) == 1)


def test_a_log_that_cannot_be_written_is_told_at_the_start(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with (
        pytest.raises(AssertionError, match=r"access_log .*cannot be written"),
        running(tmp_path / "g", table(), access_log=str(tmp_path / "file" / "log")),
    ):
        pass


@pytest.fixture
def collector() -> Iterator[tuple[str, list[Any]]]:
    """A real HTTP server that takes OTLP."""
    spans: list[Any] = []

    class Taking(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["content-length"]))
            if self.headers.get("content-encoding") == "gzip":
                body = gzip.decompress(body)
            for resource in ExportTraceServiceRequest.FromString(body).resource_spans:
                spans.extend(span for scope in resource.scope_spans for span in scope.spans)
            self.send_response(200)
            self.send_header("content-length", "0")
            self.end_headers()

        def log_message(self, *_: Any) -> None:
            pass

    taking = ThreadingHTTPServer(("127.0.0.1", 0), Taking)
    thread = threading.Thread(target=taking.serve_forever)
    thread.start()
    yield f"http://127.0.0.1:{taking.server_port}/v1/traces", spans
    taking.shutdown()
    thread.join()
    taking.server_close()


def test_spans_continue_the_callers_trace_and_reach_the_collector(
    server: FakeServer, tmp_path: Path, collector: tuple[str, list[Any]]
) -> None:
    endpoint, spans = collector
    routes = table(route("m", {1: [server.address]}))
    sampled = f"Traceparent: 00-{TRACE}-{PARENT}-01\r\n".encode()
    unsampled = f"Traceparent: 00-{TRACE}-{PARENT}-00\r\n".encode()
    settings = {"trace_endpoint": endpoint, "trace_share": 1.0}
    with running(tmp_path, routes, **settings) as gateway, Client(gateway.address) as client:
        for headers in (sampled, unsampled, b"", b"Traceparent: nonsense\r\n"):
            assert client.ask(infer("m", headers=headers)).status == 200
    told = [received.header(b"traceparent") for received in server.requests]
    by_trace = {span.trace_id.hex(): span for span in spans}
    assert len(spans) == 3 and len(by_trace) == 3  # The last ones were sent before the gateway ended.
    span = by_trace[TRACE]
    assert (span.parent_span_id.hex(), span.name) == (PARENT, "POST infer m")
    assert told[0] == f"00-{TRACE}-{span.span_id.hex()}-01".encode()
    assert told[1] == f"00-{TRACE}-{PARENT}-00".encode()
    assert 0 < span.end_time_unix_nano - span.start_time_unix_nano < 5e9
    attributes = {one.key: one.value for one in span.attributes}
    assert attributes["sluice.release"].string_value == "m/1"
    assert attributes["http.response.status_code"].int_value == 200


def test_without_a_collector_a_traceparent_is_passed_on_as_it_is(server: FakeServer, tmp_path: Path) -> None:
    with running(tmp_path, table(route("m", {1: [server.address]}))) as gateway, Client(gateway.address) as client:
        client.ask(infer("m", headers=b"Traceparent: 00-a-b-01\r\nTracestate: x=1\r\n"))
    assert server.requests[0].header(b"traceparent") == b"00-a-b-01"
    assert server.requests[0].header(b"tracestate") == b"x=1"


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (f"00-{TRACE}-{PARENT}-01", (TRACE, PARENT, True)),
        (f"00-{TRACE}-{PARENT}-02", (TRACE, PARENT, False)),
        (f"cc-{TRACE}-{PARENT}-01-what-comes", (TRACE, PARENT, True)),
        (f"ff-{TRACE}-{PARENT}-01", None),
        (f"00-{TRACE}-{PARENT}-01-more", None),
        (f"00-{'0' * 32}-{PARENT}-01", None),
        (f"00-{TRACE}-{'0' * 16}-01", None),
        (f"00-{TRACE.upper()}-{PARENT}-01", None),
        ("", None),
        ("00", None),
    ],
)
def test_a_traceparent_is_read_as_the_standard_says(value: str, expected: tuple[str, str, bool] | None) -> None:
    assert parse_traceparent(value.encode()) == expected


def test_workers_tell_what_they_have_and_their_counts_outlive_them(server: FakeServer, tmp_path: Path) -> None:
    settings = {"release_in_flight": 1, "wait_timeout_s": 5.0, "workers": 1}
    server.behave = after(3.0, OK)  # Workers tell of themselves every second.
    with running(tmp_path, table(route("m", {1: [server.address]})), **settings) as gateway:
        clients = [Client(gateway.address) for _ in range(3)]
        for client in clients:
            client.send(infer("m", b"x" * 1000))
        eventually(lambda: gateway.metric("sluice_waiting") == 2)
        assert gateway.metric("sluice_exchanges") == 3 and gateway.metric("sluice_connections") >= 3
        assert gateway.metric("sluice_held_bytes") >= 3000
        server.behave = OK
        assert {client.answer().status for client in clients} == {200}
        assert clients[0].ask(get("/nowhere")).status == 404
        assert clients[0].ask(b"nonsense\r\n\r\n").status == 400
        eventually(lambda: gateway.metric("sluice_refused_total", status="400") == 1)
        assert gateway.metric("sluice_refused_total", status="404") == 1
        accepted = gateway.metric("sluice_connections_accepted_total")
        assert accepted >= 3
        server.behave = BROKEN
        for _ in range(3):
            assert clients[1].ask(infer("m")).status == 500
        eventually(lambda: gateway.metric("sluice_ejections_total") == 1)
        for client in clients:
            client.sock.close()
        gateway.signal(signal.SIGHUP)
        eventually(lambda: gateway.metric("sluice_generation") == 1)
        eventually(lambda: gateway.metric("sluice_connections") <= 1)
        assert gateway.metric("sluice_ejections_total") == 1
        assert gateway.metric("sluice_connections_accepted_total") >= accepted
