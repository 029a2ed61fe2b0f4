"""What differs between two route tables: all that workers and counters have to learn of a new one.

Pure. A table of ten thousand routes of which one moved costs the others nothing; and what is told to a worker comes in
lines so small that none holds its loop for long.
"""

import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from gateway.routes import Route, RouteTable
from gateway.windows import Role

LINE_BYTES = 16 * 1024
"""A worker reads a line of this size in about 0.1 ms."""

SlotKey = tuple[str, int, int, Role]
"""(model, revision, release, role): what one slot counts."""
ServerKey = tuple[str, bool]
"""(address, is it for mirrors): copies have connections of their own."""
Slots = list[tuple[int, str, int]]
"""A route's slots, as (release, role, slot)."""


@dataclass(frozen=True, slots=True)
class TableChange:
    """From one table to the next. `retired` are the servers that no route names any more."""

    table: RouteTable
    changed: tuple[Route, ...]
    removed: tuple[str, ...] = ()
    retired: tuple[ServerKey, ...] = ()


def change_between(before: RouteTable | None, after: RouteTable) -> TableChange:
    known = before.routes if before is not None else {}
    changed = tuple(
        route for model, route in after.routes.items() if (old := known.get(model)) is not route and old != route
    )
    gone = [known[route.model] for route in changed if route.model in known]
    removed = tuple(known.keys() - after.routes.keys())
    gone += [known[model] for model in removed]
    if not gone:
        return TableChange(after, changed)
    retired = {server for route in gone for server in servers_of(route)}
    retired.difference_update(server for route in changed for server in servers_of(route))
    if retired:
        retired.difference_update(server for route in after.routes.values() for server in servers_of(route))
    return TableChange(after, changed, removed, tuple(sorted(retired)))


def servers_of(route: Route) -> Iterator[ServerKey]:
    for addresses in route.servers.values():
        for address in addresses:
            yield address, False
    if route.shadow is not None:
        for address in route.servers[route.shadow.release]:
            yield address, True


def slot_keys(route: Route) -> list[SlotKey]:
    """Every slot that a route needs."""
    model, revision = route.model, route.revision
    compared = {route.stable} | ({route.candidate.release} if route.candidate else set())
    keys = [(model, revision, release, Role.PINNED) for release in route.servers]
    keys += [(model, revision, release, Role.ANSWERED) for release in sorted(compared)]
    if route.shadow is not None:
        keys.append((model, revision, route.shadow.release, Role.MIRRORED))
    return keys


# What workers are told: staged routes by model (null: it is gone), then the commit, then the servers to let go.

_dumps = json.JSONEncoder(separators=(",", ":")).encode


def text_of(route: Route, slots: Slots) -> str:
    """A route and its slots, as a worker keeps it until somebody asks for the model."""
    return _dumps([route.to_json(), slots])


def read_text(text: str) -> tuple[Route, Slots]:
    data = json.loads(text)
    return Route.from_json(data[0]), data[1]


def stage_lines(texts: Mapping[str, str | None]) -> list[bytes]:
    """Routes that are to come into force together; None for one that is to go."""
    sized = ((model, len(text or "") + len(model)) for model, text in texts.items())
    return [_line({"stage": {model: texts[model] for model in batch}}) for batch in _batches(sized)]


def commit_line(version: int) -> bytes:
    return _line({"commit": version})


def retire_lines(retired: Iterable[ServerKey]) -> list[bytes]:
    sized = ((key, len(key[0])) for key in retired)
    return [_line({"retire": batch}) for batch in _batches(sized)]


def _line(message: dict[str, Any]) -> bytes:
    return _dumps(message).encode() + b"\n"


def _batches(sized: Iterable[tuple[Any, int]]) -> Iterator[list[Any]]:
    batch: list[Any] = []
    size = 0
    for one, its_size in sized:
        batch.append(one)
        size += its_size
        if size >= LINE_BYTES:
            yield batch
            batch, size = [], 0
    if batch:
        yield batch
