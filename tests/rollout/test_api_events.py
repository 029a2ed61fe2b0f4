"""The history as it grows: resumed without loss or repetition, ended with the server, idle for nothing."""

import asyncio
import contextlib
import json
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from rollout.api import feed as feed_module
from rollout.api.feed import RECENT_MOST, STILL_THERE, Feed, Wanted
from rollout.config import ControlSettings
from rollout.pools.fake import FakeHost
from rollout.store import history
from rollout.store.database import Database
from rollout.store.history import Entry
from tests.rollout.conftest import Plane, quick, running


@pytest.fixture
def database_url(tmp_path: Path) -> str:
    """One kind of database is enough here."""
    return f"sqlite:///{tmp_path / 'control.db'}"


@contextlib.contextmanager
def listening(plane: Plane, headers: dict[str, str] | None = None, **wanted: Any) -> Iterator[Iterator[dict[str, Any]]]:
    """The entries that arrive."""
    with plane.client.stream("GET", "/v1/events", params=wanted, headers=headers) as answer:
        assert answer.headers["content-type"].startswith("text/event-stream")
        yield read(answer)


def read(answer: httpx.Response) -> Iterator[dict[str, Any]]:
    key = 0
    for line in answer.iter_lines():
        if line.startswith("id: "):
            key = int(line[4:])
        if line.startswith("data: "):
            entry = json.loads(line[6:])
            assert entry["id"] == key
            yield entry


def test_entries_arrive_as_they_are_written(serving: Plane) -> None:
    with listening(serving) as entries:
        began = time.monotonic()
        key = serving.begin(2, quick()).json()["id"]
        assert [(one["rollout"], one["what"]) for one in (next(entries), next(entries))] == [
            (key, "asked"), (key, "warming"),
        ]  # fmt: skip
        assert time.monotonic() - began < 5


def test_listener_resumes_after_what_it_has_seen(serving: Plane) -> None:
    with listening(serving, after=0) as entries:
        seen = [next(entries), next(entries)]
    key = serving.begin(2, quick()).json()["id"]
    serving.client.post(f"/v1/rollouts/{key}/abort", json={"by": "ada"})
    with listening(serving, {"last-event-id": str(seen[-1]["id"])}, after=0) as entries:
        while seen[-1]["what"] != "aborted":
            seen.append(next(entries))
    assert [one["id"] for one in seen] == list(range(1, len(seen) + 1))


def test_listener_gets_what_it_wants_only(serving: Plane) -> None:
    key = serving.begin(2, quick()).json()["id"]
    with listening(serving, after=0, rollout=key) as entries:
        assert next(entries)["rollout"] == key
    with listening(serving, after=0, model="digits", rollout=1) as entries:
        assert next(entries)["id"] == 1


@pytest.mark.parametrize("wanted", [{"after": "-1"}, {"after": "x"}, {"rollout": "0"}, {"model": "a b"}])
def test_wrong_wishes_are_refused(plane: Plane, wanted: dict[str, str]) -> None:
    refused = plane.client.get("/v1/events", params=wanted)
    assert (refused.status_code, refused.json()["code"]) == (422, "invalid")


def test_server_stops_at_once_though_many_listen(settings: ControlSettings, repository: Path, tmp_path: Path) -> None:
    host = FakeHost(tmp_path)
    ended: list[int] = []

    def listen(url: str, heard: threading.Semaphore) -> None:
        with httpx.stream("GET", f"{url}/v1/events", timeout=30.0, trust_env=False) as answer:
            lines = answer.iter_lines()
            next(lines)
            heard.release()
            ended.append(sum(1 for _ in lines))  # Raises when the stream is cut instead of ended.

    heard = threading.Semaphore(0)
    with running(settings, host) as client:
        threads = [threading.Thread(target=listen, args=(str(client.base_url), heard)) for _ in range(10)]
        for thread in threads:
            thread.start()
        for _ in threads:
            assert heard.acquire(timeout=20)
        began = time.monotonic()
    assert time.monotonic() - began < 10
    for thread in threads:
        thread.join(10)
    host.close()
    assert len(ended) == len(threads)


class Counted(Database):
    """A database that counts who reads from it."""

    readings = 0

    @contextlib.contextmanager
    def reading(self) -> Iterator[Any]:
        self.readings += 1
        with super().reading() as connection:
            yield connection


@pytest.fixture
def database(database_url: str) -> Iterator[Counted]:
    opened = Counted.open(database_url)
    yield opened
    opened.close()


def write(database: Database, number: int, model: str = "digits") -> None:
    with database.writing() as connection:
        for _ in range(number):
            history.append(connection, Entry(time.time(), "ada", model, 1, "held", ""))


async def take(feed: Feed, number: int, after: int | None, wanted: Wanted = Wanted()) -> list[int]:
    """The ids of some entries that a listener gets."""
    found: list[int] = []
    async with contextlib.aclosing(feed.listen(after, wanted)) as events:
        async for event in events:
            if event.startswith("id: "):
                found.append(int(event.split()[1]))
            if len(found) == number:
                return found
    return found


async def until(database: Counted, readings: int) -> None:
    while database.readings < readings:
        await asyncio.sleep(0.01)


def test_many_listeners_cost_as_much_as_one(database: Counted) -> None:
    async def story() -> int:
        feed = Feed(database)
        database.tell_of_writes(feed.wake)
        async with feed.running():
            listeners = [asyncio.create_task(take(feed, 3, None)) for _ in range(200)]
            await until(database, 201)  # Each asks once where it begins.
            await asyncio.sleep(0.2)
            before, threads = database.readings, threading.active_count()
            await asyncio.to_thread(write, database, 3)
            assert await asyncio.gather(*listeners) == [[1, 2, 3]] * 200
            assert threads < 50
            return database.readings - before

    assert asyncio.run(asyncio.wait_for(story(), 30)) < 10


def test_what_another_process_writes_arrives_too(database: Counted, database_url: str) -> None:
    async def story() -> list[int]:
        feed = Feed(database)
        async with feed.running():
            listener = asyncio.create_task(take(feed, 2, 0))
            await until(database, 2)
            other = await asyncio.to_thread(Database.open, database_url)
            await asyncio.to_thread(write, other, 2)
            other.close()
            return await listener

    assert asyncio.run(asyncio.wait_for(story(), 30)) == [1, 2]


def test_nothing_is_lost_or_repeated_where_memory_ends(database: Counted) -> None:
    """Some begin in what is in memory, some before it, while it grows past the most that it holds."""
    most = RECENT_MOST + 500

    async def story() -> list[list[int]]:
        feed = Feed(database)
        database.tell_of_writes(feed.wake)
        await asyncio.to_thread(write, database, 100)
        async with feed.running():
            starts = (0, 50, 100, 700)
            listeners = [asyncio.create_task(take(feed, most + 100 - start, start)) for start in starts[:3]]
            for _ in range(15):
                await asyncio.to_thread(write, database, most // 15)
            late = asyncio.create_task(take(feed, most + 100 - 700, 700))
            return list(await asyncio.gather(*listeners, late))

    for start, found in zip((0, 50, 100, 700), asyncio.run(asyncio.wait_for(story(), 60)), strict=True):
        assert found == list(range(start + 1, most + 101))


def test_position_beyond_the_end_is_the_end(database: Counted) -> None:
    async def story() -> list[int]:
        feed = Feed(database)
        database.tell_of_writes(feed.wake)
        await asyncio.to_thread(write, database, 2)
        async with feed.running():
            listener = asyncio.create_task(take(feed, 1, 1_000_000))
            await until(database, 2)
            await asyncio.sleep(0.1)
            await asyncio.to_thread(write, database, 1)
            return await listener

    assert asyncio.run(asyncio.wait_for(story(), 30)) == [3]


def test_quiet_streams_say_that_they_are_there(database: Counted) -> None:
    async def story() -> list[str]:
        feed = Feed(database, quiet_s=0.05)
        async with feed.running(), contextlib.aclosing(feed.listen(None, Wanted())) as events:
            return [await anext(events) for _ in range(3)]

    assert asyncio.run(asyncio.wait_for(story(), 30)) == [": listening\n\n", STILL_THERE, STILL_THERE]
    assert feed_module.QUIET_S <= 15.0
