"""The first tables."""

from alembic import op
from sqlalchemy import BigInteger, Column, Float, Integer, String, Text, UniqueConstraint

revision = "0001"
down_revision = None
Number = BigInteger().with_variant(Integer, "sqlite")


def upgrade() -> None:
    _make_rollouts()
    _make_observations()


def _make_rollouts() -> None:
    op.create_table(
        "route_table",
        Column("id", Integer, primary_key=True),
        Column("version", BigInteger, nullable=False),
        Column("document", Text, nullable=False),
    )
    op.create_table(
        "rollouts",
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
        sqlite_autoincrement=True,
    )
    op.create_table(
        "instructions",
        Column("id", Number, primary_key=True, autoincrement=True),
        Column("rollout", Integer, nullable=False, index=True),
        Column("document", Text, nullable=False),
        Column("done_at", Float),
        sqlite_autoincrement=True,
    )
    op.create_table(
        "history",
        Column("id", Number, primary_key=True, autoincrement=True),
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


def _make_observations() -> None:
    op.create_table(
        "windows",
        Column("id", Number, primary_key=True, autoincrement=True),
        Column("gateway", String(128), nullable=False),
        Column("boot", String(64), nullable=False),
        Column("sequence", BigInteger, nullable=False),
        Column("model", String(128), nullable=False),
        Column("started_at", Float, nullable=False),
        Column("document", Text, nullable=False),
        UniqueConstraint("gateway", "boot", "sequence"),
        sqlite_autoincrement=True,
    )
    op.create_index("windows_by_model", "windows", ["model", "id"])
    op.create_table(
        "samples",
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
        sqlite_autoincrement=True,
    )
    op.create_index("samples_waiting", "samples", ["model", "judged", "at"])
    op.create_table(
        "labels",
        Column("id", Number, primary_key=True, autoincrement=True),
        Column("model", String(128), nullable=False),
        Column("request_id", String(128), nullable=False),
        Column("at", Float, nullable=False),
        Column("document", Text, nullable=False),
        UniqueConstraint("model", "request_id"),
        sqlite_autoincrement=True,
    )
