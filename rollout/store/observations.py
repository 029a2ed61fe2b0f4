"""What gateways reported: windows, samples and labels. Each is kept once, however often it arrives."""

import json
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from sqlalchemy import Connection, delete, func, insert, select, update

from gateway.samples import Label
from gateway.windows import Window
from rollout.store.database import insert_new
from rollout.store.tables import labels, reporters, samples, windows


@dataclass(frozen=True, slots=True)
class Prediction:
    """A sample, understood: class indices, one a row, of the release that answered and of the shadow."""

    request_id: str
    model: str
    at: float
    release: int
    predicted: tuple[int, ...]
    mirrored_release: int | None = None
    mirrored_predicted: tuple[int, ...] | None = None


@dataclass(frozen=True, slots=True)
class Judged:
    """A prediction whose label is known."""

    id: int
    prediction: Prediction
    truth: tuple[int, ...]


def keep_windows(connection: Connection, new: Iterable[Window], now: float) -> int:
    """Keep the windows that are not there yet, and note which numbers came; how many were new?"""
    by_life: dict[tuple[str, str], dict[int, Window]] = defaultdict(dict)
    for window in new:
        by_life[window.gateway, window.boot][window.sequence] = window
    return sum(_keep_of_life(connection, *life, numbered, now) for life, numbered in by_life.items())


def _keep_of_life(connection: Connection, gateway: str, boot: str, numbered: dict[int, Window], now: float) -> int:
    first, last = min(numbered), max(numbered)
    life = (windows.c.gateway == gateway) & (windows.c.boot == boot)
    had = set(connection.scalars(select(windows.c.sequence).where(life, windows.c.sequence.between(first, last))))
    rows = [
        {
            "gateway": gateway, "boot": boot, "sequence": sequence, "model": window.model,
            "started_at": window.started_at, "document": json.dumps(window.to_json()),
        }
        for sequence, window in numbered.items()
        if sequence not in had
    ]  # fmt: skip
    if rows:
        connection.execute(insert(windows), rows)
    _note_numbers(connection, gateway, boot, (first, last), len(rows), now)
    return len(rows)


def _note_numbers(
    connection: Connection, gateway: str, boot: str, numbers: tuple[int, int], kept: int, now: float
) -> None:
    this_life = (reporters.c.gateway == gateway) & (reporters.c.boot == boot)
    known = connection.execute(select(reporters).where(this_life)).first()
    if known is None:
        row = {"gateway": gateway, "boot": boot, "first": numbers[0], "last": numbers[1]}
        connection.execute(insert(reporters).values(**row, kept=kept, heard_at=now))
        return
    first, last = min(known.first, numbers[0]), max(known.last, numbers[1])
    connection.execute(
        update(reporters).where(this_life).values(first=first, last=last, kept=known.kept + kept, heard_at=now)
    )


@dataclass(frozen=True, slots=True)
class Gap:
    """Windows of one life of a gateway that never arrived, or that could not be true."""

    gateway: str
    boot: str
    missing: int
    heard_at: float


def gaps(connection: Connection, since: float = 0.0) -> list[Gap]:
    """The gateways with missing windows that were heard of since then."""
    missing = reporters.c.last - reporters.c.first + 1 - reporters.c.kept
    query = select(reporters.c.gateway, reporters.c.boot, missing.label("missing"), reporters.c.heard_at)
    rows = connection.execute(query.where(missing > 0, reporters.c.heard_at >= since).order_by(reporters.c.gateway))
    return [Gap(row.gateway, row.boot, row.missing, row.heard_at) for row in rows]


def keep_predictions(connection: Connection, new: Iterable[Prediction]) -> None:
    rows = [
        {
            "model": one.model, "request_id": one.request_id, "at": one.at, "release": one.release,
            "predicted": json.dumps(one.predicted), "mirrored_release": one.mirrored_release,
            "mirrored_predicted": None if one.mirrored_predicted is None else json.dumps(one.mirrored_predicted),
            "judged": 0,
        }
        for one in new
    ]  # fmt: skip
    insert_new(connection, samples, rows)


def keep_labels(connection: Connection, new: Iterable[Label], now: float) -> None:
    rows = [
        {"model": one.model, "request_id": one.request_id, "at": now, "document": json.dumps(one.labels)} for one in new
    ]
    insert_new(connection, labels, rows)


def windows_after(connection: Connection, model: str, seen: int) -> tuple[list[Window], int]:
    """A model's windows that came after the one with id `seen`, and the last one's id."""
    query = select(windows.c.id, windows.c.document).where(windows.c.model == model, windows.c.id > seen)
    rows = connection.execute(query.order_by(windows.c.id)).all()
    return [Window.from_json(json.loads(row.document)) for row in rows], rows[-1].id if rows else seen


def windows_since(connection: Connection, model: str, at: float) -> list[Window]:
    """A model's windows that began after a time."""
    query = select(windows.c.document).where(windows.c.model == model, windows.c.started_at >= at)
    return [Window.from_json(json.loads(row.document)) for row in connection.execute(query)]


def predictions_after(connection: Connection, model: str, seen: int) -> tuple[list[Prediction], int]:
    query = select(samples).where(samples.c.model == model, samples.c.id > seen).order_by(samples.c.id)
    rows = connection.execute(query).all()
    return [_prediction(row) for row in rows], rows[-1].id if rows else seen


def newly_judged(connection: Connection, model: str, shadow: int, since: float) -> list[Judged]:
    """Predictions mirrored to release `shadow` after `since`, whose label came, that `mark_judged` was not told of."""
    query = (
        select(samples, labels.c.document)
        .join(labels, (labels.c.model == samples.c.model) & (labels.c.request_id == samples.c.request_id))
        .where(samples.c.model == model, samples.c.judged == 0, samples.c.at >= since)
        .where(samples.c.mirrored_release == shadow)
        .order_by(samples.c.id)
    )
    return [Judged(row.id, _prediction(row), tuple(json.loads(row.document))) for row in connection.execute(query)]


def mark_judged(connection: Connection, ids: Sequence[int]) -> None:
    for start in range(0, len(ids), 500):
        connection.execute(update(samples).where(samples.c.id.in_(ids[start : start + 500])).values(judged=1))


def last_ids(connection: Connection) -> tuple[int, int]:
    """The ids of the newest window and sample: where a new rollout's evidence begins."""
    newest = (connection.execute(select(func.max(table.c.id))).scalar() for table in (windows, samples))
    window, sample = (value or 0 for value in newest)
    return window, sample


def forget_before(connection: Connection, at: float) -> None:
    """Delete observations that are older than a time."""
    connection.execute(delete(windows).where(windows.c.started_at < at))
    connection.execute(delete(samples).where(samples.c.at < at))
    connection.execute(delete(labels).where(labels.c.at < at))
    connection.execute(delete(reporters).where(reporters.c.heard_at < at))


def _prediction(row: object) -> Prediction:
    data = row._mapping  # type: ignore[attr-defined]
    mirrored = data["mirrored_predicted"]
    return Prediction(
        request_id=data["request_id"],
        model=data["model"],
        at=data["at"],
        release=data["release"],
        predicted=tuple(json.loads(data["predicted"])),
        mirrored_release=data["mirrored_release"],
        mirrored_predicted=None if mirrored is None else tuple(json.loads(mirrored)),
    )
