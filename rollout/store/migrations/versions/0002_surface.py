"""What lists, conflicts and repeated requests need: a rollout's revision and outline, and the answers given by key."""

import json
from typing import Any

import sqlalchemy
from alembic import op
from sqlalchemy import Column, Float, Integer, String, Text

revision = "0002"
down_revision = "0001"

ROLLOUTS = sqlalchemy.table("rollouts", *(sqlalchemy.column(name) for name in ("id", "state", "outline")))


def upgrade() -> None:
    op.add_column("rollouts", Column("revision", Integer, nullable=False, server_default="1"))
    op.add_column("rollouts", Column("outline", Text, nullable=False, server_default="{}"))
    op.create_index("rollouts_by_model", "rollouts", ["model", "id"])
    op.create_index("rollouts_by_status", "rollouts", ["status", "id"])
    op.create_index("history_by_rollout", "history", ["rollout", "id"])
    op.create_index("history_by_model", "history", ["model", "id"])
    op.create_table(
        "answers",
        Column("key", String(128), primary_key=True),
        Column("digest", String(64), nullable=False),
        Column("at", Float, nullable=False, index=True),
        Column("status", Integer, nullable=False),
        Column("document", Text, nullable=False),
    )
    _outline_those_that_are_there()


def _outline_those_that_are_there() -> None:
    connection = op.get_bind()
    for key in connection.execute(sqlalchemy.select(ROLLOUTS.c.id)).scalars().all():
        state = connection.execute(sqlalchemy.select(ROLLOUTS.c.state).where(ROLLOUTS.c.id == key)).scalar_one()
        outline = json.dumps(_outline(json.loads(state)))
        connection.execute(sqlalchemy.update(ROLLOUTS).where(ROLLOUTS.c.id == key).values(outline=outline))


def _outline(state: dict[str, Any]) -> dict[str, Any]:
    """As `rollout.decision.verdict.outline` had it when this was written, with a shorter summary."""
    decision, hold = state["decision"], state["hold"]
    told = f" ({decision['by']}): {decision['reason']}" if decision else ""
    status = state["status"].replace("_", " ")
    return {
        "stable": state["stable"],
        "phase": hold["origin"] if hold else state["status"],
        "stage": state["stage"] + 1,
        "stages": len(state["plan"]["stages"]),
        "requests": state["requests"],
        "attempt": state["attempt"],
        "decision": decision,
        "summary": f"{state['model']}/{state['release']} is {status}{told}",
    }
