"""`sluice demo` as a process: refused and interrupted, it leaves nothing behind."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from loadtests.demo.traces import processes_of

ROOT = Path(__file__).parents[2]


def _demo(home: Path, output: Path) -> "subprocess.Popen[bytes]":
    command = [sys.executable, "-m", "sluice", "demo", "--home", str(home)]
    with output.open("wb") as file:
        return subprocess.Popen(command, stdout=file, stderr=file, cwd=ROOT, start_new_session=True)


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143), (signal.SIGHUP, 129)])
def test_an_interrupted_demo_stops_what_it_started(tmp_path: Path, number: signal.Signals, code: int) -> None:
    home, output = tmp_path / "demo", tmp_path / "output"
    demo = _demo(home, output)
    ends = time.monotonic() + 60
    while len(processes_of(home)) < 2 and demo.poll() is None and time.monotonic() < ends:
        time.sleep(0.05)
    os.killpg(demo.pid, number)  # As a terminal does: to the whole group, and impatiently twice.
    time.sleep(0.05)
    os.killpg(demo.pid, number)
    assert demo.wait(30) == code
    said = output.read_text()
    assert "training four models" in said
    assert said.endswith("stopped; nothing is left running\n")
    assert "Traceback" not in said
    assert processes_of(home) == []


def test_a_folder_of_someone_else_is_a_clear_error(tmp_path: Path) -> None:
    (tmp_path / "mine").touch()
    output = tmp_path.parent / f"{tmp_path.name}.output"
    assert _demo(tmp_path, output).wait(60) == 2
    assert output.read_text().startswith(f"error: {tmp_path} is not empty and not an earlier demo's")
    assert (tmp_path / "mine").exists()
