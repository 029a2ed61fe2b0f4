"""Starts what is measured, reads its CPU time from /proc, and stops it. Linux only."""

import contextlib
import os
import signal
import subprocess
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import httpx

from loadtests.errors import BenchError

READY_TIMEOUT_S = 20.0
STOP_TIMEOUT_S = 10.0
TICK_US = 1e6 / os.sysconf("SC_CLK_TCK")


@contextlib.contextmanager
def running(name: str, command: Sequence[str], log: Path) -> Iterator[int]:
    """A process in a session of its own, until the block ends; yields its pid."""
    with log.open("wb") as file:
        process = subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=file, stderr=subprocess.STDOUT, start_new_session=True
        )
    try:
        yield process.pid
        if process.poll() is not None:
            raise BenchError(f"{name} ended by itself ({process.returncode}): {_last_line(log)}")
    finally:
        _stop(process)


def _stop(process: subprocess.Popen[bytes]) -> None:
    process.terminate()
    with contextlib.suppress(subprocess.TimeoutExpired):
        process.wait(STOP_TIMEOUT_S)
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)  # It leads its session: whatever it left behind.
    process.wait()


def _last_line(log: Path) -> str:
    return (log.read_text(errors="replace").strip().splitlines() or ["it said nothing"])[-1]


def wait_until_it_answers(name: str, url: str, body: bytes, log: Path, timeout_s: float = READY_TIMEOUT_S) -> None:
    """Raises BenchError when a POST is not answered with 200 in time."""
    ends = time.monotonic() + timeout_s
    while time.monotonic() < ends:
        with contextlib.suppress(httpx.HTTPError):
            if httpx.post(url, content=body, timeout=2.0, trust_env=False).status_code == 200:
                return
        time.sleep(0.05)
    raise BenchError(f"{name} did not answer within {timeout_s:g} s: {_last_line(log)}")


def cpu_us(pid: int) -> float:
    """User and system time of a process and all its living descendants, in microseconds (proc(5), stat 14 and 15)."""
    stats = [_stat(entry) for entry in Path("/proc").iterdir() if entry.name.isdigit()]
    parents = {int(stat[0]): int(stat[2]) for stat in stats if stat}
    return sum(
        (int(stat[12]) + int(stat[13])) * TICK_US for stat in stats if stat and _is_of(int(stat[0]), pid, parents)
    )


def _stat(entry: Path) -> list[str]:
    """The fields of /proc/PID/stat without the name: pid, state, parent, ...; empty when the process is gone."""
    try:
        before, _, after = (entry / "stat").read_text().rpartition(")")
    except (FileNotFoundError, ProcessLookupError):
        return []
    return [before.partition(" ")[0], *after.split()]


def _is_of(pid: int, ancestor: int, parents: dict[int, int]) -> bool:
    while pid not in (0, ancestor):
        pid = parents.get(pid, 0)
    return pid == ancestor


def this_machine() -> str:
    """For example "2 cores, 24 GiB, no GPU"."""
    pages, page = os.sysconf("SC_PHYS_PAGES"), os.sysconf("SC_PAGE_SIZE")
    gpu = "a GPU" if Path("/dev/nvidiactl").exists() else "no GPU"
    return f"{len(os.sched_getaffinity(0))} cores, {round(pages * page / 2**30)} GiB, {gpu}"
