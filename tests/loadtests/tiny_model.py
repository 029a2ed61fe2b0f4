"""A real HTTP server that speaks enough of the protocol to be loaded: one model, settable answers, kept records."""

import json
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import numpy as np

METADATA = {"name": "digits", "inputs": [{"name": "image", "datatype": "FP32", "shape": [-1, 8, 8]}]}


@dataclass(slots=True)
class Received:
    """One inference request as it came: its row [1, 8, 8], and whether it was binary."""

    row: np.ndarray
    is_binary: bool
    headers: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class Reply:
    """How the model answers. `status` 0 breaks the connection without an answer."""

    status: int = 200
    label: int = 0
    release: str = "digits/1"
    is_fallback: bool = False
    text: str = ""


@dataclass(slots=True)
class TinyModel:
    """What it was asked, and what it says; `answer` may block to stall."""

    answer: Callable[[int], Reply] = lambda _number: Reply()
    feedback_status: int = 202
    received: list[Received] = field(default_factory=list)
    labels: list[dict[str, Any]] = field(default_factory=list)
    url: str = ""
    lock: threading.Lock = field(default_factory=threading.Lock)


def serve(model: TinyModel) -> ThreadingHTTPServer:
    """Serve the model on a free port, in a thread; `shutdown` and `server_close` end it."""

    class Handler(_Handler):
        tiny = model

    server = _Server(("127.0.0.1", 0), Handler)
    model.url = f"http://127.0.0.1:{server.server_address[1]}"
    threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()
    return server


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 256

    def handle_error(self, *_: object) -> None:
        """A load that ends breaks its connections: say nothing on the test's output."""


class _Handler(BaseHTTPRequestHandler):
    tiny: TinyModel
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True

    def do_GET(self) -> None:
        if self.path == "/v2/models/digits":
            self._say(200, METADATA)
        else:
            self._say(404, {"error": "no such model"})

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["content-length"]))
        if self.path == "/v1/feedback":
            with self.tiny.lock:
                said = json.loads(body)
                self.tiny.labels += said.get("labels", [said])
            self._say(self.tiny.feedback_status, {})
            return
        with self.tiny.lock:
            self.tiny.received.append(_read(body, dict(self.headers.items())))
            number = len(self.tiny.received)
        self._reply(self.tiny.answer(number), number)

    def _reply(self, reply: Reply, number: int) -> None:
        if reply.status == 0:
            self.close_connection = True
            return
        headers = {"x-sluice-release": reply.release, "x-request-id": f"request-{number}"}
        if reply.is_fallback:
            headers["x-sluice-fallback"] = "1"
        output = {"name": "label", "datatype": "INT64", "shape": [1, 1], "data": [reply.label]}
        self._say(reply.status, reply.text or {"outputs": [output]}, headers)

    def _say(self, status: int, content: object, headers: Mapping[str, str] | None = None) -> None:
        data = content.encode() if isinstance(content, str) else json.dumps(content).encode()
        self.send_response(status)
        for name, value in {**(headers or {}), "content-length": str(len(data))}.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(data)

    def log_message(self, *_: object) -> None:
        """Say nothing on the test's output."""


def _read(body: bytes, headers: dict[str, str]) -> Received:
    headers = {name.lower(): value for name, value in headers.items()}
    length = headers.get("inference-header-content-length")
    head = json.loads(body[: int(length)] if length else body)["inputs"][0]
    flat = np.frombuffer(body[int(length) :], "<f4") if length else np.array(head["data"], np.float32)
    return Received(flat.reshape(head["shape"]), length is not None, headers)
