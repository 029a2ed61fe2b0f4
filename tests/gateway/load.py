"""Clients that ask all the time while a test does something to the gateway, and what became of their requests."""

import json
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from tests.gateway.harness import ROOT, Client, Gateway, eventually, infer


def sluice(gateway: Gateway, command: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    """`sluice gateway COMMAND`, asked of this gateway."""
    words = ["-m", "sluice", "gateway", command, "--config", str(gateway.folder / "gateway.toml"), *arguments]
    return subprocess.run([sys.executable, *words], cwd=ROOT, capture_output=True, text=True, timeout=60, check=False)


def status(gateway: Gateway) -> dict[str, Any]:
    """What the gateway says of itself, as `sluice gateway status` reads it."""
    file = gateway.folder / "state" / "status.json"
    eventually(file.exists)
    said: dict[str, Any] = json.loads(file.read_text())
    return said


class Load:
    """Clients with kept connections. `seen` counts answers by status, "announced" closes and "broken" connections."""

    def __init__(self, gateway: Gateway, pause_s: float) -> None:
        self.seen: Counter[str] = Counter()
        self._gateway, self._pause_s = gateway, pause_s
        self._stop = threading.Event()

    def run(self) -> None:
        client = Client(self._gateway.address)
        while not self._stop.is_set():
            try:
                answer = client.ask(infer("m"))
            except OSError:  # Closed without a word.
                self.seen["broken"] += 1
                client.sock.close()
                client = Client(self._gateway.address)
                continue
            self.seen[str(answer.status)] += 1
            if answer.headers.get("connection") == "close":
                self.seen["announced"] += 1
                client.sock.close()
                client = Client(self._gateway.address)
            time.sleep(self._pause_s)
        client.sock.close()

    def stop(self) -> None:
        self._stop.set()


@contextmanager
def load(gateway: Gateway, clients: int = 6, pause_s: float = 0.005) -> Iterator[Load]:
    running_load = Load(gateway, pause_s)
    threads = [threading.Thread(target=running_load.run) for _ in range(clients)]
    for thread in threads:
        thread.start()
    try:
        yield running_load
    finally:
        running_load.stop()
        for thread in threads:
            thread.join()
