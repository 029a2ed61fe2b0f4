"""Rollouts, and the instructions that are owed for them."""

import json
from dataclasses import dataclass, replace
from typing import Any

from sqlalchemy import Connection, Row, desc, insert, select, update
from sqlalchemy.exc import IntegrityError

from rollout.decision.instructions import Instruction, instruction_from_json, instruction_to_json
from rollout.decision.state import Rollout, Status
from rollout.errors import ConflictError, NotFoundError
from rollout.store import observations
from rollout.store.tables import instructions, rollouts


@dataclass(frozen=True, slots=True)
class StoredRollout:
    """A rollout's state with what the store knows of it; `*_seen` are the last observations that its evidence holds.

    Only what was counted under route tables newer than `since_version` belongs to it.
    """

    id: int
    state: Rollout
    since_version: int
    windows_seen: int
    samples_seen: int
    created_at: float
    updated_at: float


@dataclass(frozen=True, slots=True)
class Owed:
    """An instruction that is not carried out yet."""

    id: int
    rollout: int
    instruction: Instruction


def create(connection: Connection, state: Rollout, since_version: int, now: float) -> StoredRollout:
    """Store a new rollout.

    Raises:
        ConflictError: the model has one under way, or its last one still owes a route or a pool.
    """
    for waiting in owed(connection):
        if get(connection, waiting.rollout).state.model == state.model:
            raise ConflictError(
                f"a rollout of {state.model} is under way, or its end is still being carried out"
                f" (rollout {waiting.rollout}): abort it first, or wait until it has settled"
            )
    windows_seen, samples_seen = observations.last_ids(connection)
    row = {
        "model": state.model, "release": state.release, "active_model": state.model, "status": state.status.value,
        "state": json.dumps(state.to_json()), "since_version": since_version, "windows_seen": windows_seen,
        "samples_seen": samples_seen, "created_at": now, "updated_at": now,
    }  # fmt: skip
    try:
        key = connection.execute(insert(rollouts).values(**row)).inserted_primary_key
    except IntegrityError as exc:
        raise ConflictError(f"a rollout of {state.model} is under way: abort it first, or wait for its end") from exc
    assert key is not None
    return StoredRollout(int(key[0]), state, since_version, windows_seen, samples_seen, now, now)


def save(connection: Connection, stored: StoredRollout, owed: tuple[Instruction, ...], now: float) -> StoredRollout:
    """Store a rollout's new state together with the instructions it owes."""
    state = stored.state
    connection.execute(
        update(rollouts)
        .where(rollouts.c.id == stored.id)
        .values(
            status=state.status.value,
            active_model=None if state.has_ended else state.model,
            state=json.dumps(state.to_json()),
            windows_seen=stored.windows_seen,
            samples_seen=stored.samples_seen,
            updated_at=now,
        )
    )
    for instruction in owed:
        document = json.dumps(instruction_to_json(instruction))
        connection.execute(insert(instructions).values(rollout=stored.id, document=document))
    return replace(stored, updated_at=now)


def get(connection: Connection, key: int) -> StoredRollout:
    """Raises NotFoundError."""
    row = connection.execute(select(rollouts).where(rollouts.c.id == key)).first()
    if row is None:
        raise NotFoundError(f"there is no rollout {key}: `sluice rollout status` lists them")
    return _stored(row)


def attempts(connection: Connection, model: str, release: int, stable: int | None) -> int:
    """How often this pair has been compared on live traffic or copies and was not promoted."""
    query = select(rollouts).where(rollouts.c.model == model, rollouts.c.release == release)
    states = [_stored(row).state for row in connection.execute(query.where(rollouts.c.active_model.is_(None)))]
    tried = (state for state in states if state.stable == stable and state.status is not Status.PROMOTED)
    return sum(state.routed_at is not None for state in tried)


def active(connection: Connection) -> list[StoredRollout]:
    """Every rollout that has not ended."""
    query = select(rollouts).where(rollouts.c.active_model.is_not(None)).order_by(rollouts.c.id)
    return [_stored(row) for row in connection.execute(query)]


def newest(connection: Connection, model: str | None = None, limit: int = 50) -> list[StoredRollout]:
    """The newest rollouts first."""
    query = select(rollouts).order_by(desc(rollouts.c.id)).limit(limit)
    if model is not None:
        query = query.where(rollouts.c.model == model)
    return [_stored(row) for row in connection.execute(query)]


def owed(connection: Connection, rollout: int | None = None) -> list[Owed]:
    """All instructions not carried out yet, oldest first; of one rollout when it is given."""
    query = select(instructions).where(instructions.c.done_at.is_(None)).order_by(instructions.c.id)
    if rollout is not None:
        query = query.where(instructions.c.rollout == rollout)
    return [
        Owed(row.id, row.rollout, instruction_from_json(json.loads(row.document))) for row in connection.execute(query)
    ]


def done(connection: Connection, key: int, now: float) -> None:
    connection.execute(update(instructions).where(instructions.c.id == key).values(done_at=now))


def _stored(row: Row[Any]) -> StoredRollout:
    state = Rollout.from_json(json.loads(row.state))
    return StoredRollout(
        row.id, state, row.since_version, row.windows_seen, row.samples_seen, row.created_at, row.updated_at
    )
