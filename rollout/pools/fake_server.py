"""A tiny HTTP server that pretends to be a Triton with one release, for tests.

Knows as much of the V2 protocol as a gateway needs: ready, metadata, infer in JSON and with binary tensors. The answer
to each row is the class that its first value names, so that a test chooses the answers by the request it sends.
"""

import contextlib
import json
import struct
import threading
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from exporter.release import Release

CLASSES = 10


@dataclass(frozen=True, slots=True)
class Behaviour:
    """How one fake pool behaves. Every `n`-th request means exactly that, so tests need no luck; 0 means none.

    `start_error` makes the start fail with that reason. Failures are answered with 500.
    """

    start_error: str | None = None
    start_delay_s: float = 0.0
    delay_s: float = 0.0
    fail_every: int = 0
    wrong_every: int = 0


class FakeServer(ThreadingHTTPServer):
    """Serves from its making to its `end`, on a free port of 127.0.0.1. `asked` counts inferences."""

    daemon_threads = True
    block_on_close = False

    def __init__(self, release: Release, behaviour: Behaviour) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.release = release
        self.behaviour = behaviour
        self.asked = 0
        self._lock = threading.Lock()
        self._connections: set[Any] = set()
        self._thread = threading.Thread(target=self.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
        self._thread.start()

    def next_number(self) -> int:
        with self._lock:
            self.asked += 1
            return self.asked

    def process_request(self, request: Any, client_address: Any) -> None:
        self._connections.add(request)
        super().process_request(request, client_address)

    def close_request(self, request: Any) -> None:
        self._connections.discard(request)
        super().close_request(request)

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A connection that was cut is what tests want; nothing to tell."""

    def end(self) -> None:
        self.shutdown()
        self._thread.join()
        for connection in list(self._connections):
            with contextlib.suppress(OSError):
                connection.shutdown(2)
        self.server_close()


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    # Head and body leave in two writes, which would otherwise wait for each other's acknowledgement.
    disable_nagle_algorithm = True
    server: FakeServer

    def do_GET(self) -> None:
        release = self.server.release
        base = f"/v2/models/{release.model}"
        if self.path in ("/v2/health/ready", "/v2/health/live", f"{base}/versions/{release.number}/ready"):
            self._answer(200, b"")
        elif self.path in (base, f"{base}/versions/{release.number}"):
            self._answer(200, json.dumps(_metadata(release)).encode())
        else:
            self._answer(404, b'{"error":"Not Found"}')

    def do_POST(self) -> None:
        server = self.server
        body = self.rfile.read(int(self.headers.get("content-length", 0)))
        number, behaviour = server.next_number(), server.behaviour
        time.sleep(behaviour.delay_s)
        if _is_turn(number, behaviour.fail_every):
            self._answer(500, b'{"error":"the fake was told to fail"}')
            return
        try:
            head_length = int(self.headers.get("inference-header-content-length", len(body)))
            rows = list(_rows(json.loads(body[:head_length]), body[head_length:]))
        except (ValueError, KeyError, IndexError, struct.error) as exc:
            self._answer(400, json.dumps({"error": f"the fake cannot read this: {exc!r}"}).encode())
            return
        shift = 1 if _is_turn(number, behaviour.wrong_every) else 0
        labels = [(int(first) + shift) % CLASSES for first in rows]
        self._answer(200, json.dumps(_inference(server.release, labels)).encode())

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 - the name is the base class's
        """Say nothing."""

    def _answer(self, status: int, body: bytes) -> None:
        self.send_response(status)
        self.send_header("content-type", "application/json")
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)


def _is_turn(number: int, every: int) -> bool:
    return every > 0 and number % every == 0


def _rows(head: Mapping[str, Any], binary: bytes) -> Iterator[float]:
    """The first value of each row of the first input, which is FP32 where it is binary."""
    tensor = head["inputs"][0]
    rows = int(tensor["shape"][0])
    values = tensor.get("data") or struct.unpack(f"<{len(binary) // 4}f", binary)
    for row in range(rows):
        value = values[row] if isinstance(values[row], list) else values[row * (len(values) // rows)]
        while isinstance(value, list):
            value = value[0]
        yield value


def _metadata(release: Release) -> dict[str, Any]:
    def tensors(of: Any) -> list[dict[str, Any]]:
        return [{"name": one.name, "datatype": one.dtype, "shape": [-1, *one.dims]} for one in of]

    return {
        "name": release.model,
        "versions": [str(release.number)],
        "platform": "onnxruntime_onnx",
        "inputs": tensors(release.signature.inputs),
        "outputs": tensors(release.signature.outputs),
    }


def _inference(release: Release, labels: list[int]) -> dict[str, Any]:
    outputs = [{"name": release.prediction, "datatype": "INT64", "shape": [len(labels), 1], "data": labels}]
    return {"model_name": release.model, "model_version": str(release.number), "outputs": outputs}
