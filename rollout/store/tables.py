"""The tables. Times are seconds since the epoch; JSON stands in TEXT columns, written by the modules that own it.

Numbers are never used again (AUTOINCREMENT), since rollouts remember the last observations that they have seen.
"""

from sqlalchemy import BigInteger, Column, Float, Index, Integer, MetaData, String, Table, Text, UniqueConstraint

metadata = MetaData()
Number = BigInteger().with_variant(Integer, "sqlite")
"""Of rows that never stop coming. SQLite counts up only what is called INTEGER, and it has 64 bits there."""

leader = Table(
    "leader",
    metadata,
    Column("id", Integer, primary_key=True),
    Column("term", BigInteger, nullable=False),
    Column("name", String(512), nullable=False),
    Column("address", String(256), nullable=False),
    Column("renewed_at", Float, nullable=False),
)
"""One row: the control plane that leads or led last, by the database's clock."""

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
    Column("windows_seen", BigInteger, nullable=False),
    Column("samples_seen", BigInteger, nullable=False),
    Column("created_at", Float, nullable=False),
    Column("updated_at", Float, nullable=False),
    Column("revision", Integer, nullable=False, server_default="1"),
    Column("outline", Text, nullable=False, server_default="{}"),
    Index("rollouts_by_model", "model", "id"),
    Index("rollouts_by_status", "status", "id"),
    sqlite_autoincrement=True,
)
"""`since_version`: the route table before this rollout; what was counted under it, or an older one, is not its own.

`active_model` is the model while the rollout goes on, then NULL: so there is one rollout a model at most. `revision`
grows with every change of status, stage, attempt or approvals. `outline` is what a list shows, so that a list need not
read states.
"""

instructions = Table(
    "instructions",
    metadata,
    Column("id", Number, primary_key=True, autoincrement=True),
    Column("rollout", Integer, nullable=False, index=True),
    Column("document", Text, nullable=False),
    Column("done_at", Float),
    sqlite_autoincrement=True,
)
"""What the engine wants done, in order; `done_at` is NULL while it is owed."""

windows = Table(
    "windows",
    metadata,
    Column("id", Number, primary_key=True, autoincrement=True),
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

reporters = Table(
    "reporters",
    metadata,
    Column("gateway", String(128), primary_key=True),
    Column("boot", String(64), primary_key=True),
    Column("first", BigInteger, nullable=False),
    Column("last", BigInteger, nullable=False),
    Column("kept", BigInteger, nullable=False),
    Column("heard_at", Float, nullable=False),
)
"""Each life of a gateway: its windows are numbered one by one, so those between `first` and `last` that were not kept
are missing.
"""

samples = Table(
    "samples",
    metadata,
    Column("id", Number, primary_key=True, autoincrement=True),
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
    Column("id", Number, primary_key=True, autoincrement=True),
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
    Column("id", Number, primary_key=True, autoincrement=True),
    Column("at", Float, nullable=False),
    Column("author", String(128), nullable=False),
    Column("model", String(128), nullable=False),
    Column("rollout", Integer),
    Column("what", String(64), nullable=False),
    Column("reason", Text, nullable=False),
    Column("previous", String(64), nullable=False),
    Column("digest", String(64), nullable=False),
    Index("history_by_rollout", "rollout", "id"),
    Index("history_by_model", "model", "id"),
    sqlite_autoincrement=True,
)
"""Append-only; each row's digest covers the row and the digest before it."""

answers = Table(
    "answers",
    metadata,
    Column("key", String(128), primary_key=True),
    Column("digest", String(64), nullable=False),
    Column("at", Float, nullable=False, index=True),
    Column("status", Integer, nullable=False),
    Column("document", Text, nullable=False),
)
"""Answers to changes by idempotency key; `digest` is that of the request."""
