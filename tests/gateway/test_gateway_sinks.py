"""What takes lines, spans and metrics may fail or hang: no request, no worker and no stop waits for it."""

import json
import os
import resource
import socket
import time
from pathlib import Path

import pytest

from gateway.metrics import SCRAPE_TIMEOUT_S, SCRAPES_MOST
from gateway.notes import AccessLog
from tests.gateway.fakes import FakeServer
from tests.gateway.harness import Client, Gateway, eventually, infer, route, running, table

SOON_S = 5.0
LINES = 400
"""More than a pipe takes."""


def ask(gateway: Gateway, times: int) -> None:
    with Client(gateway.address) as client:
        for _ in range(times):
            assert client.ask(infer("m")).status == 200


def stops(gateway: Gateway) -> None:
    began = time.monotonic()
    assert gateway.stop() == 0
    assert time.monotonic() - began < SOON_S
    assert "Traceback" not in gateway.log.read_text()


def test_a_full_disk_costs_lines_only(server: FakeServer, tmp_path: Path) -> None:
    routes = table(route("m", {1: [server.address]}))
    with running(tmp_path, routes, access_log="/dev/full", access_log_share=1.0) as gateway:
        ask(gateway, 10)
        time.sleep(1.2)  # They have been told to the supervisor.
        ask(gateway, 10)
        stops(gateway)


def test_a_line_that_found_no_room_is_ended_before_the_next(tmp_path: Path) -> None:
    log, limits = AccessLog(str(tmp_path / "log")), resource.getrlimit(resource.RLIMIT_FSIZE)
    notes = [{"number": number, "logged": True, "span": None} for number in range(20)]
    try:
        resource.setrlimit(resource.RLIMIT_FSIZE, (100, limits[1]))
        log.write(notes)
        log.flush()
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    log.write(notes[:2])
    log.close()
    *whole, torn, first, second = (tmp_path / "log").read_text().splitlines()
    assert [json.loads(line)["number"] for line in (*whole, first, second)] == [*range(len(whole)), 0, 1]
    assert 0 < len(torn) < len(whole[0]) and len(whole) < 20


def test_a_log_that_nobody_reads_holds_nothing_up(server: FakeServer, tmp_path: Path) -> None:
    path = tmp_path / "log"
    os.mkfifo(path)
    unread = os.open(path, os.O_RDWR)
    try:
        routes = table(route("m", {1: [server.address]}))
        with running(tmp_path, routes, access_log=str(path), access_log_share=1.0) as gateway:
            for _ in range(2):
                ask(gateway, LINES)
                time.sleep(1.2)
            (pid,) = gateway.worker_pids()
            os.kill(pid, 9)
            eventually(lambda: gateway.worker_pids() not in ([pid], []), SOON_S)
            eventually(lambda: gateway.health("ready") == 200, SOON_S)
            ask(gateway, 1)
            stops(gateway)
    finally:
        os.close(unread)


def test_a_collector_that_hangs_holds_no_stop_up(server: FakeServer, tmp_path: Path) -> None:
    with socket.socket() as collector:
        collector.bind(("127.0.0.1", 0))
        collector.listen(8)
        endpoint = f"http://127.0.0.1:{collector.getsockname()[1]}/v1/traces"
        routes = table(route("m", {1: [server.address]}))
        with running(tmp_path, routes, trace_endpoint=endpoint, trace_share=1.0) as gateway:
            ask(gateway, 50)
            time.sleep(1.2)
            stops(gateway)


@pytest.mark.parametrize("start", [b"", b"GET /metrics HT"])
def test_slow_scrapers_are_few_and_cut(server: FakeServer, tmp_path: Path, start: bytes) -> None:
    with running(tmp_path, table(route("m", {1: [server.address]}))) as gateway:
        slow = [socket.create_connection(("127.0.0.1", gateway.metrics_port)) for _ in range(4 * SCRAPES_MOST)]
        try:
            for one in slow:
                one.sendall(start)
            time.sleep(0.5)
            assert len(list(Path(f"/proc/{gateway.process.pid}/task").iterdir())) < SCRAPES_MOST + 20
            ask(gateway, 1)
            eventually(lambda: _is_scraped(gateway), SCRAPE_TIMEOUT_S + 2)
        finally:
            for one in slow:
                one.close()
        stops(gateway)


def _is_scraped(gateway: Gateway) -> bool:
    try:
        return bool(gateway.metrics())
    except OSError:
        return False
