"""Opens the database and hands out transactions. SQLite in WAL mode with synchronous=FULL: acknowledged is durable."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from alembic import command
from alembic.config import Config
from alembic.util.exc import CommandError
from sqlalchemy import Connection, Engine, Table, create_engine, event
from sqlalchemy.dialects.sqlite import insert
from sqlalchemy.exc import SQLAlchemyError

from rollout.errors import DatabaseError

BUSY_TIMEOUT_MS = 10_000


class Database:
    """Transactions on one database; safe to use from several threads."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    @staticmethod
    def open(path: Path) -> "Database":
        """Open, and bring to this version, the SQLite file at `path`.

        Raises:
            DatabaseError: it cannot be opened, is damaged, or was written by a newer Sluice.
        """
        path.parent.mkdir(parents=True, exist_ok=True)
        engine = create_engine(f"sqlite:///{path}")
        event.listen(engine, "connect", _prepare)
        event.listen(engine, "begin", _begin)
        try:
            _migrate(engine)
        except (SQLAlchemyError, CommandError) as exc:
            engine.dispose()
            raise DatabaseError(f"the database {path} cannot be used ({exc}): move it away to begin anew") from exc
        return Database(engine)

    @contextmanager
    def reading(self) -> Iterator[Connection]:
        with self._engine.connect() as connection, connection.begin():
            yield connection

    @contextmanager
    def writing(self) -> Iterator[Connection]:
        """A transaction that has the write lock from its beginning; all of it is kept, or nothing."""
        with self._engine.connect() as connection:
            connection = connection.execution_options(writes=True)
            with connection.begin():
                yield connection

    def close(self) -> None:
        self._engine.dispose()


def insert_new(connection: Connection, table: Table, rows: Sequence[dict[str, Any]]) -> None:
    """Insert rows, passing over those whose unique key stands there already."""
    if rows:
        connection.execute(insert(table).on_conflict_do_nothing(), rows)


def _prepare(connection: Any, _record: Any) -> None:
    connection.isolation_level = None  # Transactions are begun by _begin.
    for pragma in ("journal_mode=WAL", "synchronous=FULL", f"busy_timeout={BUSY_TIMEOUT_MS}", "foreign_keys=ON"):
        connection.execute(f"PRAGMA {pragma}").close()


def _begin(connection: Connection) -> None:
    writes = connection.get_execution_options().get("writes", False)
    connection.exec_driver_sql("BEGIN IMMEDIATE" if writes else "BEGIN")


def _migrate(engine: Engine) -> None:
    config = Config()
    config.set_main_option("script_location", str(Path(__file__).parent / "migrations"))
    with engine.connect() as connection:
        connection = connection.execution_options(writes=True)
        with connection.begin():
            config.attributes["connection"] = connection
            command.upgrade(config, "head")
