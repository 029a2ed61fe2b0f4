"""What the kernel says: processes that are, were, and only look alike; ports; segments."""

import os
import secrets
import socket
import subprocess
import sys

from rollout.pools import kernel

SLEEP = [sys.executable, "-c", "import time; time.sleep(60)"]


def test_process_is_known_by_its_start_not_by_its_pid_alone() -> None:
    stat = kernel.read_stat(os.getpid())
    assert stat is not None
    assert kernel.is_running(os.getpid(), stat.started_ticks)
    assert not kernel.is_running(os.getpid(), stat.started_ticks + 1)


def test_dead_process_is_not_running_and_laid_to_rest() -> None:
    pid = os.posix_spawn(sys.executable, [sys.executable, "-c", ""], {})
    stat = kernel.read_stat(pid)
    assert stat is not None
    while kernel.is_running(pid, stat.started_ticks):
        os.sched_yield()
    assert kernel.read_stat(pid) is None


def test_session_is_its_leader_and_what_that_started() -> None:
    mark = secrets.token_hex(8)
    code = f"import subprocess, sys; subprocess.run({SLEEP}, stdin=sys.stdin) # {mark}"
    with subprocess.Popen([sys.executable, "-c", code], stdin=subprocess.DEVNULL, start_new_session=True) as leader:
        while len(kernel.in_session(leader.pid)) < 2:
            os.sched_yield()
        assert kernel.with_argument(mark) == leader.pid
        os.killpg(leader.pid, 9)
    assert kernel.with_argument(mark) is None


def test_ports_are_free_and_different() -> None:
    ports = kernel.free_ports(20)
    assert len(set(ports)) == 20
    with socket.create_server(("127.0.0.1", 0)) as server:
        assert server.getsockname()[1] not in ports


def test_only_segments_of_the_prefix_are_removed() -> None:
    mark = f"sluice_test_{secrets.token_hex(8)}"
    ours, others = kernel.SHARED_MEMORY / f"{mark}_a_1", kernel.SHARED_MEMORY / f"{mark}_b_1"
    ours.touch()
    others.touch()
    kernel.remove_segments(f"{mark}_a_")
    assert not ours.exists()
    assert others.exists()
    kernel.remove_segments(f"{mark}_b_")
