"""Who leads, and what gateways are known to have sent."""

from alembic import op
from sqlalchemy import BigInteger, Column, Float, Integer, String

revision = "0003"
down_revision = "0002"


def upgrade() -> None:
    op.create_table(
        "leader",
        Column("id", Integer, primary_key=True),
        Column("term", BigInteger, nullable=False),
        Column("name", String(512), nullable=False),
        Column("address", String(256), nullable=False),
        Column("renewed_at", Float, nullable=False),
    )
    op.create_table(
        "reporters",
        Column("gateway", String(128), primary_key=True),
        Column("boot", String(64), primary_key=True),
        Column("first", BigInteger, nullable=False),
        Column("last", BigInteger, nullable=False),
        Column("kept", BigInteger, nullable=False),
        Column("heard_at", Float, nullable=False),
    )
