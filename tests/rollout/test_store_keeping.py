"""The database: once only, one at a time, hash-chained, and whole after a kill."""

import contextlib
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from sqlalchemy import text

from gateway.routes import Candidate, Route
from gateway.samples import Label
from gateway.windows import Role, Window
from rollout.decision import engine
from rollout.decision.events import Aborted, RolloutStarted
from rollout.decision.instructions import Announce, StartPool
from rollout.decision.rules import Plan
from rollout.errors import ConflictError, DatabaseError, NotFoundError
from rollout.store import history, observations, rollouts, routes
from rollout.store.database import Database
from rollout.store.history import Entry
from rollout.store.observations import Gap, Prediction
from rollout.store.tables import metadata

STATE = engine.start("digits", 2, 1, Plan(), "salt")
ROUTE = Route("digits", 0, 1, {1: ("127.0.0.1:1",), 2: ("127.0.0.1:2",)}, Candidate(2, 0.1))


@contextlib.contextmanager
def opened(url: str) -> Iterator[Database]:
    database = Database.open(url)
    yield database
    database.close()


@pytest.fixture
def database(database_url: str) -> Iterator[Database]:
    with opened(database_url) as database:
        yield database


def test_migrations_make_the_tables_that_the_code_uses(database: Database) -> None:
    with database.reading() as connection:
        assert compare_metadata(MigrationContext.configure(connection), metadata) == []


def test_database_is_durable_by_its_settings(database: Database) -> None:
    with database.reading() as connection:
        if connection.dialect.name == "sqlite":
            assert connection.execute(text("PRAGMA journal_mode")).scalar() == "wal"
            assert connection.execute(text("PRAGMA synchronous")).scalar() == 2
        else:
            assert connection.execute(text("SHOW synchronous_commit")).scalar() == "on"


def test_opening_twice_changes_nothing(database: Database, database_url: str) -> None:
    with database.writing() as connection:
        rollouts.create(connection, STATE, 0, 1.0)
    with opened(database_url) as again, again.reading() as connection:
        assert rollouts.get(connection, 1).state == STATE


def test_garbage_for_a_database_is_refused(tmp_path: Path) -> None:
    (tmp_path / "control.db").write_bytes(b"this is no database at all" * 100)
    with pytest.raises(DatabaseError, match="move it away"):
        Database.open(f"sqlite:///{tmp_path / 'control.db'}")


@pytest.mark.parametrize(
    ("url", "said"),
    [
        ("control.db", "no database URL"), ("mysql://u@h/d", "is not known"), ("sqlite://", "forget everything"),
        ("postgresql://u@127.0.0.1:1/d", "is the server up"), ("sqlite:////proc/control.db", "cannot be used"),
    ],
)  # fmt: skip
def test_urls_that_lead_nowhere_are_refused(url: str, said: str) -> None:
    with pytest.raises(DatabaseError, match=said):
        Database.open(url)


def test_newer_database_is_refused(database: Database, database_url: str) -> None:
    with database.writing() as connection:
        connection.execute(text("UPDATE alembic_version SET version_num = '9999'"))
    with pytest.raises(DatabaseError, match="newer Sluice"):
        Database.open(database_url)


def test_one_rollout_a_model_until_it_ends(database: Database) -> None:
    with database.writing() as connection:
        first = rollouts.create(connection, STATE, 0, 1.0)
    with pytest.raises(ConflictError, match="under way"), database.writing() as connection:
        rollouts.create(connection, STATE, 0, 2.0)
    begun, _ = engine.handle(STATE, RolloutStarted(), 1.0)
    ended, _ = engine.handle(begun, Aborted("ada", ""), 2.0)
    with database.writing() as connection:
        rollouts.save(connection, replace(first, state=ended), (), 2.0)
        second = rollouts.create(connection, STATE, 0, 3.0)
        assert len(rollouts.active(connection)) == 1
        assert [one.id for one in rollouts.page(connection)] == [second.id, first.id]


def test_unknown_rollout(database: Database) -> None:
    with database.reading() as connection, pytest.raises(NotFoundError):
        rollouts.get(connection, 7)


def test_instructions_are_owed_in_order_until_done(database: Database) -> None:
    with database.writing() as connection:
        stored = rollouts.create(connection, STATE, 0, 1.0)
        rollouts.save(connection, stored, (StartPool(2), Announce("hello")), 2.0)
    with database.writing() as connection:
        first, second = rollouts.owed(connection)
        assert (first.instruction, second.instruction) == (StartPool(2), Announce("hello"))
        rollouts.done(connection, first.id, 3.0)
        assert rollouts.owed(connection) == [second]


def test_route_gets_the_version_in_which_it_changed(database: Database) -> None:
    with database.writing() as connection:
        assert routes.current(connection).version == 0
        assert routes.replace_route(connection, ROUTE, 0.0).routes["digits"].revision == 1
        other = routes.replace_route(connection, Route("other", 0, 1, {1: ("127.0.0.1:3",)}), 0.0)
        assert (other.version, other.routes["digits"].revision, other.routes["other"].revision) == (2, 1, 2)
        assert routes.current(connection) == other
        assert routes.replace_route(connection, ROUTE, 1_000_000.5).version == 1_000_000


def test_rollout_waits_until_the_one_before_owes_nothing(database: Database) -> None:
    aborted, _ = engine.handle(engine.handle(STATE, RolloutStarted(), 1.0)[0], Aborted("ada", ""), 2.0)
    with database.writing() as connection:
        first = rollouts.create(connection, STATE, 0, 1.0)
        rollouts.save(connection, replace(first, state=aborted), (Announce("it ended"),), 2.0)
        with pytest.raises(ConflictError, match="still being carried out"):
            rollouts.create(connection, STATE, 0, 3.0)
        rollouts.done(connection, rollouts.owed(connection)[0].id, 4.0)
        assert rollouts.create(connection, STATE, 0, 5.0).id > first.id


def test_numbers_are_not_used_again_after_forgetting(database: Database) -> None:
    window = Window("g", "b", 1, 1, "digits", 1, Role.ANSWERED, 0.5, 0.0, 1.0)
    with database.writing() as connection:
        observations.keep_windows(connection, [window], 5.0)
        seen, _ = observations.last_ids(connection)
        observations.forget_before(connection, 100.0)
        observations.keep_windows(connection, [replace(window, sequence=2)], 5.0)
        assert len(observations.windows_after(connection, "digits", seen)[0]) == 1


def test_observations_are_kept_once(database: Database) -> None:
    window = Window("g", "b", 1, 1, "digits", 1, Role.ANSWERED, 0.5, 0.0, 1.0)
    prediction = Prediction("r1", "digits", 10.0, 1, (3,), 2, (4,))
    kept: list[int] = []
    with database.writing() as connection:
        for _ in range(3):
            kept.append(observations.keep_windows(connection, [window, window], 5.0))
            observations.keep_predictions(connection, [prediction])
            observations.keep_labels(connection, [Label("r1", "digits", (3,))], 11.0)
        assert kept == [1, 0, 0]
        assert observations.windows_after(connection, "digits", 0) == ([window], 1)
        assert observations.predictions_after(connection, "digits", 0) == ([prediction], 1)
        assert observations.windows_after(connection, "digits", 1) == ([], 1)
        (judged,) = observations.newly_judged(connection, "digits", 2, 0.0)
        assert (judged.prediction, judged.truth) == (prediction, (3,))
        assert observations.newly_judged(connection, "digits", 3, 0.0) == []
        observations.mark_judged(connection, [judged.id])
        assert observations.newly_judged(connection, "digits", 2, 0.0) == []
        observations.forget_before(connection, 100.0)
        assert observations.last_ids(connection) == (0, 0)


def test_missing_windows_are_known_until_they_come(database: Database) -> None:
    windows = [Window("g", "b", number, 1, "digits", 1, Role.ANSWERED, 0.5, 0.0, 1.0) for number in range(3, 9)]
    with database.writing() as connection:
        observations.keep_windows(connection, windows[:2], 1.0)
        assert observations.gaps(connection) == []
        observations.keep_windows(connection, windows[4:], 2.0)
        assert observations.gaps(connection) == [Gap("g", "b", 2, 2.0)]
        observations.keep_windows(connection, windows[1:3], 3.0)
        assert observations.gaps(connection) == [Gap("g", "b", 1, 3.0)]
        assert observations.gaps(connection, since=4.0) == []
        observations.keep_windows(connection, windows, 4.0)
        assert observations.gaps(connection) == []
        assert len(observations.windows_after(connection, "digits", 0)[0]) == 6


def test_history_shows_where_it_was_changed(database: Database) -> None:
    with database.writing() as connection:
        for number in range(4):
            history.append(connection, Entry(float(number), "ada", "digits", 1, "held", f"reason {number}"))
        assert history.first_broken(connection) is None
        connection.execute(text("UPDATE history SET reason = 'another' WHERE id = 3"))
        assert history.first_broken(connection) == 3
        connection.execute(text("DELETE FROM history WHERE id = 2"))
        assert history.first_broken(connection) == 3


WRITER = """
import sys
from rollout.store import history
from rollout.store.database import Database
from rollout.store.history import Entry
database = Database.open(sys.argv[1])
number = 0
while True:
    with database.writing() as connection:
        history.append(connection, Entry(float(number), "ada", "digits", None, "held", "x" * 500))
        history.append(connection, Entry(float(number), "ada", "digits", None, "resumed", "x" * 500))
    sys.stdout.write(f"{number}\\n")
    sys.stdout.flush()
    number += 1
"""


@pytest.mark.parametrize("after_s", [0.0, 0.03, 0.1])
def test_what_was_acknowledged_is_there_after_a_kill_and_nothing_by_halves(database_url: str, after_s: float) -> None:
    Database.open(database_url).close()
    with subprocess.Popen([sys.executable, "-c", WRITER, database_url], stdout=subprocess.PIPE, text=True) as writer:
        assert writer.stdout is not None
        writer.stdout.readline()
        time.sleep(after_s)
        writer.send_signal(signal.SIGKILL)
        acknowledged = 1 + len(writer.stdout.readlines())
    with opened(database_url) as database, database.reading() as connection:
        kept = history.entries(connection, limit=100_000)
        assert history.first_broken(connection) is None
    assert len(kept) % 2 == 0
    assert acknowledged <= len(kept) // 2 <= acknowledged + 1
