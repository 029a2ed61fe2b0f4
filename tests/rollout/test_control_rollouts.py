"""Rollouts from the API to the route table and back, on a fake host of pools."""

import contextlib
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from exporter.release import Signature, Tensor
from gateway.windows import Role, bucket_of
from rollout.config import ControlSettings
from rollout.pools.fake import FakeHost
from rollout.pools.fake_server import Behaviour
from rollout.store import rollouts
from rollout.store.database import Database
from tests.rollout.conftest import Plane, quick, running
from tests.rollout.releases import SIGNATURE, write_manifest, write_release


def test_first_release_becomes_stable_once_it_is_ready(plane: Plane) -> None:
    begun = plane.begin(1)
    assert begun.status_code == 201
    ended = plane.wait(begun.json()["id"], lambda found: bool(found["is_settled"]))
    assert (ended["status"], ended["decision"]["by"]) == ("promoted", "first release")
    route = plane.route()
    assert (route["stable"], route["candidate"]) == (1, None)
    assert route["servers"]["1"] == [plane.host.found()[0].address]


def test_good_release_goes_through_every_stage_to_promotion(serving: Plane) -> None:
    key = serving.begin(2, quick()).json()["id"]
    serving.wait(key, lambda _: serving.route()["shadow"] == {"release": 2, "share": 1.0})
    seen, ends = set(), time.monotonic() + 30
    while not (found := serving.rollout(key))["is_settled"] and time.monotonic() < ends:
        seen.add(found["status"])
        report_a_good_candidate(serving)
        time.sleep(0.05)
    assert found["status"] == "promoted", found
    assert found["decision"]["by"] == "cleared"
    assert {"canary", "baking"} <= seen
    assert [pool.release for pool in serving.host.found()] == [2]
    assert serving.route()["stable"] == 2


def test_less_accurate_release_is_rolled_back_by_its_labels(serving: Plane) -> None:
    key = serving.begin(2, quick()).json()["id"]
    serving.wait_status(key, "shadow")
    ends = time.monotonic() + 20
    while serving.rollout(key)["status"] == "shadow" and time.monotonic() < ends:
        serving.pairs(100, (1, 7), (2, 3), truth=7)
        time.sleep(0.05)
    found = serving.rollout(key)
    assert (found["status"], found["decision"]["by"]) == ("rolled_back", "quality")
    assert "accuracy" in found["decision"]["reason"]
    serving.wait(key, lambda _: [pool.release for pool in serving.host.found()] == [1])
    assert serving.route()["shadow"] is None


def test_release_whose_server_dies_comes_back_cold_and_goes_on(serving: Plane) -> None:
    key = serving.begin(2, quick(warmup_s=60.0, guards={"quality": {"required": False}})).json()["id"]
    serving.wait(key, lambda _: serving.route()["shadow"] is not None)
    before = time.time()
    serving.host.crash(next(pool for pool in serving.host.found() if pool.release == 2))
    serving.wait(key, lambda _: [pool.release for pool in serving.host.found()] == [1, 2])
    (new,) = [pool for pool in serving.host.found() if pool.release == 2]
    serving.wait(key, lambda _: serving.route()["servers"]["2"] == [new.address])
    serving.wait(key, lambda _: _stored(serving, key)["changed_at"] > before)
    assert serving.rollout(key)["status"] == "shadow"


def test_release_whose_server_keeps_dying_is_rolled_back(serving: Plane) -> None:
    key = serving.begin(2, quick()).json()["id"]
    serving.wait_status(key, "shadow")
    serving.host.behaviours["digits/2"] = Behaviour(start_error="out of memory")
    serving.host.crash(next(pool for pool in serving.host.found() if pool.release == 2))
    found = serving.wait_status(key, "rolled_back")
    assert found["decision"]["by"] == "server"
    assert "did not start 4 times" in found["decision"]["reason"]
    assert "out of memory" in found["decision"]["reason"]


def test_release_that_does_not_start_fails_and_changes_nothing(serving: Plane) -> None:
    before = serving.route()
    serving.host.behaviours["digits/2"] = Behaviour(start_error="no such operator: Frobnicate")
    key = serving.begin(2).json()["id"]
    found = serving.wait_status(key, "failed")
    assert "Frobnicate" in found["decision"]["reason"]
    assert {**serving.route(), "revision": 0} == {**before, "revision": 0}


def test_held_resumed_and_aborted_by_people(serving: Plane) -> None:
    key = serving.begin(2, quick()).json()["id"]
    serving.wait_status(key, "shadow")
    order = {"by": "ada", "reason": "lunch"}
    assert serving.client.post(f"/v1/rollouts/{key}/hold", json=order).json()["status"] == "held"
    assert serving.client.post(f"/v1/rollouts/{key}/resume", json=order).json()["status"] == "shadow"
    assert serving.client.post(f"/v1/rollouts/{key}/abort", json=order).json()["status"] == "aborted"
    again = serving.client.post(f"/v1/rollouts/{key}/abort", json=order)
    assert again.status_code == 409
    told = serving.client.get(f"/v1/rollouts/{key}/history").json()["items"]
    assert [one["what"] for one in told] == ["asked", "warming", "shadow", "held", "shadow", "aborted"]
    assert told[3]["author"] == "ada"
    assert serving.client.get("/v1/history/check").json()["first_broken"] is None


def test_next_step_waits_for_as_many_people_as_the_plan_asks_for(serving: Plane) -> None:
    plan = quick(approvals={"canary": 2}, stages=[{"weight": 0.5, "shadow_share": 1.0, "soak_s": 0.1}])
    key = serving.begin(2, plan).json()["id"]
    waiting = serving.wait(key, lambda found: bool(found["waiting_for"]) and "approval" in found["waiting_for"][0])
    assert waiting["status"] == "warming"
    assert waiting["waiting_for"] == ["approval by 2 people: `sluice rollout approve`"]
    for _ in range(2):
        serving.client.post(f"/v1/rollouts/{key}/approve", json={"by": "ada", "reason": "looked at it"})
    assert serving.rollout(key)["approved_by"] == ["ada"]
    assert serving.rollout(key)["waiting_for"] == ["approval by one person more: `sluice rollout approve`"]
    serving.client.post(f"/v1/rollouts/{key}/approve", json={"by": "bob"})
    assert serving.wait_status(key, "canary")["weight"] == 0.5
    told = serving.client.get(f"/v1/rollouts/{key}/history").json()["items"]
    assert [(one["author"], one["what"]) for one in told if one["what"] == "approved"] == [
        ("ada", "approved"), ("bob", "approved"),
    ]  # fmt: skip


def test_pair_that_was_tried_before_is_tried_with_less_of_alpha(serving: Plane) -> None:
    for attempt in (1, 2):
        key = serving.begin(2, quick()).json()["id"]
        assert serving.wait_status(key, "shadow")["attempt"] == attempt
        serving.client.post(f"/v1/rollouts/{key}/abort", json={"by": "ada"})
        serving.wait(key, lambda found: bool(found["is_settled"]))
    assert serving.begin(3, quick()).json()["attempt"] == 1


def test_todays_traffic_of_a_model_is_what_stable_answered(serving: Plane) -> None:
    assert serving.client.get("/v1/models/digits/traffic").json()["rate"] == 0
    serving.report([serving.window(1, 0.0, 90, failed=10)])
    seen = serving.client.get("/v1/models/digits/traffic").json()
    assert (seen["failing"], seen["latency"]) == (0.1, [[bucket_of(1000.0), 1.0]])
    assert seen["rate"] * seen["seconds"] == pytest.approx(100)
    assert serving.client.get("/v1/models/other/traffic").status_code == 404


def test_second_rollout_of_a_model_is_refused(serving: Plane) -> None:
    serving.begin(2, quick())
    refused = serving.begin(3)
    assert refused.status_code == 409
    assert "under way" in refused.json()["message"]
    assert len(serving.client.get("/v1/rollouts").json()["items"]) == 2


@pytest.mark.parametrize(
    ("release", "plan", "status", "says"),
    [
        (9, {}, 404, "no release digits/9"),
        (1, {}, 409, "stable already"),
        (2, {"stagse": []}, 422, "stages"),
        (2, {"alpha": 7}, 422, "alpha"),
        (2, {"guards": {"mistakes": {"enabled": True}, "quality": {"enabled": False}}}, 422, "guards.mistakes"),
    ],
)
def test_wrong_orders_say_what_is_wrong(
    serving: Plane, release: int, plan: dict[str, object], status: int, says: str
) -> None:
    refused = serving.begin(release, plan)
    assert refused.status_code == status
    assert says in refused.json()["message"]
    assert len(serving.client.get("/v1/rollouts").json()["items"]) == 1


def test_release_with_other_inputs_is_refused(serving: Plane, repository: Path) -> None:
    other = Signature((Tensor("picture", "FP32", (28, 28)),), SIGNATURE.outputs)
    write_release(repository, 4, signature=other)
    refused = serving.begin(4)
    assert refused.status_code == 422
    assert "picture FP32[28, 28]" in refused.json()["message"]


def test_damaged_release_is_refused(serving: Plane, repository: Path) -> None:
    (repository / "digits" / "2" / "weights").write_text("changed")
    refused = serving.begin(2)
    assert refused.status_code == 422
    assert "changed after it was written" in refused.json()["message"]


def test_stable_server_that_dies_is_started_again_and_routed(serving: Plane) -> None:
    (old,) = serving.host.found()
    serving.host.crash(old)
    ends = time.monotonic() + 10
    while serving.route()["servers"]["1"] == [old.address] and time.monotonic() < ends:
        time.sleep(0.05)
    (new,) = serving.host.found()
    assert serving.route()["servers"]["1"] == [new.address] != [old.address]


@pytest.mark.usefixtures("repository")
def test_restarted_control_plane_goes_on_with_the_same_evidence(settings: ControlSettings, tmp_path: Path) -> None:
    host = FakeHost(tmp_path)
    with running(settings, host) as client:
        plane = Plane(client, host, settings)
        plane.wait(plane.begin(1).json()["id"], lambda found: bool(found["is_settled"]))
        key = plane.begin(2, quick(guards={"quality": {"clear": 0.0051}})).json()["id"]
        plane.wait_status(key, "shadow")
        for _ in range(5):
            plane.pairs(40, (1, 3), (2, 3), truth=3)
        seen = plane.wait(key, lambda found: "200 labels" in str(found["verdicts"]))
    with running(settings, host) as client:
        again = Plane(client, host, settings).rollout(key)
    without_pace = [[{**one, "needs": ""} for one in found["verdicts"]] for found in (again, seen)]
    assert without_pace[0] == without_pace[1]
    assert again["status"] == "shadow"
    host.close()


def test_reports_are_kept_once_and_lies_are_left_out(serving: Plane) -> None:
    true = serving.window(1, 0.5, 10)
    assert serving.report([true, true]).json()["windows"] == 1
    assert serving.report([true]).json()["windows"] == 0
    negative = {**serving.window(1, 0.5, 10), "outcomes": {"ok": -5}}
    unmatched = {**serving.window(1, 0.5, 10), "outcomes": {"ok": 11}}
    garbage = {"model": []}
    assert serving.report([negative, unmatched, garbage]).json()["windows"] == 0


def test_gateway_gets_the_next_table_as_soon_as_it_is_made(serving: Plane) -> None:
    version = serving.client.get("/v1/routes").json()["version"]
    assert serving.client.get("/v1/gateway/routes", params={"after": version, "timeout_s": 0.1}).status_code == 204
    assert serving.client.get("/v1/gateway/routes", params={"after": version - 1}).json()["version"] == version


def test_model_takes_no_rollout_until_the_last_has_settled(serving: Plane) -> None:
    """Otherwise the drain of the one would stop the pool of the other."""
    serving.host.behaviours["digits/2"] = Behaviour(start_delay_s=0.5)
    key = serving.begin(2, quick()).json()["id"]
    serving.client.post(f"/v1/rollouts/{key}/abort", json={"by": "ada"})
    refused = serving.begin(2, quick())
    assert refused.status_code == 409
    assert "settled" in refused.json()["hint"]
    serving.wait(key, lambda found: bool(found["is_settled"]))
    again = serving.begin(2, quick()).json()["id"]
    assert serving.wait_status(again, "shadow")["status"] == "shadow"


def test_counts_of_an_earlier_rollout_are_not_evidence_of_this_one(serving: Plane) -> None:
    late = serving.route()["revision"]
    key = serving.begin(2, quick(guards={"quality": {"required": False}})).json()["id"]
    serving.wait_status(key, "shadow")
    for _ in range(10):
        serving.report([serving.window(1, 0.5, 0, 500, revision=late), serving.window(2, 0.5, 500, revision=late)])
    time.sleep(0.3)
    (errors,) = [one for one in serving.rollout(key)["verdicts"] if one["guard"] == "errors"]
    assert "no request was compared yet" in errors["reason"]


def test_nothing_goes_on_until_every_gateway_has_the_route(serving: Plane) -> None:
    old = serving.client.get("/v1/routes").json()["version"]
    key = serving.begin(2, quick()).json()["id"]
    ends = time.monotonic() + 2.0
    while time.monotonic() < ends:
        serving.report(version=old)
        time.sleep(0.02)
    serving.client.post(f"/v1/rollouts/{key}/abort", json={"by": "ada"})
    for _ in range(20):
        serving.report(version=old)
        time.sleep(0.02)
    assert {pool.release for pool in serving.host.found()} == {1, 2}
    serving.wait(key, lambda found: bool(found["is_settled"]))
    assert [pool.release for pool in serving.host.found()] == [1]


@pytest.mark.usefixtures("repository")
def test_candidate_that_is_missing_after_a_restart_is_started_again(settings: ControlSettings, tmp_path: Path) -> None:
    host = FakeHost(tmp_path)
    with running(settings, host) as client:
        plane = Plane(client, host, settings)
        plane.wait(plane.begin(1).json()["id"], lambda found: bool(found["is_settled"]))
        key = plane.begin(2, quick()).json()["id"]
        plane.wait(key, lambda _: plane.route()["shadow"] is not None)
    host.close()
    with running(settings, host) as client:
        plane = Plane(client, host, settings)
        plane.wait(key, lambda _: {pool.release for pool in host.found()} == {1, 2})
        addresses = {str(pool.release): [pool.address] for pool in host.found()}
        plane.wait(key, lambda _: plane.route()["servers"] == addresses)
        assert plane.rollout(key)["status"] == "shadow"
    host.close()


def test_smaller_batches_than_stables_are_refused(serving: Plane, repository: Path) -> None:
    release = write_release(repository, 4)
    write_manifest(repository / "digits" / "4", replace(release, max_batch_size=4))
    refused = serving.begin(4)
    assert refused.status_code == 422
    assert "--max-batch-size 8" in refused.json()["hint"]


def test_ended_rollout_does_not_begin_its_pool_late(serving: Plane) -> None:
    serving.host.behaviours["digits/2"] = Behaviour(start_delay_s=0.5)
    key = serving.begin(2, quick()).json()["id"]
    serving.client.post(f"/v1/rollouts/{key}/abort", json={"by": "ada"})
    assert serving.wait(key, lambda found: bool(found["is_settled"]))["status"] == "aborted"
    time.sleep(0.7)
    assert [pool.release for pool in serving.host.found()] == [1]


@pytest.mark.usefixtures("repository")
def test_rollout_converges_though_the_control_plane_restarts_all_the_time(
    settings: ControlSettings, tmp_path: Path
) -> None:
    """Whatever instruction was under way is carried out again by the next control plane."""
    host = FakeHost(tmp_path)
    with running(settings, host) as client:
        first = Plane(client, host, settings)
        first.wait(first.begin(1).json()["id"], lambda found: bool(found["is_settled"]))
        key = first.begin(2, quick()).json()["id"]
    found, restarts, ends = {"is_settled": False}, 0, time.monotonic() + 60
    while not found["is_settled"] and time.monotonic() < ends:
        with running(settings, host) as client:
            plane, restarts = Plane(client, host, settings), restarts + 1
            for _ in range(4):
                report_a_good_candidate(plane)
                time.sleep(0.05)
            found = plane.rollout(key)
    assert found["status"] == "promoted", found
    assert restarts > 3
    assert [pool.release for pool in host.found()] == [2]
    host.close()


def _stored(plane: Plane, key: int) -> dict[str, Any]:
    """A rollout's state as it is in the database."""
    with contextlib.closing(Database.open(plane.settings.database_url)) as database, database.reading() as connection:
        return rollouts.get(connection, key).state.to_json()


def report_a_good_candidate(plane: Plane) -> None:
    """Labelled copies, and answers of both arms while there is a weight."""
    plane.pairs(50, (1, 3), (2, 7), truth=7)
    plane.report([plane.window(2, 0.0, 50, role=Role.MIRRORED)])
    if (weight := (plane.route()["candidate"] or {"weight": 0.0})["weight"]) > 0:
        taken = round(1000 * weight)
        plane.report([plane.window(1, weight, 1000 - taken), plane.window(2, weight, taken)])
