"""Route tables large and small: what is read again, what workers are told, and how a new table comes into force."""

import json
from collections import Counter
from dataclasses import replace
from typing import Any

import pytest

from gateway.changes import (
    change_between,
    commit_line,
    read_text,
    retire_lines,
    servers_of,
    slot_keys,
    stage_lines,
    text_of,
)  # fmt: skip
from gateway.counters import Slab
from gateway.lanes import Room
from gateway.live import Servers, Staging
from gateway.reading import TableReader
from gateway.routes import Candidate, Route, RouteTable, RouteTableError, Shadow
from gateway.watch import numbered

ROUTE = Route("m", 3, 1, {1: ("a:1",), 2: ("b:2", "c:3")}, Candidate(2, 0.1), Shadow(2, 0.5), "salt")


def table(*routes: Route, version: int = 1) -> RouteTable:
    return RouteTable(version, {route.model: route for route in routes})


def many(count: int, version: int = 1, **special: Route) -> RouteTable:
    routes = {f"m{n}": replace(ROUTE, model=f"m{n}", revision=1) for n in range(count)}
    return RouteTable(version, routes | special)


def content(of: RouteTable, **dumps: Any) -> bytes:
    return json.dumps(of.to_json(), **dumps).encode()


# What differs


def test_only_what_differs_is_a_change() -> None:
    before = many(5)
    moved = replace(before.routes["m2"], candidate=None)
    after = RouteTable(2, {**before.routes, "m2": moved, "new": replace(ROUTE, model="new")})
    del after.routes["m4"]  # type: ignore[attr-defined]
    change = change_between(before, after)
    assert [route.model for route in change.changed] == ["m2", "new"]
    assert (change.removed, change.retired) == (("m4",), ())
    assert change_between(after, after).changed == ()
    assert [route.model for route in change_between(None, before).changed] == list(before.routes)


def test_a_server_is_retired_when_no_route_names_it_any_more() -> None:
    other = replace(ROUTE, model="other", servers={1: ("a:1",), 2: ("c:3",)}, shadow=None)
    gone = replace(ROUTE, servers={1: ("a:1",)}, candidate=None, shadow=None)
    change = change_between(table(ROUTE, other), table(gone, other, version=2))
    assert change.retired == (("b:2", False), ("b:2", True), ("c:3", True))
    assert change_between(table(gone), table(version=2)).retired == (("a:1", False),)


def test_what_workers_are_told_is_whole_and_comes_in_small_lines() -> None:
    routes = many(1000).routes
    texts: dict[str, str | None] = {route.model: text_of(route, [(1, "answered", 7)]) for route in routes.values()}
    lines = stage_lines(texts | {"gone": None})
    assert max(map(len, lines)) < 32 * 1024
    told: dict[str, str | None] = {}
    for line in lines:
        assert line.endswith(b"\n")
        told |= json.loads(line)["stage"]
    assert told == texts | {"gone": None}
    assert read_text(told["m7"] or "") == (routes["m7"], [[1, "answered", 7]])
    assert json.loads(commit_line(7)) == {"commit": 7}
    retired = [(f"host-{n}:1", False) for n in range(5000)]
    assert [key for line in retire_lines(retired) for key in json.loads(line)["retire"]] == [
        list(key) for key in retired
    ]


def test_a_route_needs_a_slot_for_each_role_of_its_releases() -> None:
    roles = Counter((release, role.value) for _, _, release, role in slot_keys(ROUTE))
    assert roles == Counter([(1, "pinned"), (2, "pinned"), (1, "answered"), (2, "answered"), (2, "mirrored")])
    assert set(servers_of(ROUTE)) == {("a:1", False), ("b:2", False), ("c:3", False), ("b:2", True), ("c:3", True)}


# Reading again


@pytest.mark.parametrize("dumps", [{}, {"indent": 2}, {"separators": (",", ":")}, {"sort_keys": True}])
def test_a_table_read_again_is_what_is_written_now(dumps: dict[str, Any]) -> None:
    reader, now = TableReader(), many(50)
    moved = replace(now.routes["m7"], salt="moved")
    without = {model: route for model, route in now.routes.items() if model != "m9"}
    backwards = dict(reversed(without.items()))
    for routes in (
        now.routes, now.routes, {**now.routes, "m7": moved}, now.routes, {**now.routes, "x": replace(ROUTE, model="x")},
        without, backwards, {}, now.routes, {"m7": moved},
    ):  # fmt: skip
        wanted = RouteTable(1, dict(routes))
        assert reader.read(content(wanted, **dumps)) == wanted


def test_entries_that_stand_as_they_stood_are_not_read_again() -> None:
    reader, first = TableReader(), many(50)
    before = reader.read(content(first))
    in_force = RouteTable(9, {model: replace(route, revision=9) for model, route in before.routes.items()})
    reader.know(in_force)
    after = reader.read(content(RouteTable(2, {**first.routes, "m7": replace(ROUTE, model="m7", salt="x")})))
    assert [model for model, route in after.routes.items() if route is not in_force.routes[model]] == ["m7"]


@pytest.mark.parametrize(
    "text",
    [
        b"", b"{", b"[]", b"null", b'{"version": 1}', b'{"version": 1, "routes": 3}',
        b'{"version": true, "routes": []}',
        b'{"version": 1, "routes": [{}]}', b'{"version": 1, "routes": [{"model": "m"}]', b"\xff\xfe", b"[" * 100_000,
        b'{"version": 1, "routes": [{"model": "m", "stable": 1, "servers": {"1": []}},]}',
        b'{"version": 1, "routes": [{"model": "m", "stable": 1, "servers": {"1": []}}]} x',
        b'{"version": 1, "routes": [{"model": "m", "stable": 1, "servers": {"1": []}},'
        b' {"model": "m", "stable": 1, "servers": {"1": []}}]}',
    ],
)  # fmt: skip
def test_what_is_no_table_is_refused_and_what_was_known_is_not_mixed_in(text: bytes) -> None:
    reader = TableReader()
    good = many(3)
    for known in (False, True):
        with pytest.raises((ValueError, RecursionError)):
            reader.read(text)
        assert reader.read(content(good)) == good, known


# The numbers of a file that people edit


def test_a_changed_file_gets_a_version_above_the_one_in_force_and_moves_only_what_changed() -> None:
    in_force = many(3, version=5)
    edited = {**in_force.routes, "m1": replace(in_force.routes["m1"], candidate=Candidate(2, 0.9))}
    for version, given in ((0, 6), (5, 6), (6, 6), (9, 9)):
        applied = numbered(RouteTable(version, edited), in_force)
        assert applied is not None and applied.version == given
        assert {model: route.revision for model, route in applied.routes.items()} == {"m0": 1, "m1": given, "m2": 1}


def test_revisions_written_in_a_file_move_nothing_by_themselves() -> None:
    in_force = many(3, version=5)
    assert (
        numbered(RouteTable(5, {m: replace(one, revision=4) for m, one in in_force.routes.items()}), in_force) is None
    )
    applied = numbered(RouteTable(4, {"m0": in_force.routes["m0"]}), in_force)
    assert applied is not None and (applied.version, list(applied.routes)) == (6, ["m0"])
    assert numbered(in_force, None) is in_force


# In a worker


def staged(routes: RouteTable, revision: int = 1) -> list[bytes]:
    return stage_lines({route.model: text_of(route, [(1, "answered", 0)]) for route in routes.routes.values()})


def test_a_table_comes_into_force_at_once_and_routes_are_made_when_they_are_asked_for() -> None:
    staging = Staging(Slab.create(1, 8).region(0), Servers(1.0), Room(8, 8, 1.0))
    for line in staged(many(100)):
        staging.stage(json.loads(line)["stage"])
    first = staging.commit(1)
    assert staging.made == 0 and first.routes["m5"].route.salt == "salt" and staging.made == 1
    assert first.routes["m5"] is first.routes["m5"]
    with pytest.raises(KeyError):
        first.routes["nobody"]
    before = first.routes["m6"]
    staging.stage({"m5": text_of(replace(ROUTE, model="m5", salt="new"), []), "m7": None, "m8": None})
    assert first.routes["m5"].route.salt == "salt" and first.routes["m7"].route.model == "m7"
    second = staging.commit(2)
    assert second.version == 2 and second.routes["m5"].route.salt == "new"
    for gone in ("m7", "m8"):
        with pytest.raises(KeyError):
            second.routes[gone]
    assert second.routes["m6"] is before
    for _ in range(3):
        staging.sweep()


def test_all_routes_of_one_server_share_it_until_it_is_retired() -> None:
    servers = Servers(1.0)
    one = servers.get("127.0.0.1:1", False)
    assert servers.get("127.0.0.1:1", False) is one
    assert servers.get("127.0.0.1:1", True) is not one
    servers.retire("127.0.0.1:1", False)
    servers.retire("127.0.0.1:1", False)
    assert servers.get("127.0.0.1:1", False) is not one


def test_a_table_error_is_a_value_error() -> None:
    with pytest.raises(RouteTableError):
        TableReader().read(b'{"version": -1, "routes": []}')
