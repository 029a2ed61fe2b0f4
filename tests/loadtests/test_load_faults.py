"""Faults hit exactly the process in the record, and nothing when it is gone."""

import json
import signal
import subprocess
from pathlib import Path

import pytest

from loadtests.errors import LoadError
from loadtests.faults import crash_pool, kill_control_plane
from rollout.pools import kernel, records
from rollout.pools.records import PoolProcess
from tests.loadtests.conftest import Sleeper


def _record(home: Path, release: int, process: "subprocess.Popen[bytes]", ticks: int = 0) -> None:
    stat = kernel.read_stat(process.pid)
    assert stat is not None
    folder = records.pool_folder(home, "digits", release)
    folder.mkdir(parents=True)
    pool = PoolProcess("digits", release, process.pid, stat.started_ticks + ticks, 1, 2, 3, folder, "none_")
    records.write_record(pool, is_ready=True)


def test_only_the_release_asked_for_crashes(tmp_path: Path, sleeper: Sleeper) -> None:
    three, four = sleeper(), sleeper()
    _record(tmp_path, 3, three)
    _record(tmp_path, 4, four)
    assert crash_pool(tmp_path, "digits", 4) == four.pid
    assert four.wait(5) == -signal.SIGSEGV
    assert three.poll() is None


def test_a_release_without_a_server_is_an_error_that_names_it(tmp_path: Path, sleeper: Sleeper) -> None:
    with pytest.raises(LoadError, match="no server of digits/4 to crash"):
        crash_pool(tmp_path, "digits", 4)
    gone = sleeper()
    _record(tmp_path, 4, gone)
    gone.kill()
    gone.wait()
    with pytest.raises(LoadError, match="no server of digits/4 to crash"):
        crash_pool(tmp_path, "digits", 4)


def test_a_process_that_got_the_servers_number_is_left_alone(tmp_path: Path, sleeper: Sleeper) -> None:
    other = sleeper()
    _record(tmp_path, 4, other, ticks=-100)
    with pytest.raises(LoadError):
        crash_pool(tmp_path, "digits", 4)
    assert other.poll() is None


def _control_record(home: Path, text: str) -> None:
    (home / "logs").mkdir()
    (home / "logs" / "control.pid").write_text(text)


def test_the_control_plane_is_killed_and_nothing_else(tmp_path: Path, sleeper: Sleeper) -> None:
    control, other = sleeper("control", "--home", str(tmp_path)), sleeper("control", "--home", "/elsewhere")
    _control_record(tmp_path, str(control.pid))
    assert kill_control_plane(tmp_path) == control.pid
    assert control.wait(5) == -signal.SIGKILL
    assert other.poll() is None


@pytest.mark.parametrize("text", [None, "", "no number", "4194305"])
def test_no_control_plane_is_an_error_that_names_the_record(tmp_path: Path, text: str | None) -> None:
    if text is not None:
        _control_record(tmp_path, text)
    with pytest.raises(LoadError, match=r"no control plane to kill .*control\.pid"):
        kill_control_plane(tmp_path)


def test_a_process_that_got_the_control_planes_number_is_left_alone(tmp_path: Path, sleeper: Sleeper) -> None:
    other = sleeper()
    _control_record(tmp_path, json.dumps(other.pid))
    with pytest.raises(LoadError, match="which is another"):
        kill_control_plane(tmp_path)
    assert other.poll() is None
