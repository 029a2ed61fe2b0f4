"""A routes file that people and programs change: what is valid comes into force everywhere, the rest does nothing."""

import json
import os
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.gateway.fakes import FakeServer, http_answer, says
from tests.gateway.harness import Client, Gateway, eventually, infer, route, running, table
from tests.gateway.load import load, status

SETTLED_S = 0.3


class Files:
    """A gateway's routes file, changed in all the ways there are."""

    def __init__(self, folder: Path) -> None:
        self.path = folder / "routes.json"

    def write(self, content: dict[str, Any] | bytes) -> None:
        self.path.write_bytes(_bytes(content))

    def rename_over(self, content: dict[str, Any] | bytes) -> None:
        staged = self.path.with_suffix(".new")
        staged.write_bytes(_bytes(content))
        staged.replace(self.path)


def _bytes(content: dict[str, Any] | bytes) -> bytes:
    return content if isinstance(content, bytes) else json.dumps(content).encode()


@pytest.fixture
def other(loop_thread: Any) -> Iterator[FakeServer]:
    server = FakeServer(loop_thread, says(http_answer(b'{"other": true}')))
    yield server
    server.stop()


def one(server: FakeServer, version: int = 1, release: int = 1, **more: Any) -> dict[str, Any]:
    servers = {1: [server.address], 2: [server.address]}
    return table(route("m", servers, **({"stable": release} | more)), version=version)


def answers(gateway: Gateway) -> set[str]:
    """The releases that answer, over enough connections to meet every worker."""
    seen = set()
    for _ in range(12):
        with Client(gateway.address) as client:
            answer = client.ask(infer("m"))
            seen.add(answer.headers.get("x-sluice-release", str(answer.status)))
    return seen


@pytest.mark.parametrize("version", [0, 1, 2, 9])
def test_a_changed_file_is_applied_whatever_its_version_says(server: FakeServer, tmp_path: Path, version: int) -> None:
    files = Files(tmp_path)
    with running(tmp_path, one(server), workers=2) as gateway:
        for given, release in ((max(2, version), 2), (max(3, version + 1), 1)):
            files.write(one(server, version, release))
            eventually(lambda release=release: answers(gateway) == {f"m/{release}"})
            eventually(lambda given=given: gateway.metric("sluice_route_table_version") == given)


def test_a_file_that_is_swapped_by_rename_or_by_symlink_is_applied(server: FakeServer, tmp_path: Path) -> None:
    files = Files(tmp_path)
    with running(tmp_path, one(server), workers=2) as gateway:
        files.rename_over(one(server, release=2))
        eventually(lambda: answers(gateway) == {"m/2"})
        for number, release in ((1, 1), (2, 2)):
            target = tmp_path / f"target-{number}.json"
            target.write_bytes(_bytes(one(server, release=release)))
            link = tmp_path / "link"
            link.symlink_to(target)
            link.replace(files.path)
            eventually(lambda release=release: answers(gateway) == {f"m/{release}"})
        (tmp_path / "target-2.json").write_bytes(_bytes(one(server, release=1)))
        eventually(lambda: answers(gateway) == {"m/1"})


def test_two_changes_within_one_tick_of_the_clock_are_both_seen(server: FakeServer, tmp_path: Path) -> None:
    files = Files(tmp_path)
    with running(tmp_path, one(server)) as gateway:
        for _ in range(20):
            for release in (2, 1):  # Of the same size.
                files.write(one(server, release=release))
                stat = files.path.stat()
                os.utime(files.path, ns=(stat.st_atime_ns, stat.st_mtime_ns // 10**7 * 10**7))
            time.sleep(0.03)
        eventually(lambda: answers(gateway) == {"m/1"}, 2.0)


@pytest.mark.parametrize(
    "content",
    [
        b"", b"{", b"\x00", b"\xff", b"[1]", b'{"version": 2, "routes": [{"model": "../x"}]}',
        b'{"version": 2, "routes": [{"model": "m", "stable": 9, "servers": {"1": []}}]}',
    ],
)  # fmt: skip
def test_an_invalid_file_changes_nothing_and_is_told_once(server: FakeServer, tmp_path: Path, content: bytes) -> None:
    files = Files(tmp_path)
    with running(tmp_path, one(server)) as gateway:
        files.write(content)
        eventually(lambda: gateway.metric("sluice_route_table_refused") == 1)
        os.utime(files.path)
        files.rename_over(content)
        time.sleep(3 * SETTLED_S)
        assert gateway.log.read_text().count("the old one stays") == 1
        assert answers(gateway) == {"m/1"}
        assert gateway.metric("sluice_route_table_version") == 1
        files.write(one(server, release=2))
        eventually(lambda: gateway.metric("sluice_route_table_refused") == 0)
        assert answers(gateway) == {"m/2"}


def test_a_file_that_is_being_written_is_not_complained_of(server: FakeServer, tmp_path: Path) -> None:
    files = Files(tmp_path)
    whole = _bytes(one(server, release=2))
    with running(tmp_path, one(server)) as gateway:
        for size in range(0, len(whole) + 1, 20):
            files.write(whole[:size])
            time.sleep(0.02)
        files.write(whole)
        eventually(lambda: answers(gateway) == {"m/2"})
        assert "the old one stays" not in gateway.log.read_text()


def test_a_deleted_file_changes_nothing_until_it_is_back(server: FakeServer, tmp_path: Path) -> None:
    files = Files(tmp_path)
    with running(tmp_path, one(server)) as gateway:
        files.path.unlink()
        eventually(lambda: "cannot be read" in gateway.log.read_text())
        assert answers(gateway) == {"m/1"}
        files.write(one(server, release=2))
        eventually(lambda: answers(gateway) == {"m/2"})
        eventually(lambda: gateway.metric("sluice_route_table_refused") == 0)


def test_counts_of_two_weights_never_mix_and_other_routes_keep_theirs(
    server: FakeServer, other: FakeServer, tmp_path: Path
) -> None:
    files = Files(tmp_path)
    kept = route("kept", {1: [other.address]})
    first, second = (table(route("m", {1: [server.address]}, deadline_s=deadline_s), kept) for deadline_s in (5.0, 6.0))
    with running(tmp_path, first, workers=2) as gateway, Client(gateway.address) as client:
        assert client.ask(infer("kept")).status == 200
        connections = len(other.open)
        for change in (second, first, second):
            version = gateway.metric("sluice_route_table_version")
            files.write(change)
            eventually(lambda version=version: gateway.metric("sluice_route_table_version") == version + 1)
            assert client.ask(infer("m")).status == client.ask(infer("kept")).status == 200
        assert len(other.open) == connections  # A route that did not change keeps its connections.
        eventually(lambda: (gateway.counted("m"), gateway.counted("kept")) == ({"ok": 3}, {"ok": 4}))


def test_a_server_that_no_route_names_any_more_is_let_go(server: FakeServer, other: FakeServer, tmp_path: Path) -> None:
    files = Files(tmp_path)
    with running(tmp_path, one(server)) as gateway, Client(gateway.address) as client:
        assert client.ask(infer("m")).status == 200 and server.open
        files.write(one(other))
        eventually(lambda: not server.open)
        assert client.ask(infer("m")).json() == {"other": True}
        files.write(table())
        eventually(lambda: not other.open)
        assert client.ask(infer("m")).status == 404


def test_fifty_changes_in_a_row_under_load_cost_no_request(server: FakeServer, tmp_path: Path) -> None:
    files = Files(tmp_path)
    with running(tmp_path, one(server), workers=2, counter_slots=1024) as gateway:
        with load(gateway) as asked:
            for number in range(1, 51):
                files.rename_over(one(server, release=1 + number % 2, deadline_s=5.0 + number))
                eventually(lambda number=number: status(gateway)["table_version"] == 1 + number)
        assert set(asked.seen) == {"200"}
        eventually(lambda: gateway.counted("m") == {"ok": asked.seen["200"]})


def test_ten_thousand_routes_come_into_force_at_once_in_all_workers(server: FakeServer, tmp_path: Path) -> None:
    files = Files(tmp_path)
    names = ["m", *(f"m{number}" for number in range(9_999))]
    servers = {1: [server.address], 2: [server.address]}

    def big(release: int, only: str = "") -> dict[str, Any]:
        return table(*(route(name, servers, stable=release if only in ("", name) else 1) for name in names))

    with running(tmp_path, one(server), workers=2, counter_slots=262_144) as gateway:
        files.rename_over(big(1))
        eventually(lambda: gateway.metric("sluice_route_table_version") == 2)
        seen: list[tuple[float, str]] = []
        is_over = threading.Event()

        def ask(name: str) -> None:
            with Client(gateway.address) as client:
                while not is_over.is_set():
                    seen.append((time.monotonic(), client.ask(infer(name)).headers["x-sluice-release"]))

        threads = [threading.Thread(target=ask, args=(name,)) for name in ("m", "m9998") * 3]
        for thread in threads:
            thread.start()
        for version, (release, only) in enumerate(((2, "m"), (1, ""), (2, ""), (1, "")), 3):
            files.rename_over(big(release, only))
            eventually(lambda version=version: gateway.metric("sluice_route_table_version") == version)
        is_over.set()
        for thread in threads:
            thread.join()
        assert {release for _, release in seen} == {"m/1", "m/2", "m9998/1", "m9998/2"}
        eventually(lambda: gateway.counted("m", release="2").get("ok", 0) > 0)
        assert gateway.metric("sluice_workers_replaced_total") == 0
