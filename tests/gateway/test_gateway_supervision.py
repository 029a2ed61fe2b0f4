"""The gateway's life: start, worker deaths, reloads, stop. No request is refused or cut by any of it."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from tests.gateway.fakes import OK, FakeServer, after, http_answer, says
from tests.gateway.harness import ROOT, Client, Gateway, eventually, infer, is_alive, route, running, table
from tests.gateway.load import load


def routes(server: FakeServer, **more: Any) -> dict[str, Any]:
    return table(route("m", {1: [server.address]}, **more))


def test_a_killed_worker_is_replaced_and_its_counts_stand(server: FakeServer, tmp_path: Path) -> None:
    server.behave = after(0.01, OK)
    with running(tmp_path, routes(server), workers=2) as gateway:
        with load(gateway) as asked:
            for killed in range(1, 3):
                eventually(lambda: gateway.counted("m").get("ok", 0) > 50)
                before, pids = gateway.counted("m")["ok"], gateway.worker_pids()
                os.kill(pids[0], signal.SIGKILL)
                eventually(lambda pids=pids: len(set(gateway.worker_pids()) - set(pids[:1])) == 2, 3.0)
                eventually(lambda killed=killed: gateway.metric("sluice_workers_replaced_total") == killed, 3.0)
                eventually(lambda before=before: gateway.counted("m")["ok"] > before + 50)
        eventually(lambda: gateway.metric("sluice_requests_in_flight") == 0)
        counts = gateway.counted("m")
    assert asked.seen["200"] == sum(asked.seen.values()) - asked.seen["broken"]
    assert asked.seen["broken"] <= 2 * 6
    assert set(counts) <= {"ok", "lost"}
    # What was in flight in a killed worker may have been answered by the server, but not to the client.
    assert asked.seen["200"] <= counts["ok"] <= asked.seen["200"] + asked.seen["broken"]
    assert counts.get("lost", 0) <= asked.seen["broken"]


def test_reloads_under_load_cost_no_request_and_close_no_connection_unannounced(
    server: FakeServer, tmp_path: Path
) -> None:
    with running(tmp_path, routes(server), workers=2, linger_s=1.0) as gateway:
        with load(gateway) as asked:
            for _ in range(2):
                pids = gateway.worker_pids()
                for _ in range(3):
                    gateway.signal(signal.SIGHUP)  # Hurried ones are one.
                    time.sleep(0.02)
                eventually(lambda pids=pids: not set(pids) & set(gateway.worker_pids()), 15.0)
                assert gateway.health("ready") == 200
            eventually(lambda: len(gateway.worker_pids()) == 2, 15.0)
        eventually(lambda: gateway.counted("m")["ok"] == asked.seen["200"])
        assert gateway.metric("sluice_workers_replaced_total") == 0
    assert asked.seen["broken"] == 0
    assert set(asked.seen) == {"200", "announced"}
    assert asked.seen["200"] > 50 and asked.seen["announced"] >= 6


def test_a_stuck_client_does_not_keep_a_reload_from_its_end(server: FakeServer, tmp_path: Path) -> None:
    server.behave = says(http_answer(b"x" * 8_000_000))
    settings = {"drain_timeout_s": 1.0, "linger_s": 0.2}
    with (
        running(tmp_path, routes(server), **settings) as gateway,
        Client(gateway.address, receive_bytes=4096) as client,
    ):
        client.send(infer("m"))
        time.sleep(0.2)
        (pid,) = gateway.worker_pids()
        gateway.signal(signal.SIGHUP)
        eventually(lambda: not is_alive(pid), 8.0)
        server.behave = OK
        with Client(gateway.address) as other:
            assert other.ask(infer("m")).status == 200
        eventually(lambda: gateway.metric("sluice_requests_in_flight") == 0)
        assert set(gateway.counted("m")) <= {"ok", "lost", "client_gone"}


def test_an_old_worker_stays_ready_while_it_is_renewed(server: FakeServer, tmp_path: Path) -> None:
    with running(tmp_path, routes(server), linger_s=1.5) as gateway, Client(gateway.address) as client:
        probe = b"GET /v2/health/ready HTTP/1.1\r\nHost: gw\r\n\r\n"
        assert client.ask(probe).status == 200
        (pid,) = gateway.worker_pids()
        gateway.signal(signal.SIGHUP)
        eventually(lambda: len(gateway.worker_pids()) == 2)
        while (answer := client.ask(probe)).headers.get("connection") != "close":
            assert answer.status == 200
            time.sleep(0.01)
        assert answer.status == 200 and is_alive(pid)


def test_sigterm_answers_what_is_in_flight_and_what_was_not_read_yet(server: FakeServer, tmp_path: Path) -> None:
    server.behave = after(0.7, OK)
    with running(tmp_path, routes(server), workers=2) as gateway:
        with Client(gateway.address) as slow, Client(gateway.address) as idle, Client(gateway.address) as kept:
            server.behave = OK
            assert kept.ask(infer("m")).status == 200
            server.behave = after(0.7, OK)
            slow.send(infer("m"))
            fresh = [Client(gateway.address) for _ in range(10)]
            gateway.process.terminate()
            time.sleep(0.2)
            for client in (idle, kept, *fresh):
                client.send(infer("m"))
            for client in (slow, idle, kept, *fresh):
                answer = client.answer()
                assert (answer.status, answer.headers["connection"]) == (200, "close")
                client.sock.close()
        assert gateway.stop() == 0


def test_sigterm_with_only_idle_connections_ends_after_the_linger_time(server: FakeServer, tmp_path: Path) -> None:
    with running(tmp_path, routes(server), linger_s=0.5) as gateway, Client(gateway.address) as client:
        assert client.ask(infer("m")).status == 200
        began = time.monotonic()
        gateway.process.terminate()
        assert client.rest() == b""
        assert time.monotonic() - began >= 0.5
        assert gateway.process.wait(5) == 0


def test_readiness_says_no_before_the_listener_closes(server: FakeServer, tmp_path: Path) -> None:
    with running(tmp_path, routes(server), ready_to_close_s=0.8) as gateway:
        gateway.process.terminate()
        eventually(lambda: gateway.health("ready") == 503, 0.7)
        assert gateway.health("live") == 200
        assert gateway.process.wait(10) == 0


def test_workers_end_when_their_supervisor_is_killed(server: FakeServer, tmp_path: Path) -> None:
    gateway = Gateway(tmp_path, routes(server), workers=2, linger_s=0.2).ready()
    pids = gateway.worker_pids()
    gateway.process.kill()
    gateway.process.wait()
    eventually(lambda: not any(is_alive(pid) for pid in pids), 5.0)


def sluice(tmp_path: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "sluice", "gateway", *arguments], cwd=ROOT, capture_output=True, text=True, timeout=30,
        check=False,
    )  # fmt: skip


def test_a_port_in_use_is_a_clear_error(server: FakeServer, tmp_path: Path) -> None:
    with running(tmp_path, routes(server)) as gateway:
        file = str(tmp_path / "routes.json")
        for arguments in (
            ("--listen", f"127.0.0.1:{gateway.port}", "--metrics-listen", "127.0.0.1:0"),
            ("--listen", "127.0.0.1:0", "--metrics-listen", f"127.0.0.1:{gateway.metrics_port}"),
        ):
            ended = sluice(tmp_path, "--routes", file, *arguments)
            assert ended.returncode == 2
            assert "in use" in ended.stderr and "Traceback" not in ended.stderr


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("[gateway]\nworker = 2\n", "did you mean 'workers'"),
        ("[gateway]\nworkers = 'two'\n", "must be a int"),
        ("[gateway]\nworkers = 0\n", "'workers' must be at least 1"),
        ("[gateway]\nidle_timeout_s = nan\n", "must be at least 0, not nan"),
        ("[gateway]\ncounter_slots = 0\n", "at least 1"),
        ("[gateway]\ncontrol_url = 'localhost'\n", "must be http://HOST:PORT"),
        ("[gateway]\nlisten = 'x'\n", "must be HOST:PORT"),
        ("gateway = 3\n", "must be a table"),
        ("[gateway]\nworkers = 257\n", "'workers' must be at most 256, not 257"),
        ("[gateway]\nbacklog = 2147483648\n", "'backlog' must be at most 2147483647"),
        ("[gateway]\ncounter_slots = 1000000000000000\n", "'counter_slots' must be at most"),
        ("[gateway]\nbody_bytes_per_s = 0\n", "'body_bytes_per_s' must be at least 1, not 0"),
        ("[gateway]\nrelease_in_flight = 0\n", "'release_in_flight' must be at least 1"),
        ("[gateway]\nconnect_timeout_s = 0\n", "'connect_timeout_s' must be at least 0.001"),
        ("[gateway]\nhead_timeout_s = -1\n", "'head_timeout_s' must be at least 0, not -1"),
        ("[gateway]\nhead_timeout_s = nan\n", "'head_timeout_s' must be at least 0, not nan"),
        ("[gateway]\nfield_bytes = 1\n", "'field_bytes' must be at least 64"),
        ("[gateway]\ncpu_affinity = []\n", "'cpu_affinity' must name some of the cores"),
        ("[gateway]\ncpu_affinity = [9999]\n", "'cpu_affinity' must name some of the cores"),
        ("[gateway\n", "cannot be read"),
    ],
)
def test_a_wrong_setting_is_a_clear_error(tmp_path: Path, text: str, said: str) -> None:
    (tmp_path / "gateway.toml").write_text(text)
    ended = sluice(tmp_path, "--config", str(tmp_path / "gateway.toml"), "--routes", "none.json")
    assert ended.returncode == 2
    assert said in ended.stderr and "Traceback" not in ended.stderr


@pytest.mark.parametrize("text", [None, "", "{}", '{"version": 1, "routes": [{"model": "../x"}]}', "\udcff"])
def test_a_routes_file_of_no_use_is_a_clear_error(tmp_path: Path, text: str | None) -> None:
    if text is not None:
        (tmp_path / "routes.json").write_bytes(text.encode("utf-8", "surrogateescape"))
    ended = sluice(tmp_path, "--routes", str(tmp_path / "routes.json"), "--listen", "127.0.0.1:0")
    assert ended.returncode == 2
    assert "routes.json" in ended.stderr and "Traceback" not in ended.stderr


def test_without_routes_and_control_plane_it_says_what_to_give(tmp_path: Path) -> None:
    ended = sluice(tmp_path)
    assert ended.returncode == 2 and "--control-url" in ended.stderr


def test_too_few_counters_are_a_clear_error(server: FakeServer, tmp_path: Path) -> None:
    gateway = Gateway(tmp_path, routes(server), counter_slots=1)
    assert gateway.process.wait(20) == 2
    assert "counter_slots" in gateway.log.read_text()
