"""Lists by pages: nothing twice, nothing left out, and quick among thousands."""

import json
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from alembic import command
from alembic.config import Config
from sqlalchemy import create_engine, insert, text

from rollout import store
from rollout.decision import engine
from rollout.decision.evidence import Evidence
from rollout.decision.rules import Plan
from rollout.decision.state import Point, Rollout, Status
from rollout.decision.verdict import outline
from rollout.store import history, rollouts
from rollout.store.database import Database
from rollout.store.history import Entry
from rollout.store.tables import rollouts as table
from tests.rollout.conftest import Plane, quick

MANY = 5000
PAGE = 50
PAGE_S = 0.05


def pages(plane: Plane, path: str, **wanted: Any) -> Iterator[list[dict[str, Any]]]:
    while True:
        page = plane.client.get(path, params=wanted).json()
        yield page["items"]
        if page["next"] is None:
            return
        wanted["cursor"] = page["next"]


def aborted_rollouts(plane: Plane, number: int) -> None:
    for _ in range(number):
        key = plane.begin(2, quick()).json()["id"]
        plane.client.post(f"/v1/rollouts/{key}/abort", json={"by": "ada"})
        plane.wait(key, lambda found: bool(found["is_settled"]))


def test_pages_hold_every_rollout_once_though_new_ones_come(serving: Plane) -> None:
    aborted_rollouts(serving, 3)
    walk = pages(serving, "/v1/rollouts", limit=2)
    first = next(walk)
    aborted_rollouts(serving, 1)
    assert [one["id"] for page in (first, *walk) for one in page] == [4, 3, 2, 1]


def test_rows_say_what_the_whole_rollouts_say(serving: Plane) -> None:
    aborted_rollouts(serving, 1)
    for row in serving.client.get("/v1/rollouts").json()["items"]:
        whole = serving.rollout(row["id"])
        assert row == {name: whole[name] for name in row}


def test_rollouts_are_picked_by_model_and_status(serving: Plane) -> None:
    aborted_rollouts(serving, 1)

    def ids(**wanted: str) -> list[int]:
        return [one["id"] for one in serving.client.get("/v1/rollouts", params=wanted).json()["items"]]

    assert ids(status="promoted") == [1]
    assert ids(status="aborted", model="digits") == [2]
    assert ids(model="other") == []


def test_history_by_pages_goes_from_the_newest_and_of_a_rollout_from_the_oldest(serving: Plane) -> None:
    aborted_rollouts(serving, 1)
    every = [one["id"] for page in pages(serving, "/v1/history", limit=2) for one in page]
    assert every == list(range(every[0], 0, -1))
    own = [one for page in pages(serving, "/v1/rollouts/2/history", limit=2) for one in page]
    assert [one["what"] for one in own] == ["asked", "warming", "aborted"] or "shadow" in str(own)
    assert [one["id"] for one in own] == sorted(one["id"] for one in own)


@pytest.mark.parametrize("cursor", ["", "x", "____", "cm9sbG91dHM6MQ", "äö", "aGlzdG9yeTotMQ"])
def test_cursor_of_another_list_is_refused(serving: Plane, cursor: str) -> None:
    refused = serving.client.get("/v1/history", params={"cursor": cursor})
    assert (refused.status_code, refused.json()["code"]) == (422, "invalid")
    assert "first page" in refused.json()["hint"]


def test_page_among_thousands_does_not_read_their_evidence(database_url: str) -> None:
    database = Database.open(database_url)
    state = _long_lived()
    row = {
        "release": 2, "status": "aborted", "state": json.dumps(state.to_json()), "since_version": 0, "windows_seen": 0,
        "samples_seen": 0, "created_at": 1.0, "updated_at": 2.0, "outline": json.dumps(outline(state)),
    }  # fmt: skip
    with database.writing() as connection:
        connection.execute(insert(table), [{"model": f"model{number % 10}", **row} for number in range(MANY)])
        connection.execute(text("UPDATE rollouts SET state = 'not read' WHERE id > 2000"))
    for wanted in ({}, {"model": "model3"}, {"status": Status.ABORTED}, {"model": "model3", "status": Status.HELD}):
        took = min(_timed(database, **wanted) for _ in range(5))
        assert took < PAGE_S, wanted
    database.close()


def test_rollouts_from_before_there_were_outlines_are_listed(database_url: str) -> None:
    engine_of = create_engine(database_url.replace("postgresql:", "postgresql+psycopg:"))
    config = Config()
    config.set_main_option("script_location", str(Path(store.__file__).parent / "migrations"))
    state = _long_lived().to_json()
    decision = {"by": "engineer", "reason": "aborted by ada: lunch", "requests": 7, "seconds": 60.0}
    row = {"model": "digits", "release": 2, "status": "aborted", "state": json.dumps({**state, "decision": decision})}
    with engine_of.begin() as connection:
        config.attributes["connection"] = connection
        command.upgrade(config, "0001")
        connection.execute(
            text(
                "INSERT INTO rollouts (model, release, status, state, since_version, windows_seen, samples_seen,"
                " created_at, updated_at) VALUES (:model, :release, :status, :state, 0, 0, 0, 1.0, 2.0)"
            ),
            row,
        )
    engine_of.dispose()
    database = Database.open(database_url)
    with database.reading() as connection:
        (found,) = rollouts.page(connection)
        whole = outline(rollouts.get(connection, found.id).state)
    database.close()
    assert {**found.outline, "summary": ""} == {**whole, "summary": ""}
    assert found.outline["summary"] == "digits/2 is aborted (engineer): aborted by ada: lunch"
    assert (found.revision, found.is_settled) == (1, True)


def _timed(database: Database, **wanted: Any) -> float:
    began = time.perf_counter()
    with database.reading() as connection:
        rollouts.page(connection, limit=PAGE, before=1900, **wanted)
    return time.perf_counter() - began


def _long_lived() -> Rollout:
    """A rollout with as long a trail as there can be."""
    shares = dict.fromkeys(("errors", "latency", "quality", "agreement"), 0.123456789012345)
    trail = tuple(Point(float(at), 0, shares, shares) for at in range(120))
    state = engine.start("digits", 2, 1, Plan(), "salt")
    return replace(state, status=Status.ABORTED, evidence=Evidence.begin(state.plan), trail=trail)


def test_evidence_over_time_is_told_by_guard(serving: Plane) -> None:
    key = serving.begin(2, quick()).json()["id"]
    serving.wait_status(key, "shadow")
    for _ in range(3):
        serving.pairs(40, (1, 3), (2, 3), truth=3)
    serving.wait(key, lambda found: len(found["trail"]) >= 2)
    told = serving.client.get(f"/v1/rollouts/{key}/evidence").json()
    assert [one["at"] for one in told["points"]] == sorted(one["at"] for one in told["points"])
    assert abs(told["points"][-1]["at"] - time.time()) < 20
    (quality,) = [one for one in told["guards"] if one["guard"] == "quality"]
    assert quality["intervals"]["accuracy_lost"]["value"] == 0.0
    for point in told["points"]:
        assert point["stage"] == 1
        assert point["harm"].keys() == point["clear"].keys() == {one["guard"] for one in told["guards"]}
        assert all(0.0 <= share <= 1.0 for share in (*point["harm"].values(), *point["clear"].values()))


def test_entries_of_one_model_only(database_url: str) -> None:
    database = Database.open(database_url)
    with database.writing() as connection:
        for number in range(6):
            history.append(connection, Entry(float(number), "ada", f"model{number % 2}", 1, "held", ""))
        assert [one["id"] for one in history.newest(connection, model="model1", limit=2)] == [6, 4]
        assert [one["id"] for one in history.newest(connection, before=3)] == [2, 1]
        assert [one["id"] for one in history.entries(connection, model="model0", after=1)] == [3, 5]
        assert history.last_id(connection) == 6
    database.close()
