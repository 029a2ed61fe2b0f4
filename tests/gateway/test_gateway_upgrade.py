"""Upgrades in place: the supervisor becomes the code on disk, and nobody who is served or counted notices."""

import os
import shutil
import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from tests.gateway.fakes import OK, FakeControl, FakeServer, after
from tests.gateway.harness import ROOT, Client, Gateway, eventually, get, infer, route, running, table
from tests.gateway.load import load, sluice, status


def routes(server: FakeServer, version: int = 1) -> dict[str, Any]:
    return table(route("m", {1: [server.address]}, revision=version), version=version)


class Code:
    """A copy of the gateway's code that a test may change."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        shutil.copytree(ROOT / "gateway", folder / "gateway", ignore=shutil.ignore_patterns("__pycache__"))
        shutil.copy(ROOT / "sluice.py", folder)

    def replace(self, file: str, old: str, new: str) -> None:
        path = self.folder / "gateway" / file
        text = path.read_text()
        assert old in text
        path.write_text(text.replace(old, new))


@contextmanager
def copied(tmp_path: Path, given: dict[str, Any] | None, **settings: Any) -> Iterator[tuple[Gateway, Code]]:
    code = Code(tmp_path / "code")
    with running(tmp_path / "gateway", given, code=code.folder, **settings) as gateway:
        yield gateway, code


def test_an_upgrade_under_load_serves_new_code_and_costs_no_request(server: FakeServer, tmp_path: Path) -> None:
    settings = {"workers": 2, "linger_s": 1.0}
    with copied(tmp_path, routes(server), **settings) as (gateway, code):
        asked_for = get("/nothing")
        with Client(gateway.address) as client:
            assert "is not served here" in client.ask(asked_for).json()["error"]
        code.replace("paths.py", "is not served here", "is not served any more")
        seen = []
        with load(gateway) as asked:
            for _ in range(3):
                old = set(gateway.worker_pids())
                done = sluice(gateway, "upgrade")
                assert (done.returncode, done.stderr) == (0, "")
                assert "upgraded: 2 new workers serve" in done.stdout
                with Client(gateway.address) as client:
                    assert "is not served any more" in client.ask(asked_for).json()["error"]
                eventually(lambda old=old: not old & set(gateway.worker_pids()))
                seen.append(gateway.counted("m").get("ok", 0))
        assert set(asked.seen) == {"200", "announced"}
        eventually(lambda: gateway.counted("m") == {"ok": asked.seen["200"]})
        assert seen == sorted(seen) and seen[0] > 0
        assert gateway.metric("sluice_workers_replaced_total") == 0 and gateway.metric("sluice_generation") == 3


def test_code_that_would_not_start_changes_nothing(server: FakeServer, tmp_path: Path) -> None:
    with copied(tmp_path, routes(server), workers=2) as (gateway, code):
        before = gateway.worker_pids()
        code.replace("worker.py", "import asyncio", "import asyncio as")
        with load(gateway) as asked:
            done = sluice(gateway, "upgrade")
        assert done.returncode == 2
        assert "upgrade given up, nothing was changed" in done.stderr and "SyntaxError" in done.stderr
        assert gateway.worker_pids() == before and set(asked.seen) == {"200"}
        assert "nothing was changed" in gateway.log.read_text()


def test_code_that_lays_its_counters_out_otherwise_is_not_upgraded_to(server: FakeServer, tmp_path: Path) -> None:
    with copied(tmp_path, routes(server)) as (gateway, code):
        code.replace("counters.py", "HISTOGRAM = 16", "HISTOGRAM = 32")
        done = sluice(gateway, "upgrade")
        assert done.returncode == 2 and "cannot take over from the running one" in done.stderr


def test_new_workers_that_do_not_start_leave_the_adopted_ones_serving(server: FakeServer, tmp_path: Path) -> None:
    with copied(tmp_path, routes(server), workers=2) as (gateway, code):
        before = set(gateway.worker_pids())
        code.replace("worker.py", "def main() -> None:", 'def main() -> None:\n    sys.exit("broken")\n')
        with load(gateway) as asked:
            done = sluice(gateway, "upgrade")
            assert done.returncode == 2 and "the old workers serve on" in done.stderr
            assert set(gateway.worker_pids()) == before
            code.replace("worker.py", '    sys.exit("broken")\n', "")
            killed = min(before)
            os.kill(killed, signal.SIGKILL)  # It was adopted: it is replaced like any other.
            eventually(lambda: len(set(gateway.worker_pids()) - {killed}) == 2)
        assert asked.seen["broken"] <= 6
        eventually(lambda: gateway.metric("sluice_workers_replaced_total") == 1)


def test_nothing_is_reported_twice_or_never(server: FakeServer, control: FakeControl, tmp_path: Path) -> None:
    """Windows and labels arrive once, through upgrades with the control plane away and back."""
    control.table = routes(server)
    labels = 0
    with copied(tmp_path, None, control=control.url, workers=2, linger_s=0.3) as (gateway, _):
        with load(gateway) as asked, Client(gateway.address) as client:
            for number in range(3):
                if number == 1:
                    control.server.stop()
                    eventually(lambda: gateway.metric("sluice_control_plane_up") == 0)
                assert sluice(gateway, "upgrade").returncode == 0
                body = b'{"request_id": "r%d", "model": "m", "label": 1}' % number
                posted = b"POST /v1/feedback HTTP/1.1\r\nHost: gw\r\nContent-Length: %d\r\nConnection: close\r\n\r\n"
                with Client(gateway.address) as other:
                    labels += other.ask(posted % len(body) + body).status == 202
            control.server.start()
            control.table = routes(server, 2)
            eventually(lambda: status(gateway)["table_version"] == 2)
            assert client.sock
        eventually(lambda: gateway.counted("m") == {"ok": asked.seen["200"]})
    assert set(asked.seen) == {"200", "announced"}
    assert {report["boot"] for report in control.reports} == {control.reports[0]["boot"]}
    reports = {report["sequence"]: report for report in control.reports}  # At least once: the receiver drops repeats.
    assert sorted(reports) == list(range(1, len(reports) + 1))
    windows = [window for report in reports.values() for window in report["windows"]]
    numbers = [window["sequence"] for window in windows]
    assert len(set(numbers)) == len(numbers)
    assert sum(window["outcomes"].get("ok", 0) for window in windows) == asked.seen["200"]
    assert sum(sum(window["histogram"].values()) for window in windows) == asked.seen["200"]
    assert labels == 3 == sum(len(report["labels"]) for report in reports.values())


def test_a_worker_that_dies_during_an_upgrade_is_counted_and_replaced(server: FakeServer, tmp_path: Path) -> None:
    server.behave = after(0.3, OK)
    with copied(tmp_path, routes(server), workers=2, linger_s=0.3) as (gateway, _):
        eventually(lambda: len(status(gateway)["workers"]) == 2)
        with Client(gateway.address) as client:
            assert client.ask(infer("m")).status == 200
        killed = gateway.worker_pids()[0]
        upgrading = threading.Thread(target=sluice, args=(gateway, "upgrade"))
        upgrading.start()
        eventually(lambda: status(gateway)["asked"] == 1)
        time.sleep(0.5)  # The check is over, or nearly; wherever it strikes, all must be well.
        os.kill(killed, signal.SIGKILL)
        upgrading.join()
        assert status(gateway)["outcome"]["ok"]
        eventually(lambda: killed not in gateway.worker_pids())
        with Client(gateway.address) as client:
            assert client.ask(infer("m")).status == 200
        eventually(lambda: gateway.counted("m")["ok"] == 2)


def test_signals_that_come_during_an_upgrade_are_heard_after_it(server: FakeServer, tmp_path: Path) -> None:
    with copied(tmp_path, routes(server), workers=2, linger_s=0.2) as (gateway, _):
        eventually(lambda: status(gateway)["asked"] == 0)
        with load(gateway) as asked:
            gateway.signal(signal.SIGUSR2)
            for _ in range(40):
                gateway.signal(signal.SIGHUP)
                time.sleep(0.02)
            eventually(lambda: (now := status(gateway))["done"] == now["asked"] >= 2, 20.0)
        assert set(asked.seen) <= {"200", "announced"}
        gateway.signal(signal.SIGUSR2)
        time.sleep(0.6)
        gateway.signal(signal.SIGTERM)
        assert gateway.process.wait(15) == 0
    assert "Traceback" not in gateway.log.read_text()
