"""The real server as a process: what a start promises, what a stop leaves, and what survives the control plane."""

import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from exporter.release import Golden, Release
from rollout.pools import kernel
from rollout.pools.errors import PoolStartError, TritonMissingError, WrongAnswerError
from rollout.pools.installation import Places
from rollout.pools.process import TritonHost
from rollout.pools.records import RECORD, PoolProcess, pool_folder, read_record
from rollout.pools.server import LOG
from tests.pools.clients import ask, call, changed, image

pytestmark = pytest.mark.triton

GRAPH = "triton/digits/1/model.onnx"
ROW = image(np.zeros((1, 8, 8)))

# A control plane in a process of its own: starts the release in argv[2] below argv[1], and then waits to be killed.
CONTROL_PLANE = """
import sys, time
from pathlib import Path
from exporter.release import read_release
from rollout.pools.process import TritonHost
folder = Path(sys.argv[2])
TritonHost(Path(sys.argv[1])).start(read_release(folder), folder)
print("started", flush=True)
time.sleep(60)
"""


def _segments(pool: PoolProcess) -> list[Path]:
    return list(kernel.SHARED_MEMORY.glob(f"{pool.shm_prefix}*"))


def test_started_pool_answers_and_stopped_pool_leaves_nothing(host: TritonHost, exported: tuple[Release, Path]) -> None:
    pool = host.start(*exported)
    assert ask(pool, [ROW])[0] == 200
    assert host.is_alive(pool)
    assert len(kernel.in_session(pool.pid)) == 2
    assert len(_segments(pool)) == 1
    assert host.start(*exported) == pool
    assert host.found() == [pool]

    host.stop(pool, timeout_s=10)
    assert not host.is_alive(pool)
    assert kernel.in_session(pool.pid) == []
    assert _segments(pool) == []
    assert host.found() == []
    assert not (pool.folder / RECORD).exists()
    host.stop(pool, timeout_s=10)


def test_killed_server_leaves_nothing_after_stop_and_others_are_untouched(
    host: TritonHost, exported: tuple[Release, Path], tmp_path: Path
) -> None:
    neighbour = TritonHost(tmp_path / "neighbour")
    other = neighbour.start(*exported)
    pool = host.start(*exported)
    os.kill(pool.pid, signal.SIGKILL)
    _until(lambda: not host.is_alive(pool))
    host.stop(pool, timeout_s=10)
    assert kernel.in_session(pool.pid) == []
    assert _segments(pool) == []
    assert len(_segments(other)) == 1
    assert ask(other, [ROW])[0] == 200
    assert host.start(*exported).pid != pool.pid
    neighbour.stop(other, timeout_s=0)


def test_body_of_many_megabytes_does_not_crash_the_server(host: TritonHost, exported: tuple[Release, Path]) -> None:
    """With the usual stack size this is a segmentation fault."""
    pool = host.start(*exported)
    path = f"/v2/models/{pool.model}/versions/{pool.release}/infer"
    status, _ = call(pool, "POST", path, '{"inputs": "' + "a" * 60_000_000 + '"}')
    assert status in (400, 500)
    assert host.is_alive(pool)
    status, answer = ask(pool, [image(np.zeros((2, 8, 8)))])
    assert status == 200, answer


def test_pool_whose_backend_process_died_is_not_alive_and_is_started_anew(
    host: TritonHost, exported: tuple[Release, Path]
) -> None:
    """The server itself goes on, answers 500 for ever and says that it is ready."""
    pool = host.start(*exported)
    (backend,) = [pid for pid in kernel.in_session(pool.pid) if pid != pool.pid]
    os.kill(backend, signal.SIGKILL)
    ends = time.monotonic() + 5.0
    while host.is_alive(pool) and time.monotonic() < ends:
        time.sleep(0.01)
    assert not host.is_alive(pool)
    again = host.start(*exported)
    assert again.pid != pool.pid
    assert ask(again, [image(np.zeros((1, 8, 8)))])[0] == 200
    assert kernel.in_session(pool.pid) == []


def test_crashed_server_says_why_in_its_last_words(host: TritonHost, exported: tuple[Release, Path]) -> None:
    pool = host.start(*exported)
    os.kill(pool.pid, signal.SIGSEGV)
    _until(lambda: not host.is_alive(pool))
    assert re.fullmatch(r"Signal \(11\) received.*; see .*triton\.log", host.last_words(pool))


def test_stop_in_no_time_kills_the_backend_process_too(host: TritonHost, exported: tuple[Release, Path]) -> None:
    pool = host.start(*exported)
    host.stop(pool, timeout_s=0)
    assert kernel.in_session(pool.pid) == []
    assert _segments(pool) == []


def test_control_plane_that_was_killed_finds_its_pool(host: TritonHost, exported: tuple[Release, Path]) -> None:
    pool = host.start(*exported)
    host.stop(pool, timeout_s=0)
    home = pool.folder.parent.parent
    command = [sys.executable, "-c", CONTROL_PLANE, str(home), str(exported[1])]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as control_plane:
        assert control_plane.stdout is not None
        assert control_plane.stdout.readline() == b"started\n"
        control_plane.kill()

    [adopted] = host.found()
    assert ask(adopted, [ROW])[0] == 200
    assert host.start(*exported) == adopted
    host.stop(adopted, timeout_s=10)
    assert kernel.in_session(adopted.pid) == []
    assert _segments(adopted) == []


def test_interrupted_start_is_tidied_up(host: TritonHost, exported: tuple[Release, Path], tmp_path: Path) -> None:
    folder = pool_folder(tmp_path / "home", "digits", 1)
    command = [sys.executable, "-c", CONTROL_PLANE, str(tmp_path / "home"), str(exported[1])]
    with subprocess.Popen(command, stdout=subprocess.DEVNULL) as control_plane:
        _until(lambda: (record := read_record(folder)) is not None and record.pool.pid > 0)
        control_plane.kill()
    record = read_record(folder)
    assert record is not None
    assert not record.is_ready
    assert host.found() == []
    assert kernel.in_session(record.pool.pid) == []
    assert _segments(record.pool) == []
    assert ask(host.start(*exported), [ROW])[0] == 200


@pytest.mark.parametrize(("name", "value"), [("label", [[1], [1], [1], [1]]), ("probabilities", [[0.5] * 10] * 4)])
def test_wrong_answers_are_never_routed_to(
    host: TritonHost, exported: tuple[Release, Path], name: str, value: list[list[float]]
) -> None:
    release, folder = exported
    golden = Golden(release.golden.inputs, {**release.golden.outputs, name: value}, release.golden.tolerance)
    with pytest.raises(WrongAnswerError, match=f'where "{name}" is'):
        host.start(replace(release, golden=golden), folder)
    assert host.found() == []


def test_corrupt_graph_is_refused(host: TritonHost, exported: tuple[Release, Path], tmp_path: Path) -> None:
    release, folder = exported
    corrupt, copy = changed(release, folder, tmp_path / "corrupt", GRAPH, "pytorch", "pytarch" * 9)
    with pytest.raises(PoolStartError, match=r"digits/1: .*model\.onnx was changed after it was written"):
        host.start(release, copy)
    with pytest.raises(PoolStartError, match=r"ended while it started: .*ONNX Runtime cannot load"):
        host.start(corrupt, copy)
    assert host.found() == []


def test_start_that_takes_too_long_leaves_nothing(exported: tuple[Release, Path], tmp_path: Path) -> None:
    host = TritonHost(tmp_path / "home", start_timeout_s=0.05)
    with pytest.raises(PoolStartError, match=r"was not ready after 0.05 s; see .*triton\.log"):
        host.start(*exported)
    log = (pool_folder(tmp_path / "home", "digits", 1) / LOG).resolve()
    assert kernel.with_argument(str(log.parent)) is None
    assert host.found() == []


def test_missing_triton_is_told_before_anything_starts(exported: tuple[Release, Path], tmp_path: Path) -> None:
    host = TritonHost(tmp_path / "home", Places((), None, ()))
    with pytest.raises(TritonMissingError, match="run `make setup`"):
        host.start(*exported)
    assert host.found() == []


def _until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 30
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.001)
