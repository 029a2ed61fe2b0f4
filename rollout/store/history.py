"""The append-only, hash-chained history: who changed what, when and why."""

import hashlib
import json
from dataclasses import asdict, dataclass
from typing import Any

from sqlalchemy import Connection, desc, func, insert, select

from rollout.store.tables import history

GENESIS = "0" * 64


@dataclass(frozen=True, slots=True)
class Entry:
    """One change. `author` is a person, or "engine" for what evidence decided."""

    at: float
    author: str
    model: str
    rollout: int | None
    what: str
    reason: str


def append(connection: Connection, entry: Entry) -> None:
    """Write an entry, in the transaction of the change that it tells of."""
    last = connection.execute(select(history.c.digest).order_by(desc(history.c.id)).limit(1)).scalar()
    previous = last or GENESIS
    row = asdict(entry)
    connection.execute(insert(history).values(**row, previous=previous, digest=digest_of(previous, row)))


def newest(
    connection: Connection, *, model: str | None = None, before: int | None = None, limit: int = 1000
) -> list[dict[str, Any]]:
    """Entries with smaller ids than `before`, the newest first."""
    query = select(history).order_by(desc(history.c.id)).limit(limit)
    query = query if model is None else query.where(history.c.model == model)
    query = query if before is None else query.where(history.c.id < before)
    return [dict(row._mapping) for row in connection.execute(query)]


def entries(
    connection: Connection, rollout: int | None = None, model: str | None = None, after: int = 0, limit: int = 1000
) -> list[dict[str, Any]]:
    """Entries with greater ids than `after`, the oldest first; of one rollout, or one model, when it is given."""
    query = select(history).where(history.c.id > after).order_by(history.c.id).limit(limit)
    query = query if rollout is None else query.where(history.c.rollout == rollout)
    query = query if model is None else query.where(history.c.model == model)
    return [dict(row._mapping) for row in connection.execute(query)]


def last_id(connection: Connection) -> int:
    """The id of the newest entry, 0 when there is none."""
    return connection.execute(select(func.max(history.c.id))).scalar() or 0


def first_broken(connection: Connection) -> int | None:
    """The id of the first entry that does not fit the chain, or None when all do."""
    previous = GENESIS
    for row in connection.execute(select(history).order_by(history.c.id)):
        told = {field: row._mapping[field] for field in Entry.__slots__}
        if row.previous != previous or row.digest != digest_of(previous, told):
            return int(row.id)
        previous = row.digest
    return None


def digest_of(previous: str, row: dict[str, Any]) -> str:
    """SHA-256 over the digest before and the entry's canonical JSON."""
    return hashlib.sha256((previous + json.dumps(row, sort_keys=True)).encode()).hexdigest()
