"""Two real Tritons that run already: what a load promises, what an unload leaves, and what a restart of either does."""

import contextlib
import http.client
import signal
import threading
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from exporter.release import Golden, Release, release_folder
from rollout.pools import kernel, server, v2
from rollout.pools.errors import PoolStartError, WrongAnswerError
from rollout.pools.loaded import LoadedPool, State, model_folder, read_records, write_record
from rollout.pools.running import SILENCE_S, RunningHost
from rollout.pools.triton import Triton
from tests.exporter.tiny import tiny_release, tiny_run
from tests.pools.clients import ask, changed, image
from tests.pools.tritons import RunningTriton, running_tritons

pytestmark = pytest.mark.triton

ROW = image(np.zeros((1, 8, 8)))
Exported = tuple[Release, Path]


@pytest.fixture(scope="session")
def second(exported: Exported, tmp_path_factory: pytest.TempPathFactory) -> Exported:
    """The next release of the same model, of another run."""
    repository = exported[1].parent.parent
    release = tiny_release(tiny_run(tmp_path_factory.mktemp("runs") / "second", seed=1), repository)
    return release, release_folder(repository, release.model, release.number)


@pytest.fixture
def servers(tmp_path: Path) -> Iterator[list[RunningTriton]]:
    with running_tritons(tmp_path, tmp_path / "served") as servers:
        yield servers


@pytest.fixture
def host(tmp_path: Path, servers: list[RunningTriton]) -> RunningHost:
    return _host(tmp_path, servers)


def _host(folder: Path, servers: list[RunningTriton], home: str = "home") -> RunningHost:
    return RunningHost(folder / home, folder / "served", [one.triton for one in servers])


def _ready(servers: list[RunningTriton], number: int) -> list[bool]:
    return [v2.is_ready(one.triton.http, "digits", number) for one in servers]


@contextlib.contextmanager
def _asking(pool: LoadedPool) -> Iterator[list[int]]:
    """Ask all servers of a pool all the time; the statuses of all answers, 0 where there was none."""
    statuses: list[int] = []
    is_over = threading.Event()

    def ask_one(address: str) -> None:
        while not is_over.is_set():
            try:
                statuses.append(ask(replace(pool, addresses=(address,)), [ROW])[0])
            except (OSError, http.client.HTTPException):
                statuses.append(0)
            is_over.wait(0.002)

    threads = [threading.Thread(target=ask_one, args=(address,)) for address in pool.addresses]
    for thread in threads:
        thread.start()
    yield statuses
    is_over.set()
    for thread in threads:
        thread.join()


def test_releases_come_and_go_beside_each_other_without_one_failed_request(
    host: RunningHost, servers: list[RunningTriton], exported: Exported, second: Exported
) -> None:
    first = host.start(*exported)
    assert first.addresses == tuple(one.triton.http for one in servers)
    with _asking(first) as statuses:
        other = host.start(*second)
        assert ask(other, [ROW])[1]["model_version"] == "2"
        assert host.start(*second) == other
        assert host.found() == [first, other]
        assert host.is_alive(first)
        assert host.is_alive(other)
        host.stop(other, timeout_s=10)
        host.stop(other, timeout_s=10)
        assert _ready(servers, 2) == [False, False]
        assert not host.is_alive(other)
    assert set(statuses) == {200}
    assert len(statuses) > 50
    assert host.found() == [first]

    host.stop(first, timeout_s=10)
    assert _ready(servers, 1) == [False, False]
    assert host.found() == []
    assert ask(host.start(*second), [ROW])[1]["model_version"] == "2"
    assert _ready(servers, 1) == [False, False]


def test_damaged_release_is_refused_in_tritons_words_and_the_first_is_served_on(
    host: RunningHost, servers: list[RunningTriton], exported: Exported, second: Exported, tmp_path: Path
) -> None:
    first = host.start(*exported)
    damaged, copy = changed(*second, tmp_path / "damaged", "triton/digits/2/model.onnx", "pytorch", "pytarch" * 9)
    with _asking(first) as statuses:
        with pytest.raises(PoolStartError, match=r"2/model\.onnx was changed after it was written"):
            host.start(second[0], copy)
        with pytest.raises(PoolStartError, match=r"did not load digits: .*ONNX Runtime cannot load"):
            host.start(damaged, copy)
    assert set(statuses) == {200}
    assert host.is_alive(first)
    assert host.found() == [first]
    assert _ready(servers, 2) == [False, False]


def test_release_that_answers_wrongly_is_unloaded_again(
    host: RunningHost, servers: list[RunningTriton], exported: Exported, second: Exported
) -> None:
    first = host.start(*exported)
    release, folder = second
    golden = Golden(release.golden.inputs, {**release.golden.outputs, "label": [[11]] * 4}, release.golden.tolerance)
    with pytest.raises(WrongAnswerError, match='where "label" is 11'):
        host.start(replace(release, golden=golden), folder)
    assert _ready(servers, 1) == [True, True]
    assert _ready(servers, 2) == [False, False]
    assert host.found() == [first]


def test_server_that_was_killed_is_left_out_and_loaded_again_once_it_is_back(
    host: RunningHost, servers: list[RunningTriton], exported: Exported, second: Exported
) -> None:
    first, other = host.start(*exported), host.start(*second)
    servers[1].kill()
    assert host.is_alive(first)
    assert server.wait(lambda: not host.is_alive(first), 2 * SILENCE_S)
    assert host.last_words(first) is None
    left = host.start(*exported)
    assert left.addresses == (servers[0].triton.http,)
    assert host.is_alive(left)

    servers[1].start()
    servers[1].wait()
    assert not host.is_alive(left)
    assert not host.is_alive(other)
    assert host.start(*exported) == first
    assert host.start(*second).addresses == other.addresses
    assert _ready(servers, 1) == _ready(servers, 2) == [True, True]
    assert host.is_alive(first)
    assert host.is_alive(other)


def test_server_that_came_back_empty_is_routed_to_only_when_it_is_loaded(
    host: RunningHost, servers: list[RunningTriton], exported: Exported
) -> None:
    first = host.start(*exported)
    servers[1].kill()
    servers[1].start()
    servers[1].wait()
    assert not host.is_alive(first)
    left = host.start(*exported)
    assert left.addresses == (servers[0].triton.http,)
    assert _ready(servers, 1) == [True, False]
    assert not host.is_alive(left)
    assert host.start(*exported) == first
    assert host.is_alive(first)


def test_pool_that_lost_all_its_servers_says_so_and_is_loaded_again(
    host: RunningHost, servers: list[RunningTriton], exported: Exported
) -> None:
    first = host.start(*exported)
    for one in servers:
        one.kill()
    assert server.wait(lambda: host.last_words(first) is not None, 2 * SILENCE_S)
    assert f"{servers[1].triton.http} has not answered" in (host.last_words(first) or "")
    with pytest.raises(PoolStartError, match=f"no Triton answers HTTP at {servers[0].triton.http}"):
        host.start(*exported)
    for one in servers:
        one.start()
    for one in servers:
        one.wait()
    assert "it was restarted" in (host.last_words(first) or "")
    assert host.start(*exported) == first


def test_server_that_is_slow_once_is_not_dead(
    host: RunningHost, servers: list[RunningTriton], exported: Exported
) -> None:
    pool = host.start(*exported)
    servers[1].signal(signal.SIGSTOP)
    try:
        assert host.is_alive(pool)
    finally:
        servers[1].signal(signal.SIGCONT)
    assert host.is_alive(pool)


def test_restarted_control_plane_adopts_what_is_loaded_and_ends_what_was_interrupted(
    host: RunningHost, servers: list[RunningTriton], exported: Exported, second: Exported, tmp_path: Path
) -> None:
    first = host.start(*exported)
    host.start(*second)
    records = model_folder(tmp_path / "home", "digits")
    write_record(records, replace(read_records(records)[2], state=State.LOADING))

    again = _host(tmp_path, servers)
    assert again.found() == [first]
    assert again.is_alive(first)
    assert _ready(servers, 2) == [False, False]
    servers[0].kill()
    assert again.found() == [first]
    servers[0].start()
    servers[0].wait()
    left = replace(first, addresses=first.addresses[1:])
    assert again.found() == [left]
    assert again.start(*exported) == left
    assert again.start(*exported) == first


@pytest.mark.parametrize("protocol", ["HTTP", "gRPC"])
def test_wrong_address_is_named_and_nothing_stays_loaded(
    servers: list[RunningTriton], exported: Exported, tmp_path: Path, protocol: str
) -> None:
    good, (port,) = servers[0].triton, kernel.free_ports(1)
    wrong = Triton(f"127.0.0.1:{port}", good.grpc) if protocol == "HTTP" else Triton(good.http, f"127.0.0.1:{port}")
    host = RunningHost(tmp_path / "home", tmp_path / "served", [good, wrong])
    with pytest.raises(PoolStartError, match=rf"no Triton answers {protocol} at 127\.0\.0\.1:{port}: is it running"):
        host.start(*exported)
    assert _ready(servers, 1) == [False, False]
    assert host.found() == []


def test_number_is_never_used_for_other_bytes(
    host: RunningHost, servers: list[RunningTriton], exported: Exported, tmp_path: Path
) -> None:
    host.stop(host.start(*exported), timeout_s=10)
    other, copy = changed(*exported, tmp_path / "other", "triton/digits/1/model.onnx", "pytorch", "pytarch")
    with pytest.raises(PoolStartError, match="another digits/1 was loaded before"):
        host.start(other, copy)
    with pytest.raises(PoolStartError, match="is of another digits/1"):
        _host(tmp_path, servers, home="new-home").start(other, copy)
    assert _ready(servers, 1) == [False, False]


def test_triton_on_another_repository_is_told(tmp_path: Path, exported: Exported) -> None:
    with running_tritons(tmp_path, tmp_path / "elsewhere", count=1) as servers:
        host = _host(tmp_path, servers)
        with pytest.raises(PoolStartError, match=r"failed to poll from .* \(does it read the repository"):
            host.start(*exported)
        assert host.found() == []
