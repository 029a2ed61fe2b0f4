"""Gateways: routes by long poll, reports at least once."""

import logging
import time
from collections.abc import Callable, Iterable
from typing import Annotated, Any, TypeVar

from fastapi import APIRouter, Query, Response
from fastapi.responses import JSONResponse
from pydantic import BaseModel, ConfigDict, Field

from exporter.release import ReleaseError, read_release, release_folder
from gateway.samples import Label, Sample
from gateway.windows import Window
from rollout.api.catalogue_shapes import Kept, Table
from rollout.api.context import Context, Given
from rollout.api.refusals import documented, documented_change
from rollout.api.rollout_shapes import WORDS
from rollout.errors import Code, NotLeaderError
from rollout.observing import is_sound
from rollout.quality import prediction_of
from rollout.routing import Heartbeat
from rollout.store import observations

LONG_POLL_S = 25.0

log = logging.getLogger("sluice.control")
router = APIRouter(prefix="/v1/gateway", tags=["gateways"])
T = TypeVar("T")


class Report(BaseModel):
    """What a gateway says every second; the entries are read by the contracts' own readers."""

    model_config = ConfigDict(
        strict=True,
        json_schema_extra={
            "examples": [
                {
                    "gateway": "gateway-1", "boot": "5f0c954b", "sequence": 7, "applied_version": 1796000361,
                    "in_flight": {"digits/1": 3}, "windows": [], "samples": [], "labels": [],
                }
            ]
        }
    )  # fmt: skip

    gateway: str = Field(min_length=1, max_length=128, pattern=WORDS)
    boot: str = Field(min_length=1, max_length=64, pattern=WORDS)
    sequence: int = Field(ge=0)
    applied_version: int
    in_flight: dict[str, int] = {}
    refused: str = ""
    windows: list[dict[str, Any]] = []
    samples: list[dict[str, Any]] = []
    labels: list[dict[str, Any]] = []


@router.get(
    "/routes", response_model=None,
    responses={
        200: {"model": Table}, 204: {"description": "There is none within the time."}, **documented(Code.NOT_LEADER),
    },
)  # fmt: skip
async def routes(
    context: Given,
    after: Annotated[int, Query(description="The version that is in force.")] = -1,
    timeout_s: Annotated[float, Query(ge=0, le=3600, description="How long to wait, 25 s at most.")] = LONG_POLL_S,
) -> Response:
    """The route table as soon as it is newer than `after`; 204 when it is not within the time.

    Only the leader answers: it must know which tables its gateways have.
    """
    if context.leadership.term is None:
        raise NotLeaderError(context.leadership.leader)
    table = await context.routing.wait_after(after, min(timeout_s, LONG_POLL_S))
    return Response(status_code=204) if table is None else JSONResponse(table.to_json())


@router.post("/reports", response_model=Kept, responses=documented_change())
def report(report: Report, context: Given) -> dict[str, int]:
    """Keep a report's windows, samples and labels, each once; entries that cannot be true are left out and logged."""
    windows = [one for one in _sound(Window.from_json, report.windows, report) if is_sound(one)]
    samples = _sound(Sample.from_json, report.samples, report)
    labels = _sound(Label.from_json, report.labels, report)
    outputs = {model: _prediction_output(context, model) for model in {sample.model for sample in samples}}
    predictions = [one for sample in samples if (one := prediction_of(sample, outputs[sample.model]))]
    now = time.time()
    with context.leadership.writing() as connection:
        kept = observations.keep_windows(connection, windows, now)
        observations.keep_predictions(connection, predictions)
        observations.keep_labels(connection, labels, now)
    watched = context.controller.watched
    watched.windows.inc(kept)
    for window in windows[-1:]:
        watched.lag.observe(max(0.0, now - window.started_at - window.length_s))
    if report.refused:
        log.error("gateway %s refused a route table: %s", report.gateway, report.refused)
    beat = Heartbeat(time.monotonic(), report.applied_version, report.in_flight, report.refused)
    context.routing.heard(report.gateway, beat)
    return {"windows": kept, "predictions": len(predictions), "labels": len(labels)}


def _sound(read: Callable[[Any], T], entries: Iterable[dict[str, Any]], report: Report) -> list[T]:
    kept: list[T] = []
    for entry in entries:
        try:
            kept.append(read(entry))
        except ValueError as exc:
            log.error("gateway %s reported what cannot be true: %s", report.gateway, exc)
    return kept


def _prediction_output(context: Context, model: str) -> str:
    """The output that is compared with labels, as stable's manifest names it."""
    route = context.routing.table.routes.get(model)
    try:
        return "" if route is None else read_release(release_folder(context.repository, model, route.stable)).prediction
    except ReleaseError:
        return ""
