"""Route tables, windows, samples and labels: what is told is what is read, and garbage is only ever an error."""

import json
import math
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gateway.routes import Candidate, Route, RouteTable, RouteTableError, Shadow, place
from gateway.samples import Answer, Label, Sample
from gateway.windows import (
    FIRST_EDGE_US,
    LAST_BUCKET,
    Outcome,
    Role,
    Window,
    bucket_of,
    upper_edge_us,
)

ROUTE = Route(
    "digits", 3, 1, {1: ("127.0.0.1:9000", "[::1]:9001"), 2: ("triton.local:80",), 5: ()},
    Candidate(2, 0.25), Shadow(5, 0.5), "r1", "x-user", 2.5, 0.1,
)  # fmt: skip
TABLE = RouteTable(7, {"digits": ROUTE, "b": Route("b", 0, 1, {1: ()})})
WINDOW = Window(
    "g", "b", 4, 3, "digits", 2, Role.ANSWERED, 0.25, 1.5, 1.0,
    {Outcome.OK: 3, Outcome.LOST: 1}, {0: 1, LAST_BUCKET: 2}, 1, 2, {"bytes": 4},
)  # fmt: skip
KEYS = [b"key-%d" % n for n in range(20_000)]
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(), lambda inner: st.lists(inner, max_size=4)
    | st.dictionaries(st.text(max_size=8), inner, max_size=4), max_leaves=12,
)  # fmt: skip


def weighted(weight: float, salt: str = "r1") -> Route:
    return replace(ROUTE, candidate=Candidate(2, weight), salt=salt)


def test_a_growing_weight_only_moves_keys_to_the_candidate() -> None:
    before: set[bytes] = set()
    for weight in (0.0, 0.01, 0.05, 0.25, 0.5, 0.99, 1.0):
        now = {key for key in KEYS if weighted(weight).pick(key) == 2}
        assert before <= now
        assert abs(len(now) / len(KEYS) - weight) < 4.5 * math.sqrt(0.25 / len(KEYS))
        before = now
    assert len(before) == len(KEYS)


def test_salts_and_the_shadow_are_independent() -> None:
    def both(one: Route, other: Route) -> float:
        return sum(one.pick(key) == 2 and other.pick(key) == 2 for key in KEYS) / len(KEYS)

    assert abs(both(weighted(0.5), weighted(0.5, "r2")) - 0.25) < 0.02
    mirrored = sum(weighted(0.5).pick(key) == 2 and ROUTE.is_mirrored(key) for key in KEYS) / len(KEYS)
    assert abs(mirrored - 0.25) < 0.02


def test_places_are_the_same_on_every_gateway() -> None:
    assert place("salt", b"key") == 0.7257854147455499  # For ever: a change would move every sticky client.
    assert all(0.0 <= place("s", key) < 1.0 for key in KEYS)


def test_shadow_shares() -> None:
    assert not replace(ROUTE, shadow=None).is_mirrored(b"k")
    assert all(replace(ROUTE, shadow=Shadow(5, 1.0)).is_mirrored(key) for key in KEYS)
    assert not any(replace(ROUTE, shadow=Shadow(5, 0.0)).is_mirrored(key) for key in KEYS)


def test_a_route_without_candidate_is_stables() -> None:
    assert {replace(ROUTE, candidate=None).pick(key) for key in KEYS[:100]} == {1}


def test_a_table_is_read_as_it_was_written() -> None:
    data = json.loads(json.dumps(TABLE.to_json()))
    assert RouteTable.from_json(data) == TABLE
    data["later"] = data["routes"][0]["later"] = {"unknown": 1}
    assert RouteTable.from_json(data) == TABLE


BAD_FIELDS: list[tuple[str, Any]] = [
    *(("model", bad) for bad in (None, 3, "", "a/b", "..", ".a", "a b", "a\n", "x" * 129, "\ud800")),
    *(("revision", bad) for bad in (-1, 1.5, True, "1", 2**63)),
    *(("stable", bad) for bad in (0, 9, None, True, "1")),
    *(("servers", bad) for bad in (None, {}, [], {"x": []}, {"0": []}, {"01": []}, {"9" * 5000: []}, {"1": "a:1"},
                                   {"1": [3]}, {"1": ["a"]}, {"1": ["a:0"]}, {"1": ["a:65536"]}, {"1": ["a b:1"]},
                                   {"1": ["a:1\r\nX: y"]}, {"²": []})),
    *(("candidate", bad) for bad in (3, {}, {"release": 2}, {"release": 2, "weight": 1.1},
                                     {"release": 2, "weight": -0.1}, {"release": 2, "weight": math.nan},
                                     {"release": 2, "weight": True}, {"release": 9, "weight": 0.5})),
    *(("shadow", bad) for bad in ([], {"release": 5, "share": 2}, {"release": 9, "share": 0.5})),
    *(("salt", bad) for bad in (None, 3, "x" * 49, "\ud800", "ä", "a\nb")),
    *(("sticky_header", bad) for bad in (None, "", "a b", "a:b", "ä", "x" * 65)),
    *(("deadline_s", bad) for bad in (0, -1, 3601, math.nan, math.inf, "1", True, 10**400)),
    *(("sample_share", bad) for bad in (-0.1, 1.1, None, "x")),
]  # fmt: skip


@pytest.mark.parametrize(("field", "bad"), BAD_FIELDS)
def test_a_bad_route_is_refused(field: str, bad: Any) -> None:
    data = json.loads(json.dumps(TABLE.to_json()))
    data["routes"][0][field] = bad
    with pytest.raises(RouteTableError):
        RouteTable.from_json(data)


@pytest.mark.parametrize("bad", [None, 3, [], "x", {}, {"version": 1}, {"version": -1, "routes": []},
                                 {"version": 1, "routes": {}}, {"version": 1, "routes": [None]},
                                 {"version": 1, "routes": [TABLE.to_json()["routes"][1]] * 2}])  # fmt: skip
def test_what_is_no_table_is_refused(bad: Any) -> None:
    with pytest.raises(RouteTableError):
        RouteTable.from_json(bad)


@settings(max_examples=300, deadline=None)
@given(field=st.sampled_from([*TABLE.to_json()["routes"][0], "version", "routes"]), value=JSON)
def test_no_value_in_a_table_gives_another_error(field: str, value: Any) -> None:
    data = json.loads(json.dumps(TABLE.to_json()))
    (data if field in data else data["routes"][0])[field] = value
    try:
        table = RouteTable.from_json(data)
    except RouteTableError:
        return
    again = RouteTable.from_json(json.loads(json.dumps(table.to_json())))
    assert again == table
    assert all(route.pick(b"key") in route.servers for route in table.routes.values())


@settings(max_examples=200, deadline=None)
@given(JSON)
def test_garbage_is_only_ever_an_error_of_its_kind(value: Any) -> None:
    for read in (RouteTable.from_json, Window.from_json, Sample.from_json, Label.from_json):
        try:
            read(value)
        except ValueError as exc:
            assert read is not RouteTable.from_json or isinstance(exc, RouteTableError)


@settings(max_examples=300, deadline=None)
@given(field=st.sampled_from(list(WINDOW.to_json())), value=JSON)
def test_no_value_in_a_window_gives_another_error(field: str, value: Any) -> None:
    data = WINDOW.to_json() | {field: value}
    try:
        window = Window.from_json(data)
    except ValueError:
        return
    assert Window.from_json(json.loads(json.dumps(window.to_json()))) == window


def test_a_window_is_read_as_it_was_written() -> None:
    data = json.loads(json.dumps(WINDOW.to_json()))
    assert Window.from_json(data | {"later": 1}) == WINDOW
    assert (WINDOW.ok, WINDOW.charged) == (3, 0)
    assert replace(WINDOW, outcomes=dict.fromkeys(Outcome, 1)).charged == 4


def test_a_latency_is_in_the_bucket_whose_edges_hold_it() -> None:
    for bucket in range(1, LAST_BUCKET):
        edge = upper_edge_us(bucket)
        assert bucket_of(edge * (1 - 1e-9)) == bucket
        assert bucket_of(edge * (1 + 1e-9)) == bucket + 1
    assert bucket_of(0.0) == bucket_of(FIRST_EDGE_US) == 0
    assert bucket_of(1e12) == LAST_BUCKET and upper_edge_us(LAST_BUCKET) == math.inf
    assert upper_edge_us(32) == 2 * FIRST_EDGE_US


ANSWER = Answer(1, b"\x00\xff{}", 2, "gzip")
SAMPLE = Sample("id", "digits", 12.5, ANSWER, Answer(2, b""))


@pytest.mark.parametrize("sample", [SAMPLE, replace(SAMPLE, mirrored=None)])
def test_a_sample_is_read_as_it_was_written(sample: Sample) -> None:
    assert Sample.from_json(json.loads(json.dumps(sample.to_json()))) == sample


@settings(max_examples=200, deadline=None)
@given(field=st.sampled_from(list(SAMPLE.to_json())), inner=st.sampled_from([None, *ANSWER.to_json()]), value=JSON)
def test_no_value_in_a_sample_gives_another_error(field: str, inner: str | None, value: Any) -> None:
    data = SAMPLE.to_json()
    data[field] = value if inner is None else ANSWER.to_json() | {inner: value}
    try:
        Sample.from_json(data)
    except ValueError:
        return


@pytest.mark.parametrize("label", [3, [3], [0, 2**31 - 1]])
def test_a_label_is_read_as_it_was_written(label: Any) -> None:
    read = Label.from_json({"request_id": "r", "model": "m", "label": label})
    assert read.labels == tuple(label if isinstance(label, list) else [label])
    assert Label.from_json(json.loads(json.dumps(read.to_json()))) == read


@pytest.mark.parametrize(
    ("field", "bad"),
    [("request_id", bad) for bad in (None, 3, "", "x" * 129, "a b", "ä", "\ud800", "a\n")]
    + [("model", bad) for bad in (None, "", "a/b", "..", "x" * 129)]
    + [("label", bad) for bad in (None, "3", 1.0, True, -1, 2**31, [], [[1]], [1, None], [1] * 4097, math.nan)],
)
def test_a_bad_label_is_refused(field: str, bad: Any) -> None:
    with pytest.raises(ValueError, match=r"a label needs"):
        Label.from_json({"request_id": "r", "model": "m", "label": 1} | {field: bad})
