"""Who leads: one at a time, followed soon, and fenced off for good."""

import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest
from sqlalchemy import text

from rollout.errors import NotLeaderError
from rollout.leading import Leadership
from rollout.store import history
from rollout.store.database import Database
from rollout.store.history import Entry

ENTRY = Entry(1.0, "ada", "digits", None, "held", "")


@pytest.fixture
def database(database_url: str) -> Iterator[Database]:
    database = Database.open(database_url)
    yield database
    database.close()


def entries(database: Database) -> int:
    with database.reading() as connection:
        return len(history.entries(connection))


def test_one_leads_and_another_follows_at_once_when_it_resigns(database: Database) -> None:
    first, second = Leadership(database, "http://first"), Leadership(database, "http://second")
    assert first.seek() and not second.seek() and first.seek()
    assert (first.term, second.term, second.leader) == (1, None, "http://first")
    first.resign()
    assert second.seek() and not first.seek()
    assert (first.term, second.term, first.leader) == (None, 2, "http://second")


def test_of_many_that_seek_at_once_one_leads(database: Database) -> None:
    those = [Leadership(database, str(number)) for number in range(8)]
    with ThreadPoolExecutor(8) as pool:
        assert sorted(pool.map(Leadership.seek, those)) == [False] * 7 + [True]


def test_who_never_led_writes_nothing(database: Database) -> None:
    with pytest.raises(NotLeaderError, match="no control plane leads"), Leadership(database, "").writing():
        raise AssertionError


def test_who_fell_silent_is_followed_and_writes_nothing_when_it_comes_back(database: Database) -> None:
    silent, next_one = (Leadership(database, f"http://{name}", lease_s=0.2) for name in ("silent", "next"))
    assert silent.seek()
    with silent.writing() as connection:
        history.append(connection, ENTRY)
    time.sleep(0.3)
    assert next_one.seek()
    assert silent.term == 1, "it does not know yet"
    with pytest.raises(NotLeaderError, match="http://next"), silent.writing() as connection:
        history.append(connection, ENTRY)
    with pytest.raises(NotLeaderError):
        silent.check()
    assert silent.term is None and entries(database) == 1
    silent.resign()
    assert next_one.seek() and next_one.term == 2


def test_a_lease_that_comes_from_the_future_binds_nobody(database: Database) -> None:
    first, second = Leadership(database, ""), Leadership(database, "")
    first.seek()
    with database.writing() as connection:
        connection.execute(text("UPDATE leader SET renewed_at = renewed_at + 3600"))
    assert second.seek()


LEADER = """
import sys, time
from rollout.leading import Leadership
from rollout.store.database import Database
leadership = Leadership(Database.open(sys.argv[1]), "http://killed")
print(leadership.seek(), flush=True)
time.sleep(60)
"""


def test_who_was_killed_on_this_machine_is_followed_at_once(database: Database, database_url: str) -> None:
    ours = Leadership(database, "http://ours")
    with subprocess.Popen([sys.executable, "-c", LEADER, database_url], stdout=subprocess.PIPE, text=True) as killed:
        assert killed.stdout is not None
        assert killed.stdout.readline() == "True\n"
        assert not ours.seek()
        killed.send_signal(signal.SIGKILL)
        killed.wait()
    assert ours.seek()


def test_a_writer_that_is_frozen_within_a_transaction_loses_the_lock(postgres: object) -> None:
    """PostgreSQL ends it; on SQLite the file's lock is the frozen process's until it goes on or dies."""
    from tests.rollout.servers import PostgresServer

    assert isinstance(postgres, PostgresServer)
    url = postgres.create("frozen")
    script = """
import sys, time
from rollout.store.database import Database
database = Database.open(sys.argv[1])
with database.writing():
    print("in", flush=True)
    time.sleep(60)
"""
    database = Database.open(url)
    with subprocess.Popen([sys.executable, "-c", script, url], stdout=subprocess.PIPE, text=True) as frozen:
        assert frozen.stdout is not None
        frozen.stdout.readline()
        frozen.send_signal(signal.SIGSTOP)
        began = time.monotonic()
        with database.writing() as connection:
            history.append(connection, ENTRY)
        assert 3.0 < time.monotonic() - began < 9.0
        frozen.kill()
    database.close()
