"""One gateway with one worker for most tests, in front of scripted servers; tests that break it start their own."""

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import pytest

from tests.gateway.fakes import FakeControl, FakeServer, LoopThread
from tests.gateway.harness import Client, Gateway, eventually, free_port, route, running, table

IN_FLIGHT_S = 15.0
FRESH = 100


@dataclass
class Stage:
    """A gateway and its servers. For each kind of model (see `whole_stage`) there are many alike."""

    gateway: Gateway
    stable: FakeServer
    candidate: FakeServer
    first: FakeServer
    second: FakeServer
    shadow: FakeServer
    numbers: Iterator[int] = field(default_factory=lambda: iter(range(FRESH)))

    def client(self, timeout_s: float = 10.0, receive_bytes: int = 0) -> Client:
        return Client(self.gateway.address, timeout_s, receive_bytes)

    def fresh(self, kind: str) -> str:
        """A model of this kind that nothing was asked of yet, so that its counts are the test's own."""
        return f"{kind}-{next(self.numbers)}"

    def counts_are(self, model: str, expected: dict[str, float]) -> None:
        """Wait until the model's requests have been counted like this."""
        seen: dict[str, float] = {}

        def agree() -> bool:
            seen.clear()
            seen.update(self.gateway.counted(model))
            return seen == expected

        try:
            eventually(agree, 4.0)
        except AssertionError:
            assert seen == expected


@pytest.fixture(scope="session")
def loop_thread() -> Iterator[LoopThread]:
    thread = LoopThread()
    yield thread
    thread.stop()


@pytest.fixture(scope="session")
def whole_stage(loop_thread: LoopThread, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stage]:
    stable, candidate, first, second, shadow = (FakeServer(loop_thread) for _ in range(5))
    at, to = [stable.address], [candidate.address]
    nobody = [f"127.0.0.1:{free_port()}"]
    kinds: dict[str, dict[str, Any]] = {
        "plain": {"servers": {1: at, 2: to}},
        "canary": {"servers": {1: at, 2: to}, "candidate": {"release": 2, "weight": 1.0}, "deadline_s": 1.0},
        "half": {
            "servers": {1: at, 2: to}, "candidate": {"release": 2, "weight": 0.5}, "salt": "s",
            "sticky_header": "x-user",
        },
        "pair": {"servers": {1: [first.address, second.address]}, "deadline_s": 2.0},
        "down": {"servers": {1: nobody}},
        "refused": {"servers": {1: at, 2: nobody}, "candidate": {"release": 2, "weight": 1.0}},
        "shadow": {"servers": {1: at, 2: [shadow.address]}, "shadow": {"release": 2, "share": 1.0}, "deadline_s": 2.0},
    }  # fmt: skip
    names = [(kind, name) for kind in kinds for name in (kind, *(f"{kind}-{n}" for n in range(FRESH)))]
    routes = table(*(route(name, **kinds[kind]) for kind, name in names))
    with running(tmp_path_factory.mktemp("gateway") / "stage", routes, counter_slots=4096) as gateway:
        yield Stage(gateway, stable, candidate, first, second, shadow)
        eventually(lambda: gateway.metric("sluice_requests_in_flight") == 0, IN_FLIGHT_S)
        assert gateway.metric("sluice_workers_replaced_total") == 0
    for server in (stable, candidate, first, second, shadow):
        server.stop()


@pytest.fixture
def stage(whole_stage: Stage) -> Iterator[Stage]:
    for server in (
        whole_stage.stable, whole_stage.candidate, whole_stage.first, whole_stage.second, whole_stage.shadow,
    ):  # fmt: skip
        server.reset()
    yield whole_stage
    assert "Traceback" not in whole_stage.gateway.log.read_text()


@pytest.fixture
def server(loop_thread: LoopThread) -> Iterator[FakeServer]:
    server = FakeServer(loop_thread)
    yield server
    server.stop()


@pytest.fixture
def control(loop_thread: LoopThread) -> Iterator[FakeControl]:
    control = FakeControl(loop_thread)
    yield control
    control.server.stop()
