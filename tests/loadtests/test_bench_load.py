"""The bench's loads against a real server: what is sent, when it counts as sent, and what idles."""

import asyncio
import contextlib
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from loadtests.bench.asking import BODIES, SMALL_BYTES, model_names, requests_for
from loadtests.bench.change import Answer, judged
from loadtests.bench.client import Ask, run
from loadtests.bench.processes import cpu_us, memory_kb, peak_mb, reset_peak, running
from loadtests.bench.stage import Length, Stage
from loadtests.bench.timer import Timer
from loadtests.errors import BenchError
from loadtests.ports import free_addresses
from tests.loadtests.tiny_model import Reply, TinyModel


@pytest.mark.parametrize("body", BODIES)
@pytest.mark.parametrize("models", [0, 1, 1500])
def test_requests_are_equally_long_and_name_every_model(body: str, models: int) -> None:
    sent = BODIES[body]()
    requests = requests_for(sent, "127.0.0.1:8000", models)
    assert len({sum(map(len, request)) for request in requests}) == 1
    assert len({b"".join(request) for request in requests[:100]}) == 100
    assert len(requests[0]) == (1 if len(sent.data) <= SMALL_BYTES else 2)
    asked = {request[0].partition(b"/v2/models/")[2].partition(b"/")[0].decode() for request in requests}
    assert asked == set(model_names(models))


def test_a_timer_is_exact_to_less_than_a_millisecond() -> None:
    late: list[float] = []

    async def wait() -> None:
        fired = asyncio.Event()
        timer = Timer(fired.set)
        for _ in range(20):
            fired.clear()
            at_s = time.perf_counter() + 0.0023
            timer.set(at_s)
            await fired.wait()
            late.append(time.perf_counter() - at_s)
        timer.set(0.0)  # Past: at once.
        await asyncio.wait_for(fired.wait(), 1)
        timer.close()

    asyncio.run(wait())
    assert min(late) >= 0
    assert sorted(late)[5] < 0.0005


def _open(tiny: TinyModel, rate: float, connections: int = 4, seconds: float = 0.6) -> Ask:
    return Ask(tiny.url.removeprefix("http://"), "small_json", connections, 0.1, seconds, rate_per_s=rate)


def test_an_open_loop_sends_at_its_rate(tiny: TinyModel) -> None:
    got = asyncio.run(run(_open(tiny, 200.0, seconds=1.0)))
    assert 130 <= got.timed <= 270
    assert got.answered >= got.timed
    assert got.answered == len(tiny.received)


def test_an_open_loop_counts_the_wait_for_a_connection(tiny: TinyModel) -> None:
    tiny.answer = lambda _: time.sleep(0.02) or Reply()
    alone = asyncio.run(run(_open(tiny, 10.0, connections=1)))
    crowded = asyncio.run(run(_open(tiny, 100.0, connections=1)))
    assert crowded.p99_us > 5 * alone.p50_us


def _answers(*came_new: tuple[float, bool]) -> list[Answer]:
    return [Answer(came_s - 0.001, came_s, is_new) for came_s, is_new in came_new]


def test_a_table_is_active_when_the_last_old_answer_has_come() -> None:
    answers = _answers((0.9, False), (1.01, False), (1.02, True), (1.04, False), (1.05, True), (1.06, True))
    changed = judged([*answers, Answer(1.03, 1.10, True)], changed_s=1.0)
    assert changed.active_ms == pytest.approx(40)
    assert changed.spike_ms == pytest.approx(70)
    assert changed.quiet_ms == pytest.approx(1)


@pytest.mark.parametrize(
    ("answers", "why"),
    [([], "before the change"), (_answers((0.9, True), (1.1, True)), "before the change"),
     (_answers((0.9, False), (1.1, True), (1.2, False)), "went on")],
)  # fmt: skip
def test_a_change_that_was_not_seen_is_an_error(answers: list[Answer], why: str) -> None:
    with pytest.raises(BenchError, match=why):
        judged(answers, changed_s=1.0)


@pytest.fixture
def answering(tmp_path: Path) -> Iterator[tuple[int, dict[str, str]]]:
    """The dummy upstream in all of its manners, and its pid."""
    manners = ("at_once", "in_50ms", "unread")
    addresses = dict(zip(manners, free_addresses(0, 0, 0), strict=True))
    told = [f"{manner}={address}" for manner, address in addresses.items()]
    with running("upstream", [sys.executable, "-m", "loadtests.peers.upstream", *told], tmp_path / "log") as pid:
        ends = time.monotonic() + 10
        while "unread" not in _listening(addresses) and time.monotonic() < ends:
            time.sleep(0.02)
        yield pid, addresses


def _listening(addresses: dict[str, str]) -> set[str]:
    text = Path("/proc/net/tcp").read_text()
    return {manner for manner, address in addresses.items() if f":{int(address.rpartition(':')[2]):04X} 0000" in text}


def test_an_upstream_takes_its_time_or_never_reads(answering: tuple[int, dict[str, str]]) -> None:
    _, addresses = answering
    got = asyncio.run(run(Ask(addresses["in_50ms"], "small_json", 4, 0.1, 0.4)))
    assert 50_000 <= got.p50_us < 80_000
    with pytest.raises(BenchError, match="not all requests were answered"):
        asyncio.run(run(Ask(addresses["unread"], "small_json", 1, 0.05, 0.05), last_answers_s=0.2))


def test_idle_connections_are_held_until_the_input_ends(answering: tuple[int, dict[str, str]]) -> None:
    pid, addresses = answering
    with _holder(addresses["at_once"], 250) as holder:
        assert holder.stdout is not None and holder.stdin is not None
        assert holder.stdout.readline() == "held\n"
        assert len(list(Path(f"/proc/{pid}/fd").iterdir())) > 250
        holder.stdin.close()
        assert holder.wait(10) == 0


def test_a_lost_idle_connection_is_told(tiny: TinyModel) -> None:
    tiny.answer = lambda number: Reply(0) if number == 7 else Reply()
    with _holder(tiny.url.removeprefix("http://"), 10) as holder:
        assert holder.wait(10) == 1
        assert holder.stderr is not None
        assert "was lost" in holder.stderr.read()


def _holder(address: str, count: int) -> "subprocess.Popen[str]":
    command = [sys.executable, "-m", "loadtests.bench.held", address, str(count)]
    pipe = subprocess.PIPE
    return subprocess.Popen(command, stdin=pipe, stdout=pipe, stderr=pipe, text=True)


SPENDER = """
import subprocess, sys, time
subprocess.run([sys.executable, "-c", "sum(range(20_000_000)); bytearray(80_000_000)"])
held = bytearray(40_000_000)
print("spent", flush=True)
time.sleep(60)
"""


def test_cpu_time_counts_dead_children_and_memory_the_largest_process(tmp_path: Path) -> None:
    with running("spender", [sys.executable, "-c", SPENDER], tmp_path / "log") as pid:
        ends = time.monotonic() + 30
        while "spent" not in (tmp_path / "log").read_text() and time.monotonic() < ends:
            time.sleep(0.02)
        assert cpu_us(pid) > 150_000
        assert 40 < peak_mb(pid) < 80
        reset_peak(pid)
        (kept_kb,) = memory_kb(pid, "VmRSS")
        assert peak_mb(pid) == pytest.approx(kept_kb * 1.024 / 1000, rel=0.05)
        assert memory_kb(pid, "NoSuchField") == []
    assert memory_kb(os.getpid(), "VmRSS")


def test_a_stage_never_gives_a_folder_twice(tmp_path: Path) -> None:
    stage = Stage(tmp_path, contextlib.ExitStack(), [], Length(1, 0.1, 0.1))
    assert len({stage.folder("sluice") for _ in range(3)}) == 3
