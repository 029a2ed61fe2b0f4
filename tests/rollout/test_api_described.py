"""The API against its own description: whatever is sent, every answer is one that the description tells of."""

import re
from collections import defaultdict
from pathlib import Path
from typing import Any

import pytest
import schemathesis
from schemathesis.config import SchemathesisConfig
from schemathesis.engine import events, from_schema

from rollout.api.app import build
from rollout.api.rollout_shapes import LARGEST, MODEL_NAME
from rollout.config import ControlSettings
from rollout.pools.fake import FakeHost
from tests.rollout.conftest import Plane, quick, running_app

CONFIG = {
    "seed": 1,
    "max-time": 25,
    "workers": 1,  # Several threads hit https://github.com/python/cpython/issues/106905.
    "continue-on-failure": True,
    # A plan, a cursor or an order may be well formed and yet be refused.
    "checks": {"positive_data_acceptance": {"expected-statuses": ["2xx", "404", "409", "412", "422"]}},
    "generation": {"max-examples": 3, "no-shrink": True, "database": "none"},
    "phases": {"stateful": {"enabled": False}, "coverage": {"unexpected-methods": ["patch", "options"]}},
}


@pytest.fixture
def database_url(tmp_path: Path) -> str:
    """One kind of database is enough here."""
    return f"sqlite:///{tmp_path / 'control.db'}"


def test_every_answer_is_described(settings: ControlSettings, repository: Path, tmp_path: Path) -> None:
    """Examples, the bounds of every value and random requests, to a control plane with a rollout under way."""
    host = FakeHost(tmp_path)
    app = build(settings, host)
    with running_app(app) as client:
        plane = Plane(client, host, settings)
        plane.wait(plane.begin(1).json()["id"], lambda found: bool(found["is_settled"]))
        plane.begin(2, quick())
        app.state.context.feed.stop()  # So that streams of events end at once.
        api = schemathesis.openapi.from_url(
            f"{client.base_url}/openapi.json", config=SchemathesisConfig.from_dict(CONFIG)
        )
        schemathesis.hook("before_call")(aim)
        try:
            faults, statuses = _tried(api)
        finally:
            schemathesis.hooks.unregister(aim)
    host.close()
    assert faults == [], "\n".join(faults)
    assert statuses.keys() == {operation.ok().label for operation in api.get_all_operations()}
    assert all(seen & {200, 201, 409} for seen in statuses.values()), statuses
    assert {200, 201, 404, 405, 409, 422} <= set().union(*statuses.values())


def aim(_context: Any, case: Any, _kwargs: Any) -> None:
    """Let what is well formed meet a rollout and a release that are there, and let nobody wait long for a table."""
    key, body = case.path_parameters.get("key"), case.body
    if type(key) is int and 1 <= key <= LARGEST:
        case.path_parameters["key"] = 1 + key % 3
    if isinstance(body, dict) and re.match(MODEL_NAME, str(body.get("model"))) and type(body.get("release")) is int:
        body.update(model="digits", release=1 + body["release"] % 4)
    if case.path == "/v1/models/{model}/traffic" and re.match(MODEL_NAME, str(case.path_parameters.get("model"))):
        case.path_parameters["model"] = "digits"
    if case.path == "/v1/gateway/routes" and not isinstance(case.query.get("timeout_s"), str):
        case.query["timeout_s"] = 0.01


def _is_only_more(failure: str) -> bool:
    """Query parameters that nobody knows are passed over, as everywhere on the web."""
    wrong = re.findall(r"^ *- (.*violates.*)$", failure, re.M)
    return bool(wrong) and all(one.startswith("query: violates `additionalProperties`") for one in wrong)


def _tried(api: Any) -> tuple[list[str], dict[str, set[int]]]:
    """What was found wrong, and which statuses each operation answered with."""
    faults, statuses = [], defaultdict(set)
    for event in from_schema(api).execute():
        if isinstance(event, events.NonFatalError):
            faults.append(f"{event.label}: {event.value!r}")
        elif isinstance(event, events.FatalError):
            faults.append(repr(event.exception))
        elif isinstance(event, events.ScenarioFinished):
            for key, checks in event.recorder.checks.items():
                request = event.recorder.interactions[key].request
                faults += [
                    f"{request.method} {request.uri} {request.body!r}: {check.failure_info.failure}"
                    for check in checks
                    if check.failure_info is not None and not _is_only_more(str(check.failure_info.failure))
                ]
            for interaction in event.recorder.interactions.values():
                if interaction.response is not None:
                    statuses[event.recorder.label].add(interaction.response.status_code)
    return faults, statuses
