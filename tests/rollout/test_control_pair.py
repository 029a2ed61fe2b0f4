"""Two control planes on one PostgreSQL, in processes of their own: never two writers, nothing lost that was taken."""

import contextlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
from sqlalchemy import select

from gateway.windows import Outcome, Role, Window, bucket_of
from rollout.pools.kernel import free_ports
from rollout.store import leader
from rollout.store.database import Database
from rollout.store.tables import windows
from tests.rollout.servers import PostgresServer


class Pair:
    """Both of them, and a gateway that reports to whichever takes its reports, each report until it is taken."""

    def __init__(self, folder: Path, url: str) -> None:
        self.url = url
        self.addresses = [f"127.0.0.1:{port}" for port in free_ports(2)]
        self._environment = {**os.environ, "SLUICE_DATABASE": url}
        self._folder = folder
        self.processes = [self.start(number) for number in range(2)]
        self.taken: list[int] = []
        for number in range(2):
            self._wait_until_up(number)

    def _wait_until_up(self, number: int) -> None:
        ends = time.monotonic() + 30.0
        while True:
            with contextlib.suppress(httpx.HTTPError):
                httpx.get(f"http://{self.addresses[number]}/v1/health", timeout=5.0, trust_env=False)
                return
            assert time.monotonic() < ends, (self._folder / f"{number}.log").read_text()
            time.sleep(0.05)

    def start(self, number: int) -> subprocess.Popen[bytes]:
        command = [sys.executable, "-m", "sluice", "control", "--home", str(self._folder / str(number))]
        with (self._folder / f"{number}.log").open("ab") as log:
            return subprocess.Popen(
                [*command, "--listen", self.addresses[number]], env=self._environment, stdout=log, stderr=log
            )

    def report(self) -> int | None:
        """Which one took the next report; None when neither did."""
        sequence = (self.taken[-1] if self.taken else 0) + 1
        window = Window("g", "b", sequence, 1, "digits", 1, Role.ANSWERED, 0.5, time.time(), 1.0, {Outcome.OK: 1},
                        {bucket_of(1000.0): 1})  # fmt: skip
        report = {"gateway": "g", "boot": "b", "sequence": sequence, "applied_version": 0,
                  "windows": [window.to_json()]}  # fmt: skip
        for number, address in enumerate(self.addresses):
            with contextlib.suppress(httpx.HTTPError):
                url = f"http://{address}/v1/gateway/reports"
                answer = httpx.post(url, json=report, timeout=1.0, trust_env=False)
                if answer.is_success:
                    self.taken.append(sequence)
                    return number
                assert answer.status_code == 503, answer.text
        return None

    def reported(self, within_s: float = 20.0) -> int:
        ends = time.monotonic() + within_s
        while (taker := self.report()) is None:
            assert time.monotonic() < ends, [(self._folder / f"{n}.log").read_text()[-2000:] for n in range(2)]
            time.sleep(0.05)
        return taker

    def stop(self) -> None:
        for process in self.processes:
            process.kill()
            process.wait()


@pytest.fixture
def pair(tmp_path: Path, postgres: PostgresServer) -> Iterator[Pair]:
    pair = Pair(tmp_path, postgres.create(f"pair_{time.monotonic_ns()}"))
    yield pair
    pair.stop()


def kept(url: str) -> list[int]:
    with contextlib.closing(Database.open(url)) as database, database.reading() as connection:
        return sorted(connection.scalars(select(windows.c.sequence)))


def term(url: str) -> int:
    with contextlib.closing(Database.open(url)) as database, database.reading() as connection:
        found = leader.current(connection)
        return 0 if found is None else found.term


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGSTOP], ids=["killed", "frozen"])
def test_a_leader_that_is_gone_is_followed_within_ten_seconds_and_writes_nothing_when_it_is_back(
    pair: Pair, number: signal.Signals
) -> None:
    first = pair.reported()
    assert all(pair.reported() == first for _ in range(10))
    before = term(pair.url)
    pair.processes[first].send_signal(number)
    began = time.monotonic()
    assert pair.reported() == 1 - first
    assert time.monotonic() - began < 10.0
    if number is signal.SIGSTOP:
        pair.processes[first].send_signal(signal.SIGCONT)
    else:
        pair.processes[first].wait()
        pair.processes[first] = pair.start(first)
    ends = time.monotonic() + 3.0
    while time.monotonic() < ends:
        assert pair.reported() == 1 - first
    assert term(pair.url) == before + 1
    assert kept(pair.url) == pair.taken


def test_a_leader_that_is_told_to_stop_is_followed_at_once(pair: Pair) -> None:
    first = pair.reported()
    pair.processes[first].terminate()
    assert pair.processes[first].wait(20.0) == -signal.SIGTERM, "uvicorn ends in order, and then by the signal"
    began = time.monotonic()
    assert pair.reported() == 1 - first
    assert time.monotonic() - began < 4.0


def test_a_database_that_is_restarted_under_both_loses_nothing_that_was_taken(
    pair: Pair, postgres: PostgresServer
) -> None:
    pair.reported()
    for _ in range(2):
        postgres.stop()
        assert pair.report() is None
        postgres.start()
        for _ in range(20):
            pair.reported()
    assert all(process.poll() is None for process in pair.processes)
    assert kept(pair.url) == pair.taken
