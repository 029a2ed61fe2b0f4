"""The way of a request: which model it is for, which release answers it, in what time.

All of it follows from the head and the route table, so that equal heads share a way as long as the table stands.
"""

from dataclasses import dataclass

from gateway.heads import RequestHead
from gateway.lanes import Lane, LiveRoute
from gateway.live import LiveTable
from gateway.paths import Asked, Kind, NotServedError

DEADLINE_HEADER = b"x-sluice-deadline-ms"
"""A client's own deadline in milliseconds; it can shorten the route's, not lengthen it."""


@dataclass(slots=True)
class Way:
    """`lane` is None, and `key` empty, where the release is drawn for each request by its id."""

    table: LiveTable
    asked: Asked
    live: LiveRoute
    lane: Lane | None
    key: bytes
    deadline_s: float


def find_way(asked: Asked, head: RequestHead, table: LiveTable | None) -> Way:
    """Raises NotServedError when nobody could answer."""
    if table is None:
        raise NotServedError(503, "no route table has arrived yet", b"retry-after: 1\r\n")
    try:
        live = table.routes[asked.model]
    except KeyError:
        raise NotServedError(404, f"unknown model {asked.model!r}") from None
    values = head.values
    if b"x-sluice-release" in values and asked.version is None:
        asked = _pinned(asked, values[b"x-sluice-release"])
    key = values.get(live.sticky_header, b"")
    lane: Lane | None = None
    if asked.version is not None:
        lane = live.lanes.get(asked.version)
        if lane is None:
            raise NotServedError(404, f"model {asked.model!r} has no release {asked.version} here")
    elif asked.kind is Kind.READ:
        lane = live.stable
    elif key:
        lane = live.pick(key)
    return Way(table, asked, live, lane, key, _deadline_s(live.route.deadline_s, values.get(DEADLINE_HEADER)))


def _deadline_s(most_s: float, given: bytes | None) -> float:
    if given is None:
        return most_s
    if not given.isdigit() or len(given) > 9 or not int(given):
        raise NotServedError(400, "x-sluice-deadline-ms must be a whole number of milliseconds")
    return min(most_s, int(given) / 1e3)


def _pinned(asked: Asked, header: bytes) -> Asked:
    """A release asked for by the `x-sluice-release` header counts like one in the path."""
    model, _, number = header.rpartition(b"/")
    is_meant = number.isdigit() and len(number) <= 18 and model in (b"", asked.model.encode())
    version = int(number) if is_meant else 0  # Which no release has.
    return Asked(asked.kind, asked.model, version, asked.action)
