"""Opens the database and hands out transactions, on SQLite (the default) or PostgreSQL.

The laws: what was acknowledged is durable; one transaction writes at a time, so observations become visible in the
order of their numbers; two processes that open a new database bring it to this version one after the other.
"""

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Any, Protocol, Self

from alembic import command
from alembic.config import Config
from alembic.util.exc import CommandError
from sqlalchemy import Connection, Engine, Table, create_engine, event, text
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.engine import URL, make_url
from sqlalchemy.exc import ArgumentError, DBAPIError, IntegrityError, SQLAlchemyError

from rollout.errors import DatabaseError

BUSY_TIMEOUT_MS = 10_000
WRITER_LOCK = 0x5_1DCE
"""The advisory lock that every writing transaction on PostgreSQL holds. Any number, as long as it stays."""
POSTGRESQL_OPTIONS = {
    "connect_timeout": 5,
    "keepalives_idle": 5,
    "tcp_user_timeout": 10_000,
    "options": (
        f"-c lock_timeout={BUSY_TIMEOUT_MS} -c statement_timeout=60000 -c synchronous_commit=on"
        " -c idle_in_transaction_session_timeout=5000"
    ),
}
"""A writer that is frozen in the middle of a transaction loses it, and the lock, after five seconds."""


class Transactions(Protocol):
    """What those who read and write are given: a `Database`, or `leading.Leadership` that writes as the leader only."""

    def reading(self) -> AbstractContextManager[Connection]: ...

    def writing(self) -> AbstractContextManager[Connection]: ...


class Database:
    """Transactions on one database; safe to use from several threads."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._told_of_writes: list[Callable[[], None]] = []

    @classmethod
    def open(cls, url: str) -> Self:
        """Open, and bring to this version, the database at `sqlite:///PATH` or `postgresql://USER@HOST/NAME`.

        Raises:
            DatabaseError: it cannot be opened, is damaged, or was written by a newer Sluice.
        """
        engine = _engine(url)
        where = engine.url.render_as_string(hide_password=True)
        try:
            _migrate(engine)
        except CommandError as exc:
            engine.dispose()
            raise DatabaseError(
                f"the database {where} was written by a newer Sluice ({exc}): run that one, or give another database"
            ) from exc
        except (SQLAlchemyError, UnicodeError) as exc:
            engine.dispose()
            is_file = engine.dialect.name == "sqlite"
            hint = "move it away to begin anew" if is_file else "is the server up, and may this user create tables?"
            raise DatabaseError(f"the database {where} cannot be used ({_cause(exc)}): {hint}") from exc
        return cls(engine)

    @contextmanager
    def reading(self) -> Iterator[Connection]:
        """A transaction that sees one state of the database. Raises DatabaseError."""
        with _told(), self._engine.connect() as connection, connection.begin():
            yield connection

    @contextmanager
    def writing(self) -> Iterator[Connection]:
        """A transaction that is the only writer from its beginning; all of it is kept, or nothing.

        Raises:
            DatabaseError: the database cannot be reached or written; nothing of it is kept.
        """
        with _told(), self._engine.connect() as connection:
            connection = connection.execution_options(writes=True)
            with connection.begin():
                yield connection
        for tell in self._told_of_writes:
            tell()

    def tell_of_writes(self, tell: Callable[[], None]) -> None:
        """Call `tell` after every change that is kept, from the thread that made it."""
        self._told_of_writes.append(tell)

    def close(self) -> None:
        self._engine.dispose()


def insert_new(connection: Connection, table: Table, rows: Sequence[dict[str, Any]]) -> None:
    """Insert rows, passing over those whose unique key stands there already."""
    if rows:
        dialect = postgresql if connection.dialect.name == "postgresql" else sqlite
        connection.execute(dialect.insert(table).on_conflict_do_nothing(), rows)


def clock_of(connection: Connection) -> float:
    """The database's clock, in seconds since the epoch; on SQLite this machine's."""
    if connection.dialect.name == "sqlite":
        return time.time()
    return float(connection.execute(text("SELECT extract(epoch FROM clock_timestamp())")).scalar_one())


def _engine(url: str) -> Engine:
    try:
        parsed = make_url(url)
    except ArgumentError as exc:
        raise DatabaseError(f"{url!r} is no database URL: write sqlite:///PATH or postgresql://USER@HOST/NAME") from exc
    match parsed.get_backend_name():
        case "sqlite":
            return _sqlite(parsed)
        case "postgresql":
            return _postgresql(parsed)
        case other:
            raise DatabaseError(f"a database of the kind {other!r} is not known: use sqlite or postgresql")


def _sqlite(url: URL) -> Engine:
    if not url.database or url.database == ":memory:":
        raise DatabaseError("a database in memory would forget everything: write sqlite:///PATH")
    Path(url.database).parent.mkdir(parents=True, exist_ok=True)
    engine = create_engine(url)
    event.listen(engine, "connect", _prepare_sqlite)
    event.listen(engine, "begin", _begin_sqlite)
    return engine


def _postgresql(url: URL) -> Engine:
    try:
        engine = create_engine(
            url.set(drivername="postgresql+psycopg"), pool_pre_ping=True, pool_size=10, connect_args=POSTGRESQL_OPTIONS
        )
    except ImportError as exc:
        raise DatabaseError("PostgreSQL needs its driver: run `pip install 'sluice[postgres]'`") from exc
    event.listen(engine, "begin", _begin_postgresql)
    return engine


def _prepare_sqlite(connection: Any, _record: Any) -> None:
    connection.isolation_level = None  # Transactions are begun by _begin_sqlite.
    for pragma in ("journal_mode=WAL", "synchronous=FULL", f"busy_timeout={BUSY_TIMEOUT_MS}", "foreign_keys=ON"):
        connection.execute(f"PRAGMA {pragma}").close()


def _begin_sqlite(connection: Connection) -> None:
    writes = connection.get_execution_options().get("writes", False)
    connection.exec_driver_sql("BEGIN IMMEDIATE" if writes else "BEGIN")


def _begin_postgresql(connection: Connection) -> None:
    if connection.get_execution_options().get("writes", False):
        connection.exec_driver_sql(f"SELECT pg_advisory_xact_lock({WRITER_LOCK})")


@contextmanager
def _told() -> Iterator[None]:
    """What the driver says, as an error of ours; broken constraints are the callers' business."""
    try:
        yield
    except IntegrityError:
        raise
    except DBAPIError as exc:
        raise DatabaseError(
            f"the database cannot be used now ({_cause(exc)}): see that it is up, writable and has room"
        ) from exc


def _cause(exc: BaseException) -> str:
    cause = exc.orig if isinstance(exc, DBAPIError) and exc.orig is not None else exc
    return " ".join(str(cause).split()) or type(cause).__name__


def _migrate(engine: Engine) -> None:
    config = Config()
    config.set_main_option("script_location", str(Path(__file__).parent / "migrations"))
    with engine.connect() as connection:
        connection = connection.execution_options(writes=True)
        with connection.begin():
            config.attributes["connection"] = connection
            command.upgrade(config, "head")
