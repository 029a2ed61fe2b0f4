"""An open-loop schedule: requests leave at their time whether or not earlier ones were answered.

So a slow server is measured as slow: latency runs from the scheduled time, not from when a worker was free to send
(the coordinated omission problem, G. Tene). Half of the clients are sticky; each sends the label a moment later.
"""

import asyncio
import random
import time
from collections.abc import Mapping
from dataclasses import dataclass

import aiohttp
import numpy as np

from gateway.routes import DEFAULT_STICKY_HEADER
from loadtests.account import Account
from loadtests.errors import LoadError
from loadtests.rows import Rows
from loadtests.tensors import Body, binary_body, classes_in, json_body

LABEL_BATCH_S = 0.25
CLIENTS = 20_000


@dataclass(frozen=True, slots=True)
class Load:
    """What is sent: `rate` requests a second; shares are of the clients (sticky) and of the requests (binary)."""

    url: str
    model: str
    rate: float
    sticky_share: float = 0.5
    binary_share: float = 0.25
    timeout_s: float = 15.0
    seed: int = 0


@dataclass(frozen=True, slots=True)
class _Prepared:
    """A row as both kinds of body, and its truth."""

    as_json: Body
    as_binary: Body
    label: int | None


class Traffic:
    """Runs a load until it is stopped; `account` can be read meanwhile."""

    def __init__(self, load: Load, rows: Rows) -> None:
        self._load = load
        self._random = random.Random(load.seed)  # Which row, which client: no secret.
        self._prepared = [_prepare(rows, index) for index in range(len(rows.inputs))]
        self._labels: list[dict[str, object]] = []
        self._tasks: set[asyncio.Task[None]] = set()
        self._stopping = asyncio.Event()
        self.account = Account()

    async def run(self, seconds: float | None = None) -> Account:
        """Send for some seconds, or until `stop`; then wait for every answer and send the last labels."""
        connector = aiohttp.TCPConnector(limit=0)
        timeout = aiohttp.ClientTimeout(total=self._load.timeout_s)
        async with aiohttp.ClientSession(self._load.url, connector=connector, timeout=timeout) as session:
            labelling = asyncio.create_task(self._label_for_ever(session))
            await self._send_on_time(session, seconds)
            if self._tasks:
                await asyncio.wait(set(self._tasks))
            labelling.cancel()
            await self._send_labels(session)
        return self.account

    def stop(self) -> None:
        self._stopping.set()

    async def _send_on_time(self, session: aiohttp.ClientSession, seconds: float | None) -> None:
        began, sent = time.perf_counter(), 0
        while not self._stopping.is_set():
            now = time.perf_counter() - began
            if seconds is not None and now >= seconds:
                return
            while sent / self._load.rate <= now:
                task = asyncio.create_task(self._one(session, began + sent / self._load.rate))
                self._tasks.add(task)
                task.add_done_callback(self._tasks.discard)
                sent += 1
            await asyncio.sleep(max(0.0, sent / self._load.rate - (time.perf_counter() - began)))

    async def _one(self, session: aiohttp.ClientSession, due: float) -> None:
        row = self._random.choice(self._prepared)
        body = row.as_binary if self._random.random() < self._load.binary_share else row.as_json
        client = self._random.randrange(CLIENTS)
        headers = dict(body.headers)
        if client < CLIENTS * self._load.sticky_share:
            headers[DEFAULT_STICKY_HEADER] = f"client-{client}"
        self.account.note_sent()
        try:
            path = f"/v2/models/{self._load.model}/infer"
            async with session.post(path, data=body.data, headers=headers) as answer:
                data = await answer.read()
        except (aiohttp.ClientError, TimeoutError, OSError) as exc:
            self.account.note_failed(type(exc).__name__)
            return
        release = answer.headers.get("x-sluice-release", "direct")
        if answer.status != 200:
            self.account.note_failed(f"{answer.status} {data[:120].decode('latin-1')}", release)
            return
        self._answered(row, release, answer.headers, data, (time.perf_counter() - due) * 1e3)

    def _answered(self, row: _Prepared, release: str, headers: Mapping[str, str], data: bytes, ms: float) -> None:
        try:
            classes = classes_in(data)
        except ValueError:
            self.account.note_failed("an answer that is not one", release)
            return
        is_right = classes[0] == row.label if classes and row.label is not None else None
        self.account.note_answered(release, ms, "x-sluice-fallback" in headers, is_right)
        request_id = headers.get("x-request-id")
        if row.label is not None and request_id is not None:
            self._labels.append({"request_id": request_id, "model": self._load.model, "label": row.label})

    async def _label_for_ever(self, session: aiohttp.ClientSession) -> None:
        while True:
            await asyncio.sleep(LABEL_BATCH_S)
            await self._send_labels(session)

    async def _send_labels(self, session: aiohttp.ClientSession) -> None:
        labels, self._labels = self._labels, []
        if not labels:
            return
        try:
            async with session.post("/v1/feedback", json={"labels": labels}) as answer:
                is_taken = answer.status == 202
        except (aiohttp.ClientError, TimeoutError, OSError):
            is_taken = False
        self.account.labels_sent += len(labels)
        self.account.labels_failed += 0 if is_taken else len(labels)


def _prepare(rows: Rows, index: int) -> _Prepared:
    row = np.ascontiguousarray(rows.inputs[index : index + 1])
    label = None if rows.labels is None else int(rows.labels[index])
    return _Prepared(json_body(rows.name, row), binary_body(rows.name, row), label)


async def metadata_of(url: str, model: str) -> dict[str, object]:
    """A model's metadata. Raises LoadError when there is no such gateway or model."""
    try:
        async with (
            aiohttp.ClientSession(url, timeout=aiohttp.ClientTimeout(total=5.0)) as session,
            session.get(f"/v2/models/{model}") as answer,
        ):
            data: dict[str, object] = await answer.json(content_type=None)
    except (aiohttp.ClientError, TimeoutError, OSError, ValueError) as exc:
        raise LoadError(f"no gateway answers at {url} ({exc}): start one with `sluice up`, or give --host") from exc
    if answer.status != 200:
        raise LoadError(f"{url} has no model {model!r}: {data.get('error', answer.status)}")
    return data
