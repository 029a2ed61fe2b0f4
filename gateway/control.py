"""The gateway's line to the control plane: routes by long poll, reports every second, at least once.

The gateway needs the control plane to change, never to serve: while it is away the last table stays and reports wait
in a bounded backlog, from which samples are dropped first. Of several control planes only the leader takes reports: who
does not, or does not answer, is left for the next.
"""

import asyncio
import contextlib
import json
import logging
from collections import deque
from collections.abc import Awaitable, Callable, Mapping
from typing import Any

import httpx

from gateway.aside import SMALL_BYTES, aside
from gateway.reading import TableReader
from gateway.routes import RouteTable, RouteTableError

LONG_POLL_S = 25.0
RETRY_S = 0.5
REPORT_TIMEOUT_S = 5.0
KEPT_WITH_SAMPLES = 30
"""Reports beyond the newest this many lose their samples: windows and labels matter more."""
LABELS_MOST = 100_000
"""Labels that may wait in the backlog before clients are asked to send theirs later."""
_JSON = {"content-type": "application/json"}

log = logging.getLogger("sluice.gateway")


class ControlLink:
    """Carries tables in and reports out until cancelled."""

    def __init__(self, urls: str, gateway: str, backlog: int, apply: Callable[[RouteTable], Awaitable[None]]) -> None:
        """`urls` are those of all control planes, with commas between."""
        self._urls = deque(url.rstrip("/") for url in urls.split(","))
        """The one that is asked first."""
        self._poll: asyncio.Task[httpx.Response] | None = None
        self._gateway = gateway
        self._apply = apply
        self._backlog_most = backlog
        self._backlog: deque[dict[str, Any]] = deque()
        self._new = asyncio.Event()
        self._reader = TableReader()
        self.is_reached = False
        self.dropped_reports = 0
        self.refused = ""
        """Why the newest route table offered was not applied; empty when it was."""

    @property
    def has_backlog(self) -> bool:
        return bool(self._backlog)

    @property
    def takes_labels(self) -> bool:
        """Is there room for labels? They are kept once they were taken, so they must be refused before."""
        return sum(len(report["labels"]) for report in self._backlog) < LABELS_MOST

    def report(self, report: dict[str, Any]) -> None:
        """Queue a report; when too many wait, the oldest is dropped."""
        self._backlog.append(report)
        if len(self._backlog) > KEPT_WITH_SAMPLES:
            self._backlog[-KEPT_WITH_SAMPLES - 1]["samples"] = []
        if len(self._backlog) > self._backlog_most:
            self._backlog.popleft()
            self.dropped_reports += 1
        self._new.set()

    def to_json(self) -> dict[str, Any]:
        """What is to be handed over to a new supervisor."""
        return {"backlog": list(self._backlog), "dropped": self.dropped_reports, "refused": self.refused}

    def restore(self, data: Mapping[str, Any]) -> None:
        self._backlog.extend(data["backlog"])
        self.dropped_reports, self.refused = data["dropped"], data["refused"]
        self._new.set()

    async def run(self, version: int) -> None:
        """Fetch tables newer than `version` and send reports, for ever."""
        client = httpx.AsyncClient(timeout=LONG_POLL_S + 10, trust_env=False)
        async with client, asyncio.TaskGroup() as group:
            group.create_task(self._fetch(client, version))
            group.create_task(self._send(client))

    async def _fetch(self, client: httpx.AsyncClient, version: int) -> None:
        while True:
            url = self._urls[0]
            try:
                answer = await self._polled(client, url, version)
                if answer is None:
                    continue
                answer.raise_for_status()
                self._reached(True)
                if answer.status_code == 200:
                    table = await aside(len(answer.content) < SMALL_BYTES, self._reader.read, answer.content)
                    if table.version <= version:
                        raise RouteTableError(f"it is version {table.version}, and {version} is in force")
                    await self._apply(table)
                    version, self.refused = table.version, ""
            except RouteTableError as exc:
                self.refused = str(exc)
                log.error("the new route table was refused and the old one stays: %s", exc)
                await asyncio.sleep(RETRY_S)
            except (httpx.HTTPError, ValueError):
                self._reached(False)
                self._leave(url)
                await asyncio.sleep(RETRY_S)
            except Exception:
                log.exception("fetching routes failed; it goes on")
                await asyncio.sleep(RETRY_S)

    async def _polled(self, client: httpx.AsyncClient, url: str, version: int) -> httpx.Response | None:
        """The answer; None when the control plane was left meanwhile."""
        params: dict[str, str | int] = {"after": version, "gateway": self._gateway}
        self._poll = asyncio.create_task(client.get(f"{url}/v1/gateway/routes", params=params))
        try:
            await asyncio.wait({self._poll})
            return None if self._poll.cancelled() else self._poll.result()
        finally:
            self._poll.cancel()

    def _leave(self, url: str) -> None:
        """This control plane does not lead, or does not answer: ask the next one, unless that was done already."""
        if url == self._urls[0] and len(self._urls) > 1:
            self._urls.rotate(-1)
            if self._poll is not None:
                self._poll.cancel()

    async def _send(self, client: httpx.AsyncClient) -> None:
        while True:
            await self._new.wait()
            self._new.clear()
            while self._backlog:
                report = self._backlog[0]
                if not await self._post(client, report):
                    await asyncio.sleep(RETRY_S)
                    continue
                with contextlib.suppress(ValueError):
                    self._backlog.remove(report)

    async def _post(self, client: httpx.AsyncClient, report: dict[str, Any]) -> bool:
        """Send one report. True when it need not be sent again."""
        url, content = self._urls[0], json.dumps(report).encode()
        try:
            address = f"{url}/v1/gateway/reports"
            answer = await client.post(address, content=content, headers=_JSON, timeout=REPORT_TIMEOUT_S)
        except httpx.HTTPError:
            self._reached(False)
            self._leave(url)
            return False
        if 400 <= answer.status_code < 500 and answer.status_code not in (408, 429):
            log.error("the control plane refused a report: %s", answer.text[:300])
            return True
        if not answer.is_success:
            self._leave(url)
        return answer.is_success

    def _reached(self, is_reached: bool) -> None:
        if is_reached != self.is_reached:
            log.info(
                "control plane %s", "reached" if is_reached else "not reached; serving on with the last route table"
            )
        self.is_reached = is_reached
