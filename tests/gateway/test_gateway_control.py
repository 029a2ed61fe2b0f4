"""The line to the control plane: tables in, reports out, at least once; and serving on without it."""

import json
import signal
import threading
import time
from pathlib import Path
from typing import Any

import pytest

from tests.gateway.fakes import FakeControl, FakeServer, LoopThread
from tests.gateway.harness import Client, Gateway, eventually, infer, is_alive, route, running, table


def only(server: FakeServer, version: int = 1, **more: Any) -> dict[str, Any]:
    return table(route("m", {1: [server.address]}, revision=version, **more), version=version)


def test_tables_are_fetched_applied_in_all_workers_and_kept(
    server: FakeServer, control: FakeControl, tmp_path: Path
) -> None:
    gateway = Gateway(tmp_path, control=control.url, workers=2)
    eventually(lambda: gateway.health("live") == 200, 20.0)
    assert gateway.health("ready") == 503
    with Client(gateway.address) as client:
        assert client.ask(infer("m")).status == 503
    control.table = only(server)
    gateway.ready()
    try:
        for version in range(2, 6):
            control.table = only(server, version)
            eventually(lambda version=version: gateway.metric("sluice_route_table_version") == version)
            eventually(lambda version=version: control.reports[-1]["applied_version"] == version)
        stored = json.loads((tmp_path / "state" / "routes.json").read_text())
        assert stored["version"] == 5
        names = {path.name for path in (tmp_path / "state").iterdir()}
        assert names == {"routes.json", "gateway.pid", "status.json"}
    finally:
        assert gateway.stop() == 0


def test_an_invalid_table_is_refused_and_the_old_one_stays(
    server: FakeServer, control: FakeControl, tmp_path: Path
) -> None:
    control.table = only(server)
    with running(tmp_path, control=control.url) as gateway, Client(gateway.address) as client:
        for bad in ({"version": 2, "routes": [{"model": "m"}]}, {"version": 3, "routes": None}):
            polls = control.polls
            control.table = bad
            eventually(lambda polls=polls: control.polls > polls + 1)
            assert client.ask(infer("m")).status == 200
        assert "refused and the old one stays" in gateway.log.read_text()
        too_many = table(*(route(f"m{n}", {1: [server.address]}) for n in range(100)), version=4)
        control.table = too_many
        eventually(lambda: "counter_slots" in gateway.log.read_text())
        assert client.ask(infer("m")).status == 200
        control.table = only(server, 5)
        eventually(lambda: gateway.metric("sluice_route_table_version") == 5)


def test_a_restart_without_the_control_plane_serves_from_disk(
    server: FakeServer, control: FakeControl, tmp_path: Path
) -> None:
    control.table = only(server)
    with running(tmp_path, control=control.url):
        eventually((tmp_path / "state" / "routes.json").exists)
    control.server.stop()
    with running(tmp_path, control=control.url) as gateway, Client(gateway.address) as client:
        assert client.ask(infer("m")).status == 200
        assert gateway.metric("sluice_control_plane_up") == 0
        control.server.start()
        eventually(lambda: gateway.metric("sluice_control_plane_up") == 1)


@pytest.mark.parametrize("fate", ["follows", "frozen", "gone"])
def test_of_several_control_planes_the_one_that_leads_is_found_within_seconds(
    server: FakeServer, control: FakeControl, loop_thread: LoopThread, tmp_path: Path, fate: str
) -> None:
    other = FakeControl(loop_thread)
    other.leads, control.table, other.table = False, only(server), only(server, 2)
    with running(tmp_path, control=f"{other.url},{control.url}") as gateway:
        eventually(lambda: gateway.metric("sluice_route_table_version") == 1)
        eventually(lambda: len(control.reports) > 1)
        control.leads, other.leads = False, True
        if fate == "frozen":
            control.is_frozen, control.leads = True, True
        elif fate == "gone":
            control.server.stop()
        began = time.monotonic()
        eventually(lambda: gateway.metric("sluice_route_table_version") == 2, 10.0)
        eventually(lambda: len(other.reports) > 1, 10.0)
        assert time.monotonic() - began < 9.0
        control.is_frozen = False
    if fate == "gone":
        control.server.start()
    other.server.stop()


@pytest.mark.parametrize("damage", [b"", b"{", b'{"version": "x"}', b"\xff\xfe"])
def test_a_damaged_table_on_disk_is_left_alone_until_a_new_one_comes(
    server: FakeServer, control: FakeControl, tmp_path: Path, damage: bytes
) -> None:
    (tmp_path / "state").mkdir()
    (tmp_path / "state" / "routes.json").write_bytes(damage)
    control.table = only(server)
    with running(tmp_path, control=control.url) as gateway:
        assert "is of no use" in gateway.log.read_text()


def test_windows_count_exactly_what_was_sent_and_reports_are_sent_until_they_are_taken(
    server: FakeServer, control: FakeControl, tmp_path: Path
) -> None:
    control.table = only(server)
    with running(tmp_path, control=control.url, workers=2) as gateway:
        control.fail_reports = 3
        sent: list[int] = []
        stop = threading.Event()

        def ask() -> None:
            with Client(gateway.address) as client:
                while not stop.is_set():
                    sent.append(client.ask(infer("m")).status)

        threads = [threading.Thread(target=ask) for _ in range(5)]
        for thread in threads:
            thread.start()
        eventually(lambda: len(sent) > 100)
        control.table = only(server, 2)
        eventually(lambda: gateway.metric("sluice_route_table_version") == 2)
        applied = len(sent)
        eventually(lambda: len(sent) > applied + 100)
        stop.set()
        for thread in threads:
            thread.join()
    assert set(sent) == {200}
    sequences = [report["sequence"] for report in control.reports]
    assert sequences == list(range(1, len(sequences) + 1))
    assert {report["sequence"] for report in control.refused} <= set(sequences)
    assert len(control.refused) == 3 and len({one["sequence"] for one in control.refused}) == 1
    windows = control.windows()
    assert sum(window["outcomes"].get("ok", 0) for window in windows) == len(sent)
    assert sum(sum(window["histogram"].values()) for window in windows) == len(sent)
    assert {window["revision"] for window in windows} == {1, 2}
    numbers = [window["sequence"] for window in windows]
    assert numbers == sorted(set(numbers))


def test_the_backlog_is_bounded_and_its_loss_is_counted(
    server: FakeServer, control: FakeControl, tmp_path: Path
) -> None:
    control.table = only(server)
    with running(tmp_path, control=control.url, backlog_reports=5) as gateway:
        eventually(lambda: control.reports)
        control.server.stop()
        eventually(lambda: gateway.metric("sluice_reports_dropped_total") > 3)
        with Client(gateway.address) as client:
            assert client.ask(infer("m")).status == 200
        control.server.start()
        eventually(lambda: any(window["outcomes"].get("ok") for window in control.windows()))


NO_LABELS = [
    b"", b"{", b"[]", b"3", b'{"labels": []}', b'{"labels": {}}', b"\xff", b"[" * 1_900,
    b'{"request_id": "\\ud800", "model": "m", "label": 1}', b'{"request_id": "r", "model": "m"}',
    b'{"request_id": "r", "model": "a/b", "label": 1}', b'{"request_id": "r", "model": "m", "label": NaN}',
    b'{"request_id": "r", "model": "m", "label": -1}', b'{"request_id": "a b", "model": "m", "label": 1}',
]  # fmt: skip


def test_labels_arrive_and_garbage_is_refused(server: FakeServer, control: FakeControl, tmp_path: Path) -> None:
    control.table = only(server)
    one = {"request_id": "r1", "model": "m", "label": 3}
    with running(tmp_path, control=control.url, label_body_bytes=2_000) as gateway, Client(gateway.address) as client:
        assert _label(client, one) == (202, {"accepted": 1})
        assert _label(client, {"labels": [one | {"request_id": "r2", "label": [1, 2]}, one]}) == (202, {"accepted": 2})
        for bad in NO_LABELS:
            status, answer = _label(client, bad)
            assert status == 400 and "error" in answer, bad
        assert _label(client, b" " * 2_001)[0] == 413
        arrived = eventually(lambda: len(labels := control.gathered("labels")) >= 3 and labels)
        assert _label(client, one)[0] == 202
        eventually(lambda: len(control.gathered("labels")) == 4)  # The link lives on after all that.
    assert arrived == [
        {"request_id": "r1", "model": "m", "label": [3]},
        {"request_id": "r2", "model": "m", "label": [1, 2]},
        {"request_id": "r1", "model": "m", "label": [3]},
    ]


def test_labels_are_refused_while_too_many_wait_and_taken_again_afterwards(
    server: FakeServer, control: FakeControl, tmp_path: Path
) -> None:
    control.table = only(server)
    many = {"labels": [{"request_id": "r", "model": "m", "label": 1}] * 20_000}
    with running(tmp_path, control=control.url) as gateway, Client(gateway.address) as client:
        eventually(lambda: control.reports)
        control.server.stop()
        taken = 0
        while (answered := _label(client, many))[0] == 202:
            taken += answered[1]["accepted"]
            assert taken <= 400_000
            time.sleep(0.1)
        assert answered[0] == 503 and taken >= 100_000
        gateway.signal(signal.SIGHUP)  # A new worker knows it too.
        eventually(lambda: gateway.health("ready") == 200)
        control.server.start()
        eventually(lambda: len(control.gathered("labels")) == taken)
        with Client(gateway.address) as later:
            eventually(lambda: _label(later, many["labels"][0])[0] == 202)


def _label(client: Client, body: Any) -> tuple[int, Any]:
    data = body if isinstance(body, bytes) else json.dumps(body).encode()
    head = b"POST /v1/feedback HTTP/1.1\r\nHost: gw\r\nContent-Length: %d\r\n\r\n" % len(data)
    answer = client.ask(head + data)
    return answer.status, answer.json()


def test_samples_are_reported_as_they_were_answered_and_bounded(
    server: FakeServer, control: FakeControl, tmp_path: Path
) -> None:
    control.table = only(server)
    with running(tmp_path, control=control.url, samples_per_s=5) as gateway, Client(gateway.address) as client:
        time.sleep(0.2)
        for _ in range(100):
            assert client.ask(infer("m")).status == 200
        samples = eventually(lambda: control.gathered("samples"))
        assert samples[0]["model"] == "m" and samples[0]["mirrored"] is None
    assert 1 <= len(control.gathered("samples")) <= 15


def test_a_route_that_goes_closes_its_servers_connections(
    server: FakeServer, control: FakeControl, tmp_path: Path
) -> None:
    control.table = only(server)
    with running(tmp_path, control=control.url) as gateway, Client(gateway.address) as client:
        assert client.ask(infer("m")).status == 200
        assert server.open
        control.table = table(version=2)
        eventually(lambda: not server.open)
        assert client.ask(infer("m")).status == 404
        pid = gateway.worker_pids()[0]
    assert not is_alive(pid)
