"""One real release a session, and hosts that leave nothing behind."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from exporter.release import Release, release_folder
from rollout.pools import kernel
from rollout.pools.process import TritonHost
from tests.exporter.tiny import tiny_release, tiny_run

STOP_S = 10.0


@pytest.fixture(scope="session")
def exported(tmp_path_factory: pytest.TempPathFactory) -> tuple[Release, Path]:
    """A release and its folder; a test that changes anything works on a copy."""
    repository = tmp_path_factory.mktemp("models")
    release = tiny_release(tiny_run(tmp_path_factory.mktemp("runs") / "tiny"), repository)
    return release, release_folder(repository, release.model, release.number)


@pytest.fixture
def host(tmp_path: Path) -> Iterator[TritonHost]:
    """A host of the real server. Afterwards its pools are stopped, and must have left nothing."""
    host = TritonHost(tmp_path / "home")
    yield host
    stopped = host.found()
    for pool in stopped:
        host.stop(pool, timeout_s=0)
    assert [pool.name for pool in stopped if kernel.in_session(pool.pid)] == []
    assert [path for pool in stopped for path in kernel.SHARED_MEMORY.glob(f"{pool.shm_prefix}*")] == []
