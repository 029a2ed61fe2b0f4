"""Locust users that speak the inference protocol, for any gateway or Triton.

    locust -f loadtests/users.py --host http://127.0.0.1:8000              with Locust's own page
    make load HOST=http://127.0.0.1:8000 USERS=50 SECONDS=60               headless

Settings by environment: SLUICE_MODEL (digits), SLUICE_ROWS (an .npz file). Requests are booked by the release that
answered; at the end the books must balance, or the exit code is 1.
"""

import functools
import json
import os
import random
from collections.abc import Mapping
from pathlib import Path
from typing import Any, cast

import gevent
import httpx
import numpy as np
from locust import FastHttpUser, between, events, tag, task
from locust.exception import StopUser

from gateway.routes import DEFAULT_STICKY_HEADER
from loadtests.account import Account
from loadtests.errors import LoadError
from loadtests.rows import Rows, rows_for
from loadtests.tensors import Body, binary_body, classes_in, json_body

MODEL = os.environ.get("SLUICE_MODEL", "digits")
LABEL_DELAY_S = (0.2, 1.0)
STOP_TIMEOUT_S = 20.0

books = Account()
"""Of this process; with several Locust workers each prints its own."""


@functools.cache
def rows_once(metadata: str) -> Rows:
    """The rows for a model's metadata (JSON), read once for all users. Raises StopUser when they cannot be had."""
    path = os.environ.get("SLUICE_ROWS")
    try:
        return rows_for(MODEL, json.loads(metadata), Path(path) if path else None)
    except LoadError as exc:
        raise StopUser(str(exc)) from exc


class InferenceUser(FastHttpUser):
    """What all users share: rows of the model, inference, and the label sent back a moment later."""

    abstract = True
    wait_time = between(0.02, 0.1)
    rows: Rows

    def on_start(self) -> None:
        answer = self.client.get(f"/v2/models/{MODEL}", name="metadata")
        if answer.status_code != 200:
            raise StopUser(f"{self.host} does not serve {MODEL!r}: {answer.text}")
        self.rows = rows_once(json.dumps(answer.json()))
        self.client_headers: dict[str, str] = {}

    def infer(self, kind: str, body: Body, truth: int | None) -> None:
        """Send one request and book it, also when Locust ends this user while it waits for the answer."""
        books.note_sent()
        try:
            self._send(kind, body, truth)
        except gevent.GreenletExit:
            books.note_withdrawn()
            raise

    def _send(self, kind: str, body: Body, truth: int | None) -> None:
        headers = {**body.headers, **self.client_headers}
        path, data = f"/v2/models/{MODEL}/infer", cast(Any, body.data)  # Locust's annotation knows text only.
        with self.client.post(path, data=data, headers=headers, name=f"infer {kind}", catch_response=True) as answer:
            release = (answer.headers or {}).get("x-sluice-release", "direct")
            if answer.status_code != 200:
                books.note_failed(f"{answer.status_code} {answer.text[:80] if answer.text else answer.error}", release)
                answer.failure(f"status {answer.status_code}")
                return
            latency_ms = answer.request_meta["response_time"] or 0.0
            try:
                self._book(answer.content or b"", answer.headers, release, latency_ms, truth)
            except ValueError as exc:
                books.note_failed("an answer that is not one", release)
                answer.failure(str(exc))

    def _book(
        self, data: bytes, headers: Mapping[str, str], release: str, latency_ms: float, truth: int | None
    ) -> None:
        classes = classes_in(data)
        is_right = classes[0] == truth if classes and truth is not None else None
        books.note_answered(release, latency_ms, "x-sluice-fallback" in headers, is_right)
        request_id = headers.get("x-request-id")
        if truth is not None and request_id is not None:
            gevent.spawn_later(random.uniform(*LABEL_DELAY_S), self.send_label, request_id, truth)

    def send_label(self, request_id: str, truth: int) -> None:
        answer = self.client.post(
            "/v1/feedback", json={"request_id": request_id, "model": MODEL, "label": truth}, name="feedback"
        )
        books.labels_sent += 1
        books.labels_failed += answer.status_code != 202

    def any_row(self) -> tuple[Any, int | None]:
        """One row [1, *dims] and its truth."""
        index = random.randrange(len(self.rows.inputs))
        truth = None if self.rows.labels is None else int(self.rows.labels[index])
        return np.ascontiguousarray(self.rows.inputs[index : index + 1]), truth

    @tag("json")
    @task(3)
    def infer_json(self) -> None:
        row, truth = self.any_row()
        self.infer("json", json_body(self.rows.name, row), truth)

    @tag("binary")
    @task(1)
    def infer_binary(self) -> None:
        row, truth = self.any_row()
        self.infer("binary", binary_body(self.rows.name, row), truth)


class AnonymousUser(InferenceUser):
    """Each request is assigned afresh."""

    weight = 1


class StickyUser(InferenceUser):
    """Names itself, so that it keeps its release as long as the weight does not pass it."""

    weight = 1

    def on_start(self) -> None:
        super().on_start()
        self.client_headers = {DEFAULT_STICKY_HEADER: f"user-{random.getrandbits(48):x}"}


def prepare(environment: Any, **_: Any) -> None:
    """Let users finish the request that they have sent, and read the rows before the load's time begins to run."""
    environment.stop_timeout = environment.stop_timeout or STOP_TIMEOUT_S
    if environment.host:
        try:
            metadata = httpx.get(f"{environment.host}/v2/models/{MODEL}", timeout=5.0, trust_env=False)
            rows_once(json.dumps(metadata.raise_for_status().json()))
        except (httpx.HTTPError, ValueError, StopUser) as exc:
            raise SystemExit(
                f"error: {environment.host} does not serve {MODEL!r} ({exc}): start `sluice up` and a rollout, or set"
                " SLUICE_MODEL, and SLUICE_ROWS to an .npz file"
            ) from exc


def close_books(environment: Any, **_: Any) -> None:
    """Print who answered what, and fail the run when a request failed or is not accounted for."""
    from rich.console import Console

    from loadtests.cli import table_of

    Console().print(table_of(books))
    if books.sent and (books.failed or not books.is_balanced):
        environment.process_exit_code = 1


events.init.add_listener(prepare)  # type: ignore[no-untyped-call]
events.quitting.add_listener(close_books)  # type: ignore[no-untyped-call]
