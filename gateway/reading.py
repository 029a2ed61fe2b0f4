"""Reads a route table's JSON again and again, of which most stands as it stood.

A table of ten thousand routes takes 0.1 s to parse and to check. Whoever writes it, however, writes what did not change
the same way as before: an entry whose bytes stand where they are expected is not looked at again.
"""

import json
import re
from dataclasses import dataclass

from gateway.routes import Route, RouteTable, RouteTableError

_START = re.compile(r'\s*\{\s*"version"\s*:\s*(0|[1-9][0-9]{0,18})\s*,\s*"routes"\s*:\s*\[\s*(?=\{)')
_BETWEEN = re.compile(r"\s*,\s*(?=\{)")
_END = re.compile(r"\s*\]\s*\}\s*\Z")
_decode = json.JSONDecoder().raw_decode


@dataclass(slots=True)
class _Entry:
    """An entry as it was written, and the route it stands for."""

    text: str
    route: Route


class TableReader:
    """Remembers what it read last."""

    def __init__(self) -> None:
        self._entries: list[_Entry] = []
        self._numbers: dict[str, int] = {}

    def read(self, content: bytes) -> RouteTable:
        """Raises RouteTableError, and for what is not JSON ValueError."""
        text = content.decode()
        start = _START.match(text)
        entries = self._entries_of(text, start.end()) if start else None
        if start is None or entries is None:  # Written otherwise, or wrong: then this says what is.
            return RouteTable.from_json(json.loads(text))
        routes: dict[str, Route] = {}
        for entry in entries:
            if entry.route.model in routes:
                raise RouteTableError(f"the route table: model {entry.route.model!r} stands twice")
            routes[entry.route.model] = entry.route
        self._entries = entries
        self._numbers = {model: number for number, model in enumerate(routes)}
        return RouteTable(RouteTable.from_json({"version": int(start[1]), "routes": []}).version, routes)

    def know(self, table: RouteTable) -> None:
        """What was read last is in force like this: where it stands as it stood, these very routes are read."""
        for entry in self._entries:
            entry.route = table.routes.get(entry.route.model, entry.route)

    def _entries_of(self, text: str, at: int) -> list[_Entry] | None:
        """None when the text is not written in the usual order. Raises RouteTableError."""
        before, expected = self._entries, 0
        entries: list[_Entry] = []
        while True:
            if expected < len(before) and text.startswith(before[expected].text, at):
                entry = before[expected]
                expected += 1
            else:
                found = _new_entry(text, at)
                if found is None:
                    return None
                entry = found
                expected = self._numbers.get(entry.route.model, expected - 1) + 1
            entries.append(entry)
            at += len(entry.text)
            between = _BETWEEN.match(text, at)
            if between is None:
                return entries if _END.match(text, at) else None
            at = between.end()


def _new_entry(text: str, at: int) -> _Entry | None:
    try:
        data, end = _decode(text, at)
    except ValueError:
        return None
    return _Entry(text[at:end], Route.from_json(data))
