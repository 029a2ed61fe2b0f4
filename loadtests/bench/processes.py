"""Starts what is measured, reads its CPU time and memory from /proc, and stops it. Linux only."""

import contextlib
import os
import re
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
    """User and system time of a process and all its descendants, in microseconds.

    The living ones' own time and that of the dead whom they waited for: proc(5), stat 14 to 17.
    """
    return sum(sum(map(int, stat[12:16])) * TICK_US for stat in _tree(pid))


def memory_kb(pid: int, field: str) -> list[int]:
    """A field of /proc/PID/status, such as VmRSS or VmHWM, of a process and all its living descendants."""
    found = []
    for stat in _tree(pid):
        with contextlib.suppress(FileNotFoundError, ProcessLookupError):
            match = re.search(rf"^{field}:\s+(\d+) kB", Path(f"/proc/{stat[0]}/status").read_text(), re.MULTILINE)
            found += [int(match[1])] if match else []
    return found


def peak_mb(pid: int) -> float:
    """The largest resident memory that one process of this tree had since `reset_peak`, in MB."""
    return max(memory_kb(pid, "VmHWM")) * 1024 / 1e6


def reset_peak(pid: int) -> None:
    """Forget the peaks of a tree so far: proc(5), clear_refs."""
    for stat in _tree(pid):
        Path(f"/proc/{stat[0]}/clear_refs").write_text("5")


def _tree(pid: int) -> list[list[str]]:
    """The fields of /proc/PID/stat without the name (pid, state, parent, ...), of a process and its descendants."""
    stats = [stat for entry in Path("/proc").iterdir() if entry.name.isdigit() and (stat := _stat(entry))]
    parents = {int(stat[0]): int(stat[2]) for stat in stats}
    return [stat for stat in stats if _is_of(int(stat[0]), pid, parents)]


def _stat(entry: Path) -> list[str]:
    """Empty when the process is gone."""
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
