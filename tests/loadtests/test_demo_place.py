"""The demo's place is its own: nothing else is deleted, two demos never share one, and its traces are found."""

import contextlib
import json
import os
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest

from loadtests.demo.place import MARKER, taken
from loadtests.demo.traces import Traces, marked_environment, processes_of
from loadtests.errors import DemoError
from loadtests.ports import free_addresses, held_addresses
from tests.loadtests.conftest import Sleeper


def test_a_folder_of_someone_else_is_refused_and_left_alone(tmp_path: Path) -> None:
    (tmp_path / "thesis").mkdir()
    (tmp_path / "thesis" / "chapter").write_text("years of work")
    with pytest.raises(DemoError, match="not empty and not an earlier demo's"), taken(tmp_path):
        pass
    assert (tmp_path / "thesis" / "chapter").read_text() == "years of work"
    assert [entry.name for entry in tmp_path.iterdir()] == ["thesis"]


def test_a_file_or_a_forbidden_folder_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("mine")
    for folder in (tmp_path / "file", tmp_path / "file" / "below", Path("/proc/none")):
        with pytest.raises(DemoError, match="choose another folder with --home"), taken(folder):
            pass
    assert (tmp_path / "file").read_text() == "mine"


def test_an_earlier_demos_folder_is_emptied_but_not_what_it_links_to(tmp_path: Path) -> None:
    home, other = tmp_path / "demo", tmp_path / "other"
    other.mkdir()
    (other / "kept").touch()
    with taken(home) as place:
        (place.home / "runs").mkdir()
        (place.home / "runs" / "old").touch()
        (place.home / "link").symlink_to(other)
    with taken(home) as place:
        assert [entry.name for entry in place.home.iterdir()] == [MARKER]
    assert (other / "kept").exists()


def test_two_demos_cannot_share_a_folder_or_an_address(tmp_path: Path) -> None:
    with taken(tmp_path / "one") as one, taken(tmp_path / "two") as two:
        (one.home / "up.log").touch()
        with pytest.raises(DemoError, match="a demo runs in"), taken(tmp_path / "one"):
            pass
        assert (one.home / "up.log").exists()
        addresses = {one.clients, one.metrics, one.control, two.clients, two.metrics, two.control}
        assert len(addresses) == 6


def test_addresses_can_be_listened_on_once_they_are_let_go(tmp_path: Path) -> None:
    with taken(tmp_path / "demo") as place, contextlib.ExitStack() as listening:
        place.let_go()
        for address in (place.clients, place.metrics, place.control):
            listening.enter_context(socket.create_server(("127.0.0.1", int(address.rpartition(":")[2]))))


def test_usual_ports_are_taken_only_when_they_are_free() -> None:
    with contextlib.ExitStack() as held:
        (first,) = held_addresses(held, 0)
        port = int(first.rpartition(":")[2])
        (second,) = free_addresses(port)
        assert second != first
    assert free_addresses(port) == [first]


def test_a_killed_demos_processes_keep_their_files(tmp_path: Path, sleeper: Sleeper) -> None:
    with taken(tmp_path) as place:
        (place.home / "up.log").touch()
    left = sleeper(env=marked_environment(place.home))
    with pytest.raises(DemoError, match=f"`kill {left.pid}`"), taken(tmp_path):
        pass
    assert (tmp_path / "up.log").exists()


def test_processes_are_found_by_what_they_inherit(tmp_path: Path, sleeper: Sleeper) -> None:
    ours, theirs = tmp_path / "demo", tmp_path / "demo-2"
    sleeper(str(ours))
    sleeper(env=marked_environment(theirs))
    script = "import subprocess, sys; subprocess.run([sys.executable, '-c', 'import time; time.sleep(60)'])"
    parent = subprocess.Popen([sys.executable, "-c", script], env=marked_environment(ours))
    ends = time.monotonic() + 10
    while len(processes_of(ours)) < 2 and time.monotonic() < ends:
        time.sleep(0.02)
    assert len(processes_of(ours)) == 2
    assert parent.pid in processes_of(ours)
    traces = Traces(ours)
    assert len(traces.left()) == 2
    traces.end()
    assert parent.wait(5) < 0
    while processes_of(ours) and time.monotonic() < ends:
        time.sleep(0.02)
    assert traces.left() == []


def test_shared_memory_is_found_after_its_record_is_gone(tmp_path: Path) -> None:
    prefix = f"sluice_test_{os.getpid()}_"
    record = tmp_path / "pools" / "digits-1" / "process.json"
    record.parent.mkdir(parents=True)
    record.write_text(json.dumps({"shm_prefix": prefix}))
    traces = Traces(tmp_path)
    traces.look()
    record.unlink()
    segment = Path("/dev/shm") / f"{prefix}region"
    segment.touch()
    assert traces.left() == [f"shared memory {segment.name}"]
    segment.unlink()
    assert traces.left() == []
