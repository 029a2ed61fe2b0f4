"""Rollouts, and the instructions that are owed for them."""

import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import sqlalchemy
from sqlalchemy import Connection, desc, func, insert, select, update
from sqlalchemy.exc import IntegrityError

from rollout.decision.instructions import Instruction, instruction_from_json, instruction_to_json
from rollout.decision.state import Rollout, Status
from rollout.decision.verdict import outline
from rollout.errors import ConflictError, NotFoundError
from rollout.store import observations
from rollout.store.tables import instructions, rollouts


@dataclass(frozen=True, slots=True)
class StoredRollout:
    """A rollout's state with what the store knows of it; `*_seen` are the last observations that its evidence holds.

    Only what was counted under route tables newer than `since_version` belongs to it. `revision` is another one after
    every change of what people decide by: see `standing`.
    """

    id: int
    state: Rollout
    since_version: int
    windows_seen: int
    samples_seen: int
    created_at: float
    updated_at: float
    revision: int = 1


@dataclass(frozen=True, slots=True)
class Row:
    """A rollout as lists show it."""

    id: int
    model: str
    release: int
    status: Status
    revision: int
    created_at: float
    updated_at: float
    is_settled: bool
    outline: dict[str, Any]


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
                f" (rollout {waiting.rollout})",
                "abort it first, or wait until it has settled",
            )
    windows_seen, samples_seen = observations.last_ids(connection)
    row = {
        "model": state.model, "release": state.release, "active_model": state.model, "status": state.status.value,
        "state": json.dumps(state.to_json()), "since_version": since_version, "windows_seen": windows_seen,
        "samples_seen": samples_seen, "created_at": now, "updated_at": now, "outline": json.dumps(outline(state)),
        "revision": 1,
    }  # fmt: skip
    try:
        key = connection.execute(insert(rollouts).values(**row)).inserted_primary_key
    except IntegrityError as exc:
        raise ConflictError(
            f"a rollout of {state.model} is under way", "abort it first, or wait until it has settled"
        ) from exc
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
            revision=stored.revision,
            outline=json.dumps(outline(state)),
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
        raise NotFoundError(f"there is no rollout {key}", "`sluice rollout status` lists them")
    return _stored(row)


def attempts(connection: Connection, model: str, release: int, stable: int | None) -> int:
    """How often this pair has been compared on live traffic or copies and was not promoted."""
    query = select(rollouts).where(rollouts.c.model == model, rollouts.c.release == release)
    states = [_stored(row).state for row in connection.execute(query.where(rollouts.c.active_model.is_(None)))]
    tried = (state for state in states if state.stable == stable and state.status is not Status.PROMOTED)
    return sum(state.routed_at is not None for state in tried)


def under_way(connection: Connection, model: str) -> int | None:
    """The number of a model's rollout that has not ended."""
    found: int | None = connection.execute(select(rollouts.c.id).where(rollouts.c.active_model == model)).scalar()
    return found


def stable_before(connection: Connection, model: str, stable: int) -> int | None:
    """The release that was stable before this one was promoted."""
    query = select(rollouts.c.outline).where(rollouts.c.model == model, rollouts.c.release == stable)
    promoted = query.where(rollouts.c.status == Status.PROMOTED.value).order_by(desc(rollouts.c.id)).limit(1)
    document = connection.execute(promoted).scalar()
    found: int | None = None if document is None else json.loads(document)["stable"]
    return found


def statuses(connection: Connection) -> dict[str, int]:
    """How many rollouts are under way, by status."""
    query = select(rollouts.c.status, func.count().label("rollouts")).where(rollouts.c.active_model.is_not(None))
    return {row.status: row.rollouts for row in connection.execute(query.group_by(rollouts.c.status))}


def active(connection: Connection) -> list[StoredRollout]:
    """Every rollout that has not ended."""
    query = select(rollouts).where(rollouts.c.active_model.is_not(None)).order_by(rollouts.c.id)
    return [_stored(row) for row in connection.execute(query)]


def page(
    connection: Connection, *, model: str | None = None, status: Status | None = None, before: int | None = None,
    limit: int = 50,
) -> list[Row]:  # fmt: skip
    """The newest rollouts first, those with smaller ids than `before`; their states are not read."""
    query = select(*(rollouts.c[name] for name in _ROW)).order_by(desc(rollouts.c.id)).limit(limit)
    for column, wanted in ((rollouts.c.model, model), (rollouts.c.status, status)):
        query = query if wanted is None else query.where(column == wanted)
    found = connection.execute(query if before is None else query.where(rollouts.c.id < before)).all()
    unsettled = _owing(connection, [row.id for row in found])
    return [
        Row(
            *(row.id, row.model, row.release, Status(row.status), row.revision, row.created_at, row.updated_at),
            is_settled=row.active_model is None and row.id not in unsettled,
            outline=json.loads(row.outline),
        )
        for row in found
    ]


_ROW = ("id", "model", "release", "status", "revision", "created_at", "updated_at", "active_model", "outline")


def _owing(connection: Connection, keys: Sequence[int]) -> set[int]:
    """Which of these rollouts still owe something."""
    query = select(instructions.c.rollout).where(instructions.c.done_at.is_(None), instructions.c.rollout.in_(keys))
    return set(connection.execute(query.distinct()).scalars())


def standing(state: Rollout) -> tuple[object, ...]:
    """What people decide by; a change of it is a new revision."""
    return state.status, state.stage, state.attempt, state.approved_by


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


def _stored(row: sqlalchemy.Row[Any]) -> StoredRollout:
    state = Rollout.from_json(json.loads(row.state))
    return StoredRollout(
        row.id,
        state,
        row.since_version,
        row.windows_seen,
        row.samples_seen,
        row.created_at,
        row.updated_at,
        row.revision,
    )
