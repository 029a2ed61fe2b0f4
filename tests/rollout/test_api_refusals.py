"""Every answer that is not a success has one form, names what to do next, and is found in the log."""

import io
import json
import logging
from pathlib import Path
from typing import Any

import httpx
import pytest

from rollout.api.app import build
from rollout.api.refusals import HINTS, STATUSES
from rollout.api.request_ids import RequestIds
from rollout.api.requests import BODY_MOST
from rollout.client import ClientError, ControlClient
from rollout.config import ControlSettings
from rollout.errors import Code, ControlError
from rollout.pools.fake import FakeHost
from tests.rollout.conftest import Plane, running_app


@pytest.fixture
def database_url(tmp_path: Path) -> str:
    """One kind of database is enough here."""
    return f"sqlite:///{tmp_path / 'control.db'}"


def told(answer: httpx.Response) -> dict[str, Any]:
    """The error of an answer, whose form is checked."""
    found: dict[str, Any] = answer.json()
    assert found.keys() == {"code", "message", "hint", "request_id"}
    assert all(found.values()), found
    assert found["request_id"] == answer.headers["x-request-id"]
    assert answer.status_code == STATUSES[Code(found["code"])] or (answer.status_code, found["code"]) == (
        400,
        "invalid",
    )
    return found


@pytest.mark.parametrize(
    ("method", "path", "content", "status", "code"),
    [
        ("GET", "/nothing", b"", 404, "not_found"),
        ("GET", "/v1/rollouts/", b"", 404, "not_found"),
        ("GET", "/v1/rollouts/7", b"", 404, "not_found"),
        ("GET", "/v1/models/digits/traffic", b"", 404, "not_found"),
        ("GET", "/v1/rollouts/seven", b"", 422, "invalid"),
        ("GET", "/v1/rollouts/99999999999999999999", b"", 422, "invalid"),
        ("GET", "/v1/rollouts?limit=0", b"", 422, "invalid"),
        ("GET", "/v1/rollouts?model=%00", b"", 422, "invalid"),
        ("DELETE", "/v1/rollouts", b"", 405, "method_not_allowed"),
        ("POST", "/v1/rollouts", b"{", 422, "invalid"),
        ("POST", "/v1/rollouts", b"\xff\xfe\xfa", 400, "invalid"),
        ("POST", "/v1/rollouts", b"[" * 100_000, 400, "invalid"),
        ("POST", "/v1/rollouts", b'{"model": "digits", "release": 9, "by": "ada"}', 404, "not_found"),
        ("POST", "/v1/rollouts", b'{"model": "digits", "release": true, "by": "ada"}', 422, "invalid"),
        ("POST", "/v1/rollouts", b'{"model": "digits", "release": 1, "by": "\\ud800"}', 422, "invalid"),
        ("POST", "/v1/rollouts", b'{"model": "digits", "release": 1, "by": "a\\u0000"}', 422, "invalid"),
        (
            "POST",
            "/v1/rollouts",
            b'{"model": "digits", "release": 1, "by": "a", "plan": {"\\ud800": 1}}',
            422,
            "refused",
        ),
        ("POST", "/v1/rollouts", b" " * (BODY_MOST + 1), 413, "too_large"),
        ("POST", "/v1/gateway/reports", b'{"gateway": 3}', 422, "invalid"),
        ("GET", "/v1/gateway/routes?timeout_s=nan", b"", 422, "invalid"),
    ],
)
def test_refusals_have_one_form(plane: Plane, method: str, path: str, content: bytes, status: int, code: str) -> None:
    answer = plane.client.request(method, path, content=content, headers={"content-type": "application/json"})
    assert (answer.status_code, told(answer)["code"]) == (status, code)


def test_body_without_an_announced_length_is_bounded_too(plane: Plane) -> None:
    chunks = (b" " * 65536 for _ in range(BODY_MOST // 65536 + 1))
    answer = plane.client.post("/v1/rollouts", content=chunks, headers={"content-type": "application/json"})
    assert told(answer)["code"] == "too_large"


def test_methods_that_a_path_takes_are_named(plane: Plane) -> None:
    assert plane.client.put("/v1/rollouts").headers["allow"] == "GET, POST"
    assert plane.client.put("/v1/rollouts/3/hold").headers["allow"] == "POST"


@pytest.mark.parametrize(
    ("given", "is_taken"),
    [("req-1", True), ("a" * 128, True), ("a" * 129, False), ("two words", False), ("", False), ("é", False)],
)
def test_request_id_is_the_clients_if_it_can_stand_anywhere(plane: Plane, given: str, is_taken: bool) -> None:
    for path in ("/v1/health", "/nothing"):
        answer = plane.client.get(path, headers={"x-request-id": given.encode()})
        assert (answer.headers["x-request-id"] == given) is is_taken
        assert answer.headers["x-request-id"]


def test_every_code_has_a_hint_and_a_status() -> None:
    assert set(HINTS) == set(STATUSES) == set(Code)
    for error in _errors(ControlError):
        assert STATUSES[error.code] == error.status, error


def _errors(error: type[ControlError]) -> list[type[ControlError]]:
    return [error, *(found for one in error.__subclasses__() for found in _errors(one))]


def test_what_nobody_expected_is_logged_and_not_told(
    settings: ControlSettings, repository: Path, tmp_path: Path
) -> None:
    host = FakeHost(tmp_path)
    app = build(settings, host)

    @app.get("/v1/broken")
    def broken() -> None:
        raise RuntimeError("the secret of the house")

    written = io.StringIO()
    handler = logging.StreamHandler(written)
    handler.addFilter(RequestIds())
    handler.setFormatter(logging.Formatter("[%(request_id)s] %(message)s"))
    logging.getLogger("sluice.control").addHandler(handler)
    try:
        with running_app(app) as client:
            answer = client.get("/v1/broken", headers={"x-request-id": "req-1"})
    finally:
        logging.getLogger("sluice.control").removeHandler(handler)
    host.close()
    assert (answer.status_code, told(answer)["code"]) == (500, "internal")
    assert "secret" not in answer.text
    assert "[req-1] GET /v1/broken failed" in written.getvalue()
    assert "the secret of the house" in written.getvalue()


def test_client_tells_code_hint_and_request_id(plane: Plane) -> None:
    with ControlClient(str(plane.client.base_url)) as client:
        with pytest.raises(ClientError, match="no release digits/9") as refused:
            client.begin("digits", 9, {}, "ada")
        begun = client.begin("digits", 1, {}, "ada")
        plane.wait(begun["id"], lambda found: bool(found["is_settled"]))
        with pytest.raises(ClientError, match="is promoted") as late:
            client.order(begun["id"], "abort", "ada", expect_stage=begun["stages"] + 1)
        assert [one["what"] for one in client.history(begun["id"])] == ["asked", "warming", "promoted"]
        assert [one["id"] for one in client.rollouts("digits")] == [begun["id"]]
    assert (refused.value.status, refused.value.code) == (404, "not_found")
    assert "sluice releases" in refused.value.hint
    assert refused.value.request_id
    assert late.value.code in ("conflict", "stage_changed")


def test_description_has_examples_and_errors_of_the_one_form(plane: Plane) -> None:
    api = plane.client.get("/openapi.json").json()
    for path, operations in api["paths"].items():
        for method, operation in operations.items():
            assert operation["description"], path
            for status, answer in operation["responses"].items():
                if int(status) >= 400:
                    form = answer["content"]["application/json"]["schema"]["$ref"]
                    assert form.endswith("/Refusal"), (method, path, status)
    assert all("examples" in api["components"]["schemas"][name] for name in ("Begin", "Order", "Refusal", "RolloutRow"))
    assert "HTTPValidationError" not in json.dumps(api)
