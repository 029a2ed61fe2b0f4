"""One gateway with one worker for most tests, in front of scripted servers; tests that break it start their own."""

from collections.abc import Iterator
from dataclasses import dataclass

import pytest

from tests.gateway.fakes import FakeControl, FakeServer, LoopThread
from tests.gateway.harness import Client, Gateway, eventually, free_port, route, running, table

IN_FLIGHT_S = 15.0


@dataclass
class Stage:
    """A gateway and its servers. Models: see `stage_table`."""

    gateway: Gateway
    stable: FakeServer
    candidate: FakeServer
    first: FakeServer
    second: FakeServer
    shadow: FakeServer

    def client(self, timeout_s: float = 10.0, receive_bytes: int = 0) -> Client:
        return Client(self.gateway.address, timeout_s, receive_bytes)

    def counts_grow(self, model: str, before: dict[str, float], expected: dict[str, float]) -> None:
        """Wait until the model's counts have grown by exactly this."""

        def grown() -> bool:
            now = self.gateway.counted(model)
            return {key: n for key in now if (n := now[key] - before.get(key, 0))} == expected

        eventually(grown, 5.0)


@pytest.fixture(scope="session")
def loop_thread() -> Iterator[LoopThread]:
    thread = LoopThread()
    yield thread
    thread.stop()


@pytest.fixture(scope="session")
def whole_stage(loop_thread: LoopThread, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stage]:
    stable, candidate, first, second, shadow = (FakeServer(loop_thread) for _ in range(5))
    at, to = [stable.address], [candidate.address]
    routes = table(
        route("plain", {1: at, 2: to}),
        route("canary", {1: at, 2: to}, candidate={"release": 2, "weight": 1.0}, deadline_s=1.0),
        route("half", {1: at, 2: to}, candidate={"release": 2, "weight": 0.5}, salt="s", sticky_header="x-user"),
        route("pair", {1: [first.address, second.address]}, deadline_s=2.0),
        route("down", {1: [f"127.0.0.1:{free_port()}"]}),
        route("refused", {1: at, 2: [f"127.0.0.1:{free_port()}"]}, candidate={"release": 2, "weight": 1.0}),
        route("shadow", {1: at, 2: [shadow.address]}, shadow={"release": 2, "share": 1.0}, deadline_s=2.0),
    )
    with running(tmp_path_factory.mktemp("gateway") / "stage", routes) as gateway:
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
