"""The tiny model, and processes of the test's own that are gone when it ends."""

import subprocess
import sys
from collections.abc import Callable, Iterator

import pytest

from tests.loadtests.tiny_model import TinyModel, serve

Sleeper = Callable[..., "subprocess.Popen[bytes]"]


@pytest.fixture
def tiny() -> Iterator[TinyModel]:
    model = TinyModel()
    server = serve(model)
    yield model
    server.shutdown()
    server.server_close()


@pytest.fixture
def sleeper() -> Iterator[Sleeper]:
    """Starts processes that sleep, with arguments to be found by."""
    started = []

    def start(*arguments: str, env: dict[str, str] | None = None) -> "subprocess.Popen[bytes]":
        process = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)", *arguments], env=env)
        started.append(process)
        return process

    yield start
    for process in started:
        process.kill()
        process.wait()
