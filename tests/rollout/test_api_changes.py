"""Changes over HTTP: made once however often they are sent, and only of what the sender saw."""

import threading
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import pytest
from sqlalchemy import Connection

from rollout.api.app import build
from rollout.api.changes import Change, Expected, Headers
from rollout.api.rollout_shapes import Order
from rollout.config import ControlSettings
from rollout.decision import engine
from rollout.decision.rules import Plan
from rollout.errors import KeyReusedError
from rollout.pools.fake import FakeHost
from rollout.store import answers, rollouts
from rollout.store.answers import KEPT_S, Answer, Asked
from rollout.store.database import Database
from tests.rollout.conftest import Plane, quick, running, running_app

AT_ONCE = 8
ORDER = {"by": "ada", "reason": "lunch"}
ONE_STAGE = [{"weight": 0.5, "shadow_share": 1.0, "soak_s": 20.0}]
TWO_STAGES = [
    {"shadow_share": 1.0, "soak_s": 0.0, "min_requests": 1},
    {"weight": 0.5, "shadow_share": 1.0, "soak_s": 20.0},
]


def post(plane: Plane, path: str, order: dict[str, Any], **headers: str) -> httpx.Response:
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    return plane.client.post(path, json=order, headers=named)


def at_once(ask: Callable[[int], httpx.Response], number: int = AT_ONCE) -> list[httpx.Response]:
    """What each of some threads was answered that asked at the same time."""
    found: list[httpx.Response] = []
    barrier = threading.Barrier(number)

    def run(index: int) -> None:
        barrier.wait()
        found.append(ask(index))

    threads = [threading.Thread(target=run, args=(index,)) for index in range(number)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return found


def whats(plane: Plane, key: int) -> list[str]:
    return [one["what"] for one in plane.client.get(f"/v1/rollouts/{key}/history").json()["items"]]


def waiting_for_approval(plane: Plane) -> dict[str, Any]:
    """A rollout that warmed and waits for one person."""
    key = plane.begin(2, quick(approvals={"canary": 1}, stages=ONE_STAGE)).json()["id"]
    return plane.wait(key, lambda found: "approval" in str(found["waiting_for"]))


def test_same_request_again_changes_nothing_and_gets_the_same_answer(serving: Plane) -> None:
    order = {"model": "digits", "release": 2, "plan": quick(), "by": "ada"}
    first = post(serving, "/v1/rollouts", order, idempotency_key="begin-1")
    key = first.json()["id"]
    serving.wait_status(key, "shadow")
    again = post(serving, "/v1/rollouts", order, idempotency_key="begin-1")
    assert (again.status_code, again.json(), again.headers["etag"]) == (201, first.json(), first.headers["etag"])
    assert (first.headers.get("idempotency-replayed"), again.headers["idempotency-replayed"]) == (None, "true")
    for _ in range(2):
        assert post(serving, f"/v1/rollouts/{key}/hold", ORDER, idempotency_key="h").json()["status"] == "held"
        assert post(serving, f"/v1/rollouts/{key}/resume", ORDER, idempotency_key="r").json()["status"] == "shadow"
    assert whats(serving, key) == ["asked", "warming", "shadow", "held", "shadow"]


@pytest.mark.parametrize(
    "order", [{"by": "bob", "reason": "lunch"}, {"by": "ada"}, {"by": "ada", "reason": "lunch", "expect_stage": 1}]
)
def test_key_is_not_used_for_another_request(serving: Plane, order: dict[str, Any]) -> None:
    key = serving.begin(2, quick()).json()["id"]
    assert post(serving, f"/v1/rollouts/{key}/hold", ORDER, idempotency_key="one").status_code == 200
    reused = post(serving, f"/v1/rollouts/{key}/hold", order, idempotency_key="one")
    assert (reused.status_code, reused.json()["code"]) == (409, "idempotency_reused")
    assert post(serving, f"/v1/rollouts/{key}/resume", ORDER, idempotency_key="one").status_code == 409
    assert serving.rollout(key)["status"] == "held"


def test_request_that_was_refused_may_be_tried_again_with_its_key(serving: Plane) -> None:
    key = serving.begin(2, quick()).json()["id"]
    refused = post(serving, f"/v1/rollouts/{key}/resume", ORDER, idempotency_key="one")
    assert (refused.status_code, refused.json()["code"]) == (409, "conflict")
    post(serving, f"/v1/rollouts/{key}/hold", ORDER)
    assert post(serving, f"/v1/rollouts/{key}/resume", ORDER, idempotency_key="one").status_code == 200


def test_answers_outlive_the_control_plane(settings: ControlSettings, repository: Path, tmp_path: Path) -> None:
    host = FakeHost(tmp_path)
    order = {"model": "digits", "release": 1, "by": "ada"}
    answers = []
    for _ in range(2):
        with running(settings, host) as client:
            plane = Plane(client, host, settings)
            answers.append(post(plane, "/v1/rollouts", order, idempotency_key="one"))
            plane.wait(answers[0].json()["id"], lambda found: bool(found["is_settled"]))
    host.close()
    assert answers[0].json() == answers[1].json()
    assert [one.status_code for one in answers] == [201, 201]


class KilledError(Exception):
    """Stands for the end of the process."""


class KilledAtTheEnd(Change):
    """The terms of a change whose transaction does not end."""

    def after(self, connection: Connection, key: int) -> None:
        super().after(connection, key)
        raise KilledError


def test_key_and_change_are_kept_together_or_not_at_all(
    settings: ControlSettings, repository: Path, tmp_path: Path
) -> None:
    host = FakeHost(tmp_path)
    app = build(settings, host)
    with running_app(app) as client:
        plane = Plane(client, host, settings)
        plane.wait(plane.begin(1).json()["id"], lambda found: bool(found["is_settled"]))
        key = plane.begin(2, quick()).json()["id"]
        path = f"/v1/rollouts/{key}/hold"
        asked = Headers(path, "one", None).asked(Order(**ORDER))
        with pytest.raises(KilledError):
            app.state.context.controller.order("hold", key, "ada", "lunch", KilledAtTheEnd(asked, Expected()))
        assert "held" not in whats(plane, key)
        made = post(plane, path, ORDER, idempotency_key="one")
        assert (made.json()["status"], "idempotency-replayed" in made.headers) == ("held", False)
    host.close()


def test_same_request_at_the_same_time_is_carried_out_once(serving: Plane) -> None:
    order = {"model": "digits", "release": 2, "plan": quick(), "by": "ada"}
    found = at_once(lambda _: post(serving, "/v1/rollouts", order, idempotency_key="one"))
    assert {one.status_code for one in found} == {201}
    assert len({one.json()["id"] for one in found}) == 1
    assert Counter(one.headers.get("idempotency-replayed") for one in found) == {None: 1, "true": AT_ONCE - 1}


def test_answers_are_forgotten_after_a_day(database_url: str) -> None:
    database = Database.open(database_url)
    with database.writing() as connection:
        answers.keep(connection, Asked("one", "a" * 64), Answer(200, {}, {"id": 1}), 0.0)
        assert answers.find(connection, Asked("one", "a" * 64), KEPT_S - 1) == Answer(200, {}, {"id": 1})
        with pytest.raises(KeyReusedError):
            answers.find(connection, Asked("one", "b" * 64), KEPT_S - 1)
        assert answers.find(connection, Asked("one", "b" * 64), KEPT_S) is None
        answers.keep(connection, Asked("one", "b" * 64), Answer(200, {}, {"id": 2}), KEPT_S)
    database.close()


def test_one_of_many_who_begin_at_once_begins(serving: Plane) -> None:
    found = at_once(lambda index: serving.begin(2 + index % 2, quick()))
    assert Counter(one.status_code for one in found) == {201: 1, 409: AT_ONCE - 1}
    refused = [one.json() for one in found if one.status_code == 409]
    assert {one["code"] for one in refused} == {"conflict"}
    assert all("under way" in one["message"] and "abort it first" in one["hint"] for one in refused)


def test_one_of_many_who_abort_at_once_aborts(serving: Plane) -> None:
    key = serving.begin(2, quick()).json()["id"]
    found = at_once(lambda index: post(serving, f"/v1/rollouts/{key}/abort", {"by": f"person {index}"}))
    assert Counter(one.status_code for one in found) == {200: 1, 409: AT_ONCE - 1}
    assert whats(serving, key).count("aborted") == 1


def test_approval_of_a_step_that_was_taken_meanwhile_is_refused(serving: Plane) -> None:
    seen = waiting_for_approval(serving)
    looked_at = {"expect_stage": seen["stage"], "expect_phase": seen["phase"]}
    path = f"/v1/rollouts/{seen['id']}/approve"
    assert post(serving, path, {"by": "ada", **looked_at}).status_code == 200
    serving.wait_status(seen["id"], "canary")
    late = post(serving, path, {"by": "bob", **looked_at})
    assert (late.status_code, late.json()["code"]) == (409, "stage_changed")
    assert "canary, stage 1 of 1" in late.json()["message"]
    assert serving.rollout(seen["id"])["approved_by"] == []


@dataclass
class Approvals:
    """People who approve what they see, until the rollout has gone on."""

    plane: Plane
    seen: dict[str, Any]
    statuses: list[int] = field(default_factory=list)

    def ask(self, index: int) -> httpx.Response:
        path, by = f"/v1/rollouts/{self.seen['id']}/approve", f"person {index}"
        ends = time.monotonic() + 20
        while time.monotonic() < ends:
            answer = post(self.plane, path, {"by": by, "expect_stage": 1, "expect_phase": "warming"})
            if answer.status_code != 200:
                return answer
        raise AssertionError("the step was never taken")


def test_many_who_approve_at_once_never_approve_the_step_after(serving: Plane) -> None:
    seen = waiting_for_approval(serving)
    approvals = Approvals(serving, seen)
    found = at_once(approvals.ask)
    assert {(one.status_code, one.json()["code"]) for one in found} == {(409, "stage_changed")}
    assert serving.rollout(seen["id"])["approved_by"] == []


def test_stage_that_was_left_is_not_approved(serving: Plane) -> None:
    plan = quick(approvals={"canary": 1}, stages=TWO_STAGES)
    key = serving.begin(2, plan).json()["id"]
    path = f"/v1/rollouts/{key}/approve"
    serving.wait_status(key, "shadow")
    wrong = post(serving, path, {"by": "ada", "expect_stage": 2})
    assert (wrong.status_code, wrong.json()["code"]) == (409, "stage_changed")
    assert "stage 1 of 2" in wrong.json()["message"]
    assert post(serving, path, {"by": "ada", "expect_stage": 1}).json()["approved_by"] == ["ada"]


def test_revision_grows_with_what_people_decide_by_and_not_with_ticks(serving: Plane) -> None:
    key = serving.begin(2, quick()).json()["id"]
    shadow = serving.wait_status(key, "shadow")
    serving.pairs(20, (1, 3), (2, 3), truth=3)
    later = serving.wait(key, lambda found: "20 labels" in str(found["verdicts"]))
    assert later["revision"] == shadow["revision"]
    assert later["updated_at"] > shadow["updated_at"]
    seen = serving.client.get(f"/v1/rollouts/{key}")
    assert seen.headers["etag"] == f'"{shadow["revision"]}"'
    path = f"/v1/rollouts/{key}"
    held = post(serving, f"{path}/hold", ORDER, if_match=seen.headers["etag"])
    assert (held.status_code, held.json()["revision"]) == (200, shadow["revision"] + 1)
    late = post(serving, f"{path}/resume", ORDER, if_match=seen.headers["etag"])
    assert (late.status_code, late.json()["code"]) == (412, "revision_changed")
    assert post(serving, f"{path}/resume", ORDER, if_match=f'"1", {held.headers["etag"]}').status_code == 200
    assert post(serving, f"{path}/approve", ORDER, if_match="*").json()["revision"] == shadow["revision"] + 3


def test_outline_is_what_the_whole_state_says(database_url: str) -> None:
    database = Database.open(database_url)
    state = engine.start("digits", 2, 1, Plan(), "salt")
    with database.writing() as connection:
        stored = rollouts.create(connection, state, 0, 1.0)
        (row,) = rollouts.page(connection)
    database.close()
    assert (row.id, row.status, row.outline["summary"]) == (
        stored.id,
        state.status,
        "digits/2 is pending, waiting for its start",
    )
