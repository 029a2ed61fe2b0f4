"""The real gateway as a process, and clients on raw sockets."""

import contextlib
import json
import os
import re
import signal
import socket
import struct
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]
START_S = 20.0
_SAMPLE = re.compile(r"^(\w+)(?:\{(.*)\})? (\S+)$")


def free_port() -> int:
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        port: int = sock.getsockname()[1]
        return port


def eventually(holds: Callable[[], Any], within_s: float = 10.0) -> Any:
    """Wait until `holds` is true, and return it."""
    ends = time.monotonic() + within_s
    while not (value := holds()):
        assert time.monotonic() < ends, f"it did not come within {within_s} s; last: {value!r}"
        time.sleep(0.02)
    return value


def route(model: str, servers: dict[int, list[str]], **more: Any) -> dict[str, Any]:
    return {"model": model, "revision": 1, "stable": 1, "servers": {str(n): at for n, at in servers.items()}, **more}


def table(*routes: dict[str, Any], version: int = 1) -> dict[str, Any]:
    return {"version": version, "routes": list(routes)}


class Gateway:
    """`python -m sluice gateway` with files of its own. `code` is the folder with its packages."""

    def __init__(
        self, folder: Path, routes: dict[str, Any] | None = None, control: str = "", code: Path = ROOT, **settings: Any
    ) -> None:
        self.port, self.metrics_port = free_port(), free_port()
        self.folder = folder
        folder.mkdir(parents=True, exist_ok=True)
        values = {
            "listen": f"127.0.0.1:{self.port}", "metrics_listen": f"127.0.0.1:{self.metrics_port}", "workers": 1,
            "state_dir": str(folder / "state"), "counter_slots": 64, "report_every_s": 0.1,
        } | settings  # fmt: skip
        self._settings = values
        self.configure()
        arguments = ["--config", str(folder / "gateway.toml")]
        if routes is not None:
            (folder / "routes.json").write_text(json.dumps(routes))
            arguments += ["--routes", str(folder / "routes.json")]
        if control:
            arguments += ["--control-url", control]
        self.log = folder / "gateway.log"
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "sluice", "gateway", *arguments], cwd=code, stdout=log, stderr=log
            )

    def configure(self, **settings: Any) -> None:
        """Write its configuration, with these settings changed."""
        self._settings |= settings
        lines = [f"{key} = {json.dumps(value)}" for key, value in self._settings.items()]
        (self.folder / "gateway.toml").write_text("\n".join(["[gateway]", *lines, ""]))

    @property
    def address(self) -> tuple[str, int]:
        return "127.0.0.1", self.port

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def ready(self) -> "Gateway":
        """Wait until it serves."""
        try:
            eventually(self._is_ready, START_S)
        except AssertionError:
            self.kill()
            raise
        return self

    def _is_ready(self) -> bool:
        return self.health("ready") == 200

    def health(self, what: str) -> int:
        """The status of /v2/health/live or ready; 0 when nobody answers."""
        assert self.process.poll() is None, self.log.read_text()[-2000:]
        try:
            with Client(self.address) as client:
                return client.ask(get(f"/v2/health/{what}", b"Connection: close\r\n")).status
        except OSError:
            return 0

    def metrics(self) -> dict[tuple[str, str], float]:
        """Every sample by (name, labels as they are written)."""
        with urllib.request.urlopen(f"http://127.0.0.1:{self.metrics_port}/metrics", timeout=5) as answer:
            text = answer.read().decode()
        found = (_SAMPLE.match(line) for line in text.splitlines())
        return {(one[1], one[2] or ""): float(one[3]) for one in found if one}

    def metric(self, name: str, **labels: str) -> float:
        """The sum of the samples of this name that carry these labels."""
        wanted = [f'{key}="{value}"' for key, value in labels.items()]
        metrics = self.metrics().items()
        return sum(value for (known, text), value in metrics if known == name and all(one in text for one in wanted))

    def counted(self, model: str, **labels: str) -> dict[str, float]:
        """Requests by outcome."""
        counts: dict[str, float] = {}
        for (name, text), value in self.metrics().items():
            wanted = [f'{key}="{one}"' for key, one in {"model": model, **labels}.items()]
            if name == "sluice_requests_total" and value and all(one in text for one in wanted):
                outcome = text.split('outcome="')[1].split('"')[0]
                counts[outcome] = counts.get(outcome, 0) + value
        return counts

    def worker_pids(self) -> list[int]:
        path = Path(f"/proc/{self.process.pid}/task/{self.process.pid}/children")
        return [int(pid) for pid in path.read_text().split()]

    def signal(self, number: signal.Signals) -> None:
        self.process.send_signal(number)

    def stop(self, within_s: float = 15.0) -> int:
        """SIGTERM; its exit code. All workers must be gone then."""
        pids = self.worker_pids() if self.process.poll() is None else []
        self.process.terminate()
        try:
            code = self.process.wait(within_s)
        except subprocess.TimeoutExpired:
            self.kill()
            raise
        assert not [pid for pid in pids if is_alive(pid)]
        return code

    def kill(self) -> None:
        pids = self.worker_pids() if self.process.poll() is None else []
        self.process.kill()
        self.process.wait(10)
        for pid in pids:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)


def is_alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().split(")")[1].split()[0] != "Z"
    except OSError:
        return False


@contextlib.contextmanager
def running(
    folder: Path, routes: dict[str, Any] | None = None, control: str = "", **settings: Any
) -> Iterator[Gateway]:
    """A gateway that serves; killed afterwards if it still runs."""
    gateway = Gateway(folder, routes, control, **settings).ready()
    try:
        yield gateway
    finally:
        if gateway.process.poll() is None:
            gateway.stop()


@dataclass(frozen=True)
class Answer:
    """One answer off the wire."""

    status: int
    headers: dict[str, str]
    body: bytes

    def json(self) -> Any:
        return json.loads(self.body)


class Client:
    """A client on a raw socket."""

    def __init__(self, address: tuple[str, int], timeout_s: float = 10.0, receive_bytes: int = 0) -> None:
        self.sock = socket.socket()
        if receive_bytes:
            self.sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_bytes)
        self.sock.settimeout(timeout_s)
        try:
            self.sock.connect(address)
        except OSError:
            self.sock.close()
            raise
        self.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._left = b""

    def __enter__(self) -> "Client":
        return self

    def __exit__(self, *_: object) -> None:
        self.sock.close()

    def send(self, data: bytes) -> None:
        self.sock.sendall(data)

    def ask(self, data: bytes) -> Answer:
        self.send(data)
        return self.answer()

    def answer(self, to_head: bool = False) -> Answer:
        """The next answer; ConnectionError when the connection ends before it is whole."""
        head = self._until(b"\r\n\r\n")[:-4].decode("latin-1")
        first, *lines = head.split("\r\n")
        headers = {name.lower(): value for name, _, value in (line.partition(": ") for line in lines)}
        status = int(first.split(" ")[1])
        if to_head or status < 200:
            return Answer(status, headers, b"")
        if headers.get("transfer-encoding") == "chunked":
            return Answer(status, headers, self._chunks())
        if "content-length" in headers:
            return Answer(status, headers, self._exactly(int(headers["content-length"])))
        return Answer(status, headers, self.rest())

    def rest(self) -> bytes:
        """Everything until the gateway closes."""
        data, self._left = [self._left], b""
        with contextlib.suppress(ConnectionResetError):
            while more := self.sock.recv(1 << 20):
                data.append(more)
        return b"".join(data)

    def half_close(self) -> None:
        self.sock.shutdown(socket.SHUT_WR)

    def reset(self) -> None:
        self.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.sock.close()

    def _chunks(self) -> bytes:
        body = []
        while size := int(self._until(b"\r\n")[:-2], 16):
            body.append(self._exactly(size))
            assert self._exactly(2) == b"\r\n"
        assert self._until(b"\r\n") == b"\r\n"
        return b"".join(body)

    def _until(self, end: bytes) -> bytes:
        while end not in self._left:
            self._more()
        found, _, self._left = self._left.partition(end)
        return found + end

    def _exactly(self, size: int) -> bytes:
        parts, have = [self._left], len(self._left)
        while have < size:
            more = self.sock.recv(1 << 20)
            if not more:
                raise ConnectionError("the connection ended inside an answer")
            parts.append(more)
            have += len(more)
        data = b"".join(parts)
        self._left = data[size:]
        return data[:size]

    def _more(self) -> None:
        data = self.sock.recv(1 << 16)
        if not data:
            raise ConnectionError("the connection ended before an answer")
        self._left += data


def infer(model: str = "plain", body: bytes = b'{"inputs": []}', headers: bytes = b"", version: str = "") -> bytes:
    path = f"/v2/models/{model}{version}/infer".encode()
    return b"POST %s HTTP/1.1\r\nHost: gw\r\n%sContent-Length: %d\r\n\r\n%s" % (path, headers, len(body), body)


def get(path: str, headers: bytes = b"", method: str = "GET", host: str = "gw") -> bytes:
    return f"{method} {path} HTTP/1.1\r\nHost: {host}\r\n".encode() + headers + b"\r\n"


def chunked(*chunks: bytes, trailers: bytes = b"") -> bytes:
    return b"".join(b"%x\r\n%s\r\n" % (len(one), one) for one in chunks) + b"0\r\n" + trailers + b"\r\n"
