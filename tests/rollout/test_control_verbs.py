"""What people may do beside the engine: promote now, roll back, and go back to the release before; by API and shell."""

import json
from contextlib import closing
from typing import Any

import pytest
import typer
from sqlalchemy import text
from typer.testing import CliRunner, Result

from rollout.cli import history_of_all, roll_back, rollout
from rollout.exits import Exit, of_rollout
from rollout.store.database import Database
from tests.rollout.conftest import Plane, quick

ORDER = {"by": "ada", "reason": "it must be"}


def settled(plane: Plane, key: int) -> dict[str, Any]:
    return plane.wait(key, lambda found: bool(found["is_settled"]))


def promoted(serving: Plane, release: int) -> int:
    key: int = serving.begin(release, quick()).json()["id"]
    serving.wait_status(key, "shadow")
    assert serving.client.post(f"/v1/rollouts/{key}/promote", json=ORDER).status_code == 200
    settled(serving, key)
    return key


def test_a_candidate_is_promoted_now_and_taken_back_in_one_step(serving: Plane) -> None:
    key = promoted(serving, 2)
    assert serving.route()["stable"] == 2
    assert serving.rollout(key)["decision"]["by"] == "engineer"
    assert [pool.release for pool in serving.host.found()] == [2]
    back = serving.client.post("/v1/models/digits/rollback", json={"by": "bob", "reason": "customers call"}).json()
    ended = settled(serving, back["id"])
    assert (ended["status"], ended["release"], serving.route()["stable"]) == ("promoted", 1, 1)
    assert "rolled back from digits/2 by bob: customers call" in ended["summary"]
    assert [pool.release for pool in serving.host.found()] == [1]


def test_a_rollout_under_way_is_what_a_model_is_rolled_back_from(serving: Plane) -> None:
    key = serving.begin(2, quick()).json()["id"]
    serving.wait_status(key, "shadow")
    back = serving.client.post("/v1/models/digits/rollback", json=ORDER).json()
    assert (back["id"], back["status"]) == (key, "rolled_back")
    assert serving.route()["stable"] == 1


def test_there_must_be_a_release_before(serving: Plane) -> None:
    refused = serving.client.post("/v1/models/digits/rollback", json=ORDER)
    assert (refused.status_code, refused.json()["code"]) == (404, "not_found")
    assert "followed on no release" in refused.json()["message"]
    assert serving.client.post("/v1/models/other/rollback", json=ORDER).status_code == 404


def shell(plane: Plane, *words: str) -> Result:
    return CliRunner().invoke(rollout, [*words, "--url", str(plane.client.base_url)])


def test_exit_codes_and_errors_in_json(serving: Plane) -> None:
    assert shell(serving, "status", "77").exit_code == Exit.NOT_FOUND
    assert shell(serving, "start", "digits").exit_code == Exit.USAGE
    assert shell(serving, "start", "digits/1").exit_code == Exit.CONFLICT
    refused = shell(serving, "start", "digits/1", "--json")
    error = json.loads(refused.stderr)
    assert (error["code"], error["message"]) == ("conflict", "digits/1 is stable already")
    assert error["next"] and error["request_id"]
    away = CliRunner().invoke(rollout, ["status", "--url", "http://127.0.0.1:9", "--json"])
    assert (away.exit_code, json.loads(away.stderr)["code"]) == (Exit.ERROR, "unavailable")


def test_an_order_for_a_stage_that_was_left_changes_nothing(serving: Plane) -> None:
    key = str(serving.begin(2, quick()).json()["id"])
    serving.wait_status(int(key), "shadow")
    late = shell(serving, "promote", key, "--expect-stage", "2", "-m", "now")
    assert (late.exit_code, "gone on" in late.stderr) == (Exit.CONFLICT, True)
    held = shell(serving, "hold", key, "--expect-stage", "1", "-m", "lunch")
    assert held.exit_code == Exit.OK, held.output
    assert serving.rollout(int(key))["status"] == "held"


def test_people_promote_and_take_back_from_the_shell(serving: Plane) -> None:
    key = str(serving.begin(2, quick()).json()["id"])
    serving.wait_status(int(key), "shadow")
    assert shell(serving, "promote", key, "--reason", "now").exit_code == Exit.OK
    settled(serving, int(key))
    watched = shell(serving, "watch", key)
    assert (watched.exit_code, "\x1b" in watched.stdout) == (Exit.OK, False)
    back = typer.Typer()
    back.command()(roll_back)
    told = CliRunner().invoke(back, ["digits", "--url", str(serving.client.base_url), "--json"])
    assert told.exit_code == 0, told.output
    settled(serving, json.loads(told.stdout)["id"])
    assert serving.route()["stable"] == 1


def test_a_changed_history_is_found_from_the_shell(serving: Plane) -> None:
    def verify(*words: str) -> Result:
        return CliRunner().invoke(history_of_all, ["verify", "--url", str(serving.client.base_url), *words])

    assert verify().exit_code == Exit.OK
    assert json.loads(verify("--json").stdout)["first_broken"] is None
    with closing(Database.open(serving.settings.database_url)) as database, database.writing() as connection:
        connection.execute(text("UPDATE history SET author = 'eve' WHERE id = 2"))
    found = verify()
    assert (found.exit_code, "entry 2" in found.stderr) == (Exit.ERROR, True)


@pytest.mark.parametrize(
    ("status", "by", "code"),
    [
        ("promoted", "cleared", Exit.OK), ("rolled_back", "errors", Exit.ROLLED_BACK),
        ("rolled_back", "breaker", Exit.ROLLED_BACK), ("rolled_back", "engineer", Exit.ERROR),
        ("rolled_back", "inconclusive", Exit.INCONCLUSIVE), ("aborted", "engineer", Exit.ERROR),
        ("failed", "server", Exit.ERROR), ("rolled_back", "server", Exit.ERROR),
    ],
)  # fmt: skip
def test_the_end_of_a_rollout_as_an_exit_code(status: str, by: str, code: Exit) -> None:
    assert of_rollout({"status": status, "decision": {"by": by}}) is code
