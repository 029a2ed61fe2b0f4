"""Who leads: one row."""

from dataclasses import asdict, dataclass

from sqlalchemy import Connection, insert, select, update

from rollout.store.tables import leader


@dataclass(frozen=True, slots=True)
class Leader:
    """Who leads or led last, in which term; `renewed_at`, by the database's clock, is 0 once it has resigned."""

    term: int
    name: str
    address: str
    renewed_at: float


def current(connection: Connection) -> Leader | None:
    """None on a new database."""
    row = connection.execute(select(leader)).first()
    return None if row is None else Leader(row.term, row.name, row.address, row.renewed_at)


def replace_leader(connection: Connection, new: Leader) -> None:
    row = asdict(new)
    if not connection.execute(update(leader).where(leader.c.id == 1).values(**row)).rowcount:
        connection.execute(insert(leader).values(id=1, **row))
