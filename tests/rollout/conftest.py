"""A control plane on a fake host of pools, with a clock and a gateway of the test's own."""

import contextlib
import socket
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
import uvicorn
from fastapi import FastAPI

from gateway.samples import Label
from gateway.windows import Outcome, Role, Window, bucket_of
from rollout.api.app import build
from rollout.api.server import ControlServer
from rollout.config import ControlSettings
from rollout.pools.fake import FakeHost
from tests.rollout.releases import sample, write_release
from tests.rollout.servers import PostgresServer, programs


class Plane:
    """A control plane, and the gateway that reports to it."""

    def __init__(self, client: httpx.Client, host: FakeHost, settings: ControlSettings) -> None:
        self.client, self.host, self.settings = client, host, settings
        self.reports = 0
        self.requests = 0
        self.boot = f"boot-{time.monotonic_ns()}"

    def begin(self, release: int, plan: dict[str, Any] | None = None) -> httpx.Response:
        order = {"model": "digits", "release": release, "plan": plan or {}, "by": "test"}
        return self.client.post("/v1/rollouts", json=order)

    def rollout(self, key: int) -> dict[str, Any]:
        found: dict[str, Any] = self.client.get(f"/v1/rollouts/{key}").json()
        return found

    def wait(self, key: int, is_there: Callable[[dict[str, Any]], bool], timeout_s: float = 20.0) -> dict[str, Any]:
        """Report nothing, every now and then, until a rollout is where it should be."""
        ends = time.monotonic() + timeout_s
        while time.monotonic() < ends:
            found = self.rollout(key)
            if is_there(found):
                return found
            self.report()
            time.sleep(0.03)
        raise AssertionError(f"it stayed {self.rollout(key)}")

    def wait_status(self, key: int, *statuses: str) -> dict[str, Any]:
        return self.wait(key, lambda found: found["status"] in statuses)

    def route(self) -> dict[str, Any]:
        found: dict[str, Any] = self.client.get("/v1/routes").json()["routes"][0]
        return found

    def window(
        self,
        release: int,
        weight: float,
        ok: int,
        failed: int = 0,
        role: Role = Role.ANSWERED,
        revision: int | None = None,
    ) -> dict[str, Any]:
        """Counts under the route in force, or under an older revision."""
        self.requests += 1
        revision = self.route()["revision"] if revision is None else revision
        return Window(
            gateway="g", boot=self.boot, sequence=self.requests, revision=revision, model="digits",
            release=release, role=role, weight=weight, started_at=time.time(), length_s=1.0,
            outcomes={Outcome.OK: ok, Outcome.SERVER_ERROR: failed}, histogram={bucket_of(1000.0): ok} if ok else {},
        ).to_json()  # fmt: skip

    def report(
        self, windows: Any = (), samples: Any = (), labels: Any = (), version: int | None = None
    ) -> httpx.Response:
        """One report, saying that the newest route table (or another) is in force and nothing is in flight."""
        version = self.client.get("/v1/routes").json()["version"] if version is None else version
        self.reports += 1
        return self.client.post(
            "/v1/gateway/reports",
            json={
                "gateway": "g", "boot": self.boot, "sequence": self.reports, "applied_version": version,
                "in_flight": {}, "windows": list(windows), "samples": list(samples), "labels": list(labels),
            },
        )  # fmt: skip

    def pairs(self, number: int, stable: tuple[int, int], candidate: tuple[int, int], truth: int) -> httpx.Response:
        """Report mirrored requests with their labels: what (release, class) stable and candidate said."""
        ids = [f"{self.boot}-{self.reports}-{index}" for index in range(number)]
        return self.report(
            samples=[sample(one, stable, candidate).to_json() for one in ids],
            labels=[Label(one, "digits", (truth,)).to_json() for one in ids],
        )


def quick(**more: Any) -> dict[str, Any]:
    """A plan that decides within seconds, for tests."""
    return {
        "block_s": 1.0, "cap_blocks": 2, "warmup_s": 0.0, "bake_s": 0.2, "longest_s": 60.0,
        "guards": {"latency": {"required": False}},
        "stages": [
            {"shadow_share": 1.0, "soak_s": 0.1, "min_requests": 10, "clear": ["quality"]},
            {"weight": 0.5, "shadow_share": 1.0, "soak_s": 0.1, "min_requests": 10},
        ],
        **more,
    }  # fmt: skip


def running(settings: ControlSettings, host: FakeHost) -> contextlib.AbstractContextManager[httpx.Client]:
    """A control plane on a real socket, until the block ends."""
    return running_app(build(settings, host))


@contextlib.contextmanager
def running_app(app: FastAPI) -> Iterator[httpx.Client]:
    listener = socket.create_server(("127.0.0.1", 0))
    config = uvicorn.Config(app, log_level="warning", timeout_graceful_shutdown=1)
    server = ControlServer(config, app.state.context.feed)
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]})
    thread.start()
    port = listener.getsockname()[1]
    try:
        with httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=10.0, trust_env=False) as client:
            yield client
    finally:
        server.should_exit = True
        thread.join()
        listener.close()


@pytest.fixture(scope="session")
def postgres(tmp_path_factory: pytest.TempPathFactory) -> Iterator[PostgresServer]:
    """Outside pytest's own folders, into which no other user may look."""
    found = programs()
    if found is None:
        pytest.skip("PostgreSQL is not installed: `apt-get install postgresql`")
    with tempfile.TemporaryDirectory(prefix="sluice-postgres-") as folder:
        Path(folder).chmod(0o755)
        server = PostgresServer(Path(folder) / "server", found)
        yield server
        server.stop()


@pytest.fixture(params=["sqlite", "postgresql"])
def database_url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """An empty database: everything that is kept is tried on both kinds."""
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path / 'control.db'}"
    server: PostgresServer = request.getfixturevalue("postgres")
    return server.emptied("test")


@pytest.fixture
def settings(tmp_path: Path, database_url: str) -> ControlSettings:
    return ControlSettings(
        home=str(tmp_path / "home"), repository=str(tmp_path / "models"), tick_s=0.05, gateway_timeout_s=0.5,
        database=database_url,
    )  # fmt: skip


@pytest.fixture
def repository(settings: ControlSettings) -> Path:
    for number in (1, 2, 3):
        write_release(settings.repository_path, number)
    return settings.repository_path


@pytest.fixture
def plane(settings: ControlSettings, repository: Path, tmp_path: Path) -> Iterator[Plane]:
    host = FakeHost(tmp_path)
    with running(settings, host) as client:
        yield Plane(client, host, settings)
    host.close()


@pytest.fixture
def serving(plane: Plane) -> Plane:
    """A control plane whose model `digits` has release 1 as stable."""
    key = plane.begin(1).json()["id"]
    plane.wait(key, lambda found: bool(found["is_settled"]))
    return plane
