"""Reloads: new workers before the old ones go, whatever goes wrong meanwhile. No request is refused or cut."""

import contextlib
import os
import signal
import threading
import time
from pathlib import Path
from typing import Any

import pytest

from tests.gateway.fakes import OK, FakeServer, after, http_answer, says
from tests.gateway.harness import Client, Gateway, eventually, get, infer, is_alive, route, running, table
from tests.gateway.load import load, sluice, status


def routes(server: FakeServer, **more: Any) -> dict[str, Any]:
    return table(route("m", {1: [server.address]}, **more))


class Ambush:
    """Does something to every new worker as soon as it is there."""

    def __init__(self, gateway: Gateway, number: signal.Signals) -> None:
        self.met: set[int] = set()
        self._old = set(gateway.worker_pids())
        self._gateway, self._number = gateway, number
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._wait)

    def __enter__(self) -> "Ambush":
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._thread.join()

    def _wait(self) -> None:
        while not self._over.wait(0.002):
            for pid in set(self._gateway.worker_pids()) - self._old - self.met:
                # Until it is a program of its own, whoever started it waits for it (vfork), and would wait for ever.
                with contextlib.suppress(FileNotFoundError, ProcessLookupError):
                    if b"gateway.worker" in Path(f"/proc/{pid}/cmdline").read_bytes():
                        self.met.add(pid)
                        os.kill(pid, self._number)


def serving(gateway: Gateway) -> set[int]:
    return {one["pid"] for one in status(gateway)["workers"] if one["state"] == "serving"}


def client_ports(gateway: Gateway, pid: int) -> set[int]:
    """The clients' ports of the connections that a worker has (proc(5): fd, net/tcp)."""
    links = [str(link.readlink()) for link in Path(f"/proc/{pid}/fd").iterdir()]
    inodes = {link[8:-1] for link in links if link.startswith("socket:[")}
    lines = [line.split() for line in Path("/proc/net/tcp").read_text().splitlines()[1:]]
    return {
        int(line[2].split(":")[1], 16)
        for line in lines
        if line[9] in inodes and int(line[1].split(":")[1], 16) == gateway.port
    }


def rss_bytes(pid: int) -> int:
    return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def test_a_reload_by_command_waits_for_the_new_workers_and_says_what_happened(
    server: FakeServer, tmp_path: Path
) -> None:
    with running(tmp_path, routes(server), workers=2, linger_s=0.2) as gateway:
        old = set(gateway.worker_pids())
        done = sluice(gateway, "reload")
        assert (done.returncode, done.stderr) == (0, "")
        assert "2 new workers serve, 2 old ones drain" in done.stdout
        assert len(serving(gateway)) == 2 and not serving(gateway) & old
        shown = sluice(gateway, "status").stdout
        assert f"pid {gateway.process.pid}" in shown and "generation 1" in shown and "reloaded" in shown
        eventually(lambda: not old & set(gateway.worker_pids()))


@pytest.mark.parametrize("command", ["reload", "upgrade", "status"])
def test_commands_say_when_no_gateway_runs_there(server: FakeServer, tmp_path: Path, command: str) -> None:
    with running(tmp_path, routes(server)) as gateway:
        pass
    for _ in range(2):
        done = sluice(gateway, command)
        assert done.returncode == 2 and "no gateway runs with state_dir" in done.stderr
        (tmp_path / "state").mkdir(exist_ok=True)
        (tmp_path / "state" / "gateway.pid").write_text(f"{os.getpid()}\n")  # Left behind by one that was killed.


@pytest.mark.parametrize("text", ["[gateway\n", "[gateway]\nworker = 2\n", "[gateway]\nworkers = 0\n"])
def test_an_invalid_configuration_leaves_the_old_workers_serving(server: FakeServer, tmp_path: Path, text: str) -> None:
    with running(tmp_path, routes(server)) as gateway:
        pids, good = gateway.worker_pids(), (tmp_path / "gateway.toml").read_text()
        (tmp_path / "gateway.toml").write_text(text)
        gateway.signal(signal.SIGHUP)
        eventually(lambda: "reload given up, the old workers serve on" in gateway.log.read_text())
        assert gateway.worker_pids() == pids
        with Client(gateway.address) as client:
            assert client.ask(infer("m")).status == 200
        (tmp_path / "gateway.toml").write_text(good)
        assert sluice(gateway, "reload").returncode == 0


def test_a_reload_takes_new_settings_and_names_those_that_need_a_restart(server: FakeServer, tmp_path: Path) -> None:
    with running(tmp_path, routes(server), linger_s=0.2) as gateway:
        gateway.configure(workers=3, body_bytes=10, counter_slots=128)
        done = sluice(gateway, "reload")
        assert "needs a restart, so it stays as it is: counter_slots (64, not 128)" in done.stdout
        eventually(lambda: len(gateway.worker_pids()) == 3)
        with Client(gateway.address) as client:
            assert client.ask(infer("m", b"x" * 11)).status == 413
        gateway.configure(workers=1)
        assert sluice(gateway, "reload").returncode == 0
        eventually(lambda: len(gateway.worker_pids()) == 1)


@pytest.mark.parametrize("number", [signal.SIGSTOP, signal.SIGKILL])
def test_new_workers_that_never_get_ready_leave_the_old_ones_serving(
    server: FakeServer, tmp_path: Path, number: signal.Signals
) -> None:
    with running(tmp_path, routes(server), workers=2, ready_timeout_s=1.0) as gateway:
        old = set(gateway.worker_pids())
        with load(gateway) as asked:
            with Ambush(gateway, number) as ambush:
                done = sluice(gateway, "reload")
            assert done.returncode == 2 and "reload given up, the old workers serve on" in done.stderr
            eventually(lambda: set(gateway.worker_pids()) == old)
            assert ambush.met and set(asked.seen) == {"200"}
            assert sluice(gateway, "reload").returncode == 0
        assert set(asked.seen) <= {"200", "announced"}
        eventually(lambda: gateway.counted("m") == {"ok": asked.seen["200"]})


def test_connections_that_were_not_read_yet_are_answered_at_a_reload(server: FakeServer, tmp_path: Path) -> None:
    with running(tmp_path, routes(server), workers=2, linger_s=2.0) as gateway:
        for _ in range(3):
            clients = [Client(gateway.address) for _ in range(10)]
            gateway.signal(signal.SIGHUP)
            time.sleep(0.2)
            for client in clients:
                client.send(infer("m"))
            assert [client.answer().status for client in clients] == [200] * 10
            for client in clients:
                client.sock.close()


def test_clients_that_speak_within_the_linger_time_are_told_that_the_connection_ends(
    server: FakeServer, tmp_path: Path
) -> None:
    with running(tmp_path, routes(server), workers=2, linger_s=1.5) as gateway:
        clients = [Client(gateway.address) for _ in range(12)]
        for client in clients:
            assert client.ask(infer("m")).status == 200
        old = set(gateway.worker_pids())
        assert sluice(gateway, "reload").returncode == 0
        for client in clients:
            answer = client.ask(infer("m"))
            assert (answer.status, answer.headers["connection"]) == (200, "close")
            assert client.rest() == b""
            client.sock.close()
        eventually(lambda: not old & set(gateway.worker_pids()))


def test_twenty_reloads_in_ten_seconds_with_a_stuck_client_pile_nothing_up(server: FakeServer, tmp_path: Path) -> None:
    server.behave = says(http_answer(b"x" * 8_000_000))
    settings = {"workers": 2, "drain_timeout_s": 2.0, "linger_s": 0.2}
    with (
        running(tmp_path, routes(server), **settings) as gateway,
        Client(gateway.address, receive_bytes=4096) as stuck,
    ):
        stuck.send(infer("m"))
        eventually(lambda: server.requests)
        server.behave = OK
        before, most = rss_bytes(gateway.process.pid), 0
        with load(gateway, pause_s=0.02) as asked:
            for _ in range(20):
                gateway.signal(signal.SIGHUP)
                ends = time.monotonic() + 0.5
                while time.monotonic() < ends:
                    most = max(most, len(gateway.worker_pids()))
                    time.sleep(0.05)
            eventually(lambda: status(gateway)["done"] == 20, 20.0)
        assert most <= 4
        assert rss_bytes(gateway.process.pid) < before + 20_000_000
        assert set(asked.seen) == {"200", "announced"}
        eventually(lambda: len(gateway.worker_pids()) == 2, 10.0)


def test_sigterm_during_a_reload_answers_everybody_and_ends(server: FakeServer, tmp_path: Path) -> None:
    server.behave = after(0.5, OK)
    for pause_s in (0.0, 0.05, 0.15, 0.3):
        with running(tmp_path, routes(server), workers=2, linger_s=0.5) as gateway:
            with Client(gateway.address) as slow:
                slow.send(infer("m"))
                eventually(lambda: gateway.metric("sluice_requests_in_flight") == 1)
                gateway.signal(signal.SIGHUP)
                time.sleep(pause_s)
                gateway.process.terminate()
                assert slow.answer().status == 200
            assert gateway.process.wait(10) == 0
        assert "Traceback" not in gateway.log.read_text()


def test_a_killed_supervisors_workers_answer_what_is_in_flight(server: FakeServer, tmp_path: Path) -> None:
    server.behave = after(0.5, OK)
    gateway = Gateway(tmp_path, routes(server), workers=2, linger_s=0.5).ready()
    pids = gateway.worker_pids()
    with Client(gateway.address) as slow, Client(gateway.address) as idle:
        slow.send(infer("m"))
        eventually(lambda: server.requests)
        gateway.process.kill()
        gateway.process.wait()
        idle.send(infer("m"))
        for client in (slow, idle):
            answer = client.answer()
            assert (answer.status, answer.headers["connection"]) == (200, "close")
    eventually(lambda: not any(is_alive(pid) for pid in pids), 5.0)


def test_a_killed_worker_costs_only_its_own_connections_and_is_back_within_a_second(
    server: FakeServer, tmp_path: Path
) -> None:
    with running(tmp_path, routes(server), workers=2) as gateway:
        eventually(lambda: len(serving(gateway)) == 2)
        clients = [Client(gateway.address) for _ in range(16)]
        for client in clients:
            assert client.ask(infer("m")).status == 200
        killed = max(gateway.worker_pids(), key=lambda pid: len(client_ports(gateway, pid)))
        own = client_ports(gateway, killed)
        os.kill(killed, signal.SIGKILL)
        began = time.monotonic()
        eventually(lambda: len(serving(gateway) - {killed}) == 2, 1.0)
        assert time.monotonic() - began < 1.0
        for client in clients:
            if client.sock.getsockname()[1] not in own:
                assert client.ask(infer("m")).status == 200
            client.sock.close()
        assert own
        for _ in range(20):
            with Client(gateway.address) as client:
                assert client.ask(infer("m")).status == 200


def test_counters_never_go_back_over_reloads(server: FakeServer, tmp_path: Path) -> None:
    with running(tmp_path, routes(server), workers=2, linger_s=0.2) as gateway:
        seen = []
        with load(gateway) as asked:
            for _ in range(3):
                assert sluice(gateway, "reload").returncode == 0
                seen.append(gateway.counted("m").get("ok", 0))
        eventually(lambda: gateway.counted("m") == {"ok": asked.seen["200"]})
        assert seen == sorted(seen) and seen[0] > 0
        assert gateway.metric("sluice_generation") == 3


def test_workers_stay_on_their_cores_when_asked_to(server: FakeServer, tmp_path: Path) -> None:
    cores = sorted(os.sched_getaffinity(0))
    with running(tmp_path, routes(server), workers=2, cpu_affinity=True) as gateway:
        eventually(lambda: len(serving(gateway)) == 2)
        pinned = sorted(min(os.sched_getaffinity(pid)) for pid in gateway.worker_pids())
        assert pinned == [cores[0], cores[1 % len(cores)]]
        gateway.configure(cpu_affinity=[cores[-1]])
        assert sluice(gateway, "reload").returncode == 0
        eventually(
            lambda: {frozenset(os.sched_getaffinity(pid)) for pid in gateway.worker_pids()} == {frozenset(cores[-1:])}
        )


def test_readiness_is_asked_of_workers_that_have_the_table(server: FakeServer, tmp_path: Path) -> None:
    with running(tmp_path, routes(server), workers=2) as gateway, load(gateway) as asked:
        for _ in range(3):
            done = sluice(gateway, "reload")
            assert done.returncode == 0
            for _ in range(6):
                with Client(gateway.address) as client:
                    assert client.ask(get("/v2/health/ready")).status == 200
    assert set(asked.seen) <= {"200", "announced"}
