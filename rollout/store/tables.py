"""The tables. Times are seconds since the epoch; JSON stands in TEXT columns, written by the modules that own it.

Numbers are never used again (AUTOINCREMENT), since rollouts remember the last observations that they have seen.
"""

from sqlalchemy import BigInteger, Column, Float, Index, Integer, MetaData, String, Table, Text, UniqueConstraint

metadata = MetaData()

route_table = Table(
    "route_table",
    metadata,
    Column("id", Integer, primary_key=True),
    Column("version", BigInteger, nullable=False),
    Column("document", Text, nullable=False),
)
"""One row: the table in force."""

rollouts = Table(
    "rollouts",
    metadata,
    Column("id", Integer, primary_key=True, autoincrement=True),
    Column("model", String(128), nullable=False),
    Column("release", Integer, nullable=False),
    Column("active_model", String(128), unique=True),
    Column("status", String(16), nullable=False),
    Column("state", Text, nullable=False),
    Column("since_version", BigInteger, nullable=False),
    Column("windows_seen", Integer, nullable=False),
    Column("samples_seen", Integer, nullable=False),
    Column("created_at", Float, nullable=False),
    Column("updated_at", Float, nullable=False),
    sqlite_autoincrement=True,
)
"""`since_version`: the route table before this rollout; what was counted under it, or an older one, is not its own.

`active_model` is the model while the rollout goes on, then NULL: so there is one rollout a model at most.
"""

instructions = Table(
    "instructions",
    metadata,
    Column("id", Integer, primary_key=True, autoincrement=True),
    Column("rollout", Integer, nullable=False, index=True),
    Column("document", Text, nullable=False),
    Column("done_at", Float),
    sqlite_autoincrement=True,
)
"""What the engine wants done, in order; `done_at` is NULL while it is owed."""

windows = Table(
    "windows",
    metadata,
    Column("id", Integer, primary_key=True, autoincrement=True),
    Column("gateway", String(128), nullable=False),
    Column("boot", String(64), nullable=False),
    Column("sequence", BigInteger, nullable=False),
    Column("model", String(128), nullable=False),
    Column("started_at", Float, nullable=False),
    Column("document", Text, nullable=False),
    UniqueConstraint("gateway", "boot", "sequence"),
    Index("windows_by_model", "model", "id"),
    sqlite_autoincrement=True,
)

samples = Table(
    "samples",
    metadata,
    Column("id", Integer, primary_key=True, autoincrement=True),
    Column("model", String(128), nullable=False),
    Column("request_id", String(128), nullable=False),
    Column("at", Float, nullable=False),
    Column("release", Integer, nullable=False),
    Column("predicted", Text, nullable=False),
    Column("mirrored_release", Integer),
    Column("mirrored_predicted", Text),
    Column("judged", Integer, nullable=False),
    UniqueConstraint("model", "request_id"),
    Index("samples_waiting", "model", "judged", "at"),
    sqlite_autoincrement=True,
)
"""Predictions as JSON lists of class indices, one a row of the request. `judged`: 1 when its label was counted."""

labels = Table(
    "labels",
    metadata,
    Column("id", Integer, primary_key=True, autoincrement=True),
    Column("model", String(128), nullable=False),
    Column("request_id", String(128), nullable=False),
    Column("at", Float, nullable=False),
    Column("document", Text, nullable=False),
    UniqueConstraint("model", "request_id"),
    sqlite_autoincrement=True,
)

history = Table(
    "history",
    metadata,
    Column("id", Integer, primary_key=True, autoincrement=True),
    Column("at", Float, nullable=False),
    Column("author", String(128), nullable=False),
    Column("model", String(128), nullable=False),
    Column("rollout", Integer),
    Column("what", String(64), nullable=False),
    Column("reason", Text, nullable=False),
    Column("previous", String(64), nullable=False),
    Column("digest", String(64), nullable=False),
    sqlite_autoincrement=True,
)
"""Append-only; each row's digest covers the row and the digest before it."""
