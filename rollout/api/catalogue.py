"""What there is: releases, routes, pools, gateways, health."""

import os
import time
from collections import Counter
from typing import Annotated, Any

from fastapi import APIRouter, Path, Query
from fastapi.responses import JSONResponse

from exporter.release import releases as releases_in
from gateway.windows import Role
from rollout.api.catalogue_shapes import Gateway, Health, Pool, Release, Table, Traffic
from rollout.api.context import Given
from rollout.api.refusals import documented
from rollout.api.rollout_shapes import MODEL_NAME
from rollout.errors import Code, NotFoundError
from rollout.store import observations

router = APIRouter(prefix="/v1", tags=["catalogue"])

RECENT_S = 3600.0
"""Windows that are missing are told of for so long after the gateway's life was heard of last."""
TRAFFIC_S = 300.0
"""Today's traffic is that of the last five minutes."""


@router.get("/releases", response_model=list[Release], responses=documented())
def releases(
    context: Given, model: Annotated[str | None, Query(pattern=MODEL_NAME, examples=["digits"])] = None
) -> list[dict[str, Any]]:
    """The releases of the repository, and what each does now."""
    routes = context.routing.table.routes
    shown = []
    for release in releases_in(context.repository, model):
        route = routes.get(release.model)
        doing = "" if route is None else "stable" if route.stable == release.number else ""
        if route is not None and route.candidate and route.candidate.release == release.number:
            doing = f"candidate {route.candidate.weight:.0%}"
        elif route is not None and route.shadow and route.shadow.release == release.number:
            doing = "shadow"
        shown.append(
            {
                "name": release.name, "model": release.model, "number": release.number, "run": release.run,
                "created_at": release.created_at, "metrics": dict(release.metrics), "doing": doing,
            }
        )  # fmt: skip
    return shown


@router.get("/routes", response_model=None, responses={200: {"model": Table}, **documented()})
def routes(context: Given) -> JSONResponse:
    """The route table in force."""
    return JSONResponse(context.routing.table.to_json())


@router.get("/models/{model}/traffic", response_model=Traffic, responses=documented(Code.NOT_FOUND))
def traffic(model: Annotated[str, Path(pattern=MODEL_NAME, examples=["digits"])], context: Given) -> dict[str, Any]:
    """What stable answered in the last minutes: requests/s of the model, the share that fails, latencies by bucket."""
    route = context.routing.table.routes.get(model)
    if route is None:
        raise NotFoundError(f"no model {model!r} is served", "`sluice releases` lists them")
    with context.leadership.reading() as connection:
        windows = observations.windows_since(connection, model, time.time() - TRAFFIC_S)
    answered = [one for one in windows if one.role is Role.ANSWERED]
    stables = [one for one in answered if one.release == route.stable]
    histogram: Counter[int] = Counter()
    for one in stables:
        histogram.update(one.histogram)
    ok, failed = sum(one.ok for one in stables), sum(one.charged for one in stables)
    since = min((one.started_at for one in answered), default=0.0)
    seconds = min(TRAFFIC_S, max(1.0, time.time() - since))
    return {
        "seconds": seconds,
        "rate": sum(one.ok + one.charged for one in answered) / seconds,
        "failing": failed / (ok + failed) if ok + failed else 0.0,
        "latency": [[bucket, count / histogram.total()] for bucket, count in sorted(histogram.items())],
    }


@router.get("/pools", response_model=list[Pool], responses=documented())
def pools(context: Given) -> list[dict[str, Any]]:
    """The servers that serve a release."""
    return [pool.to_json() for pool in context.serving.pools()]


@router.get("/gateways", response_model=dict[str, Gateway], responses=documented())
def gateways(context: Given) -> dict[str, Any]:
    """The gateways heard of lately: the table each applied, what it has in flight, windows of it that never came."""
    with context.leadership.reading() as connection:
        missing: Counter[str] = Counter()
        for gap in observations.gaps(connection):
            missing[gap.gateway] += gap.missing
    return {
        name: {
            "applied_version": beat.applied_version, "in_flight": dict(beat.in_flight), "refused": beat.refused,
            "missing_windows": missing[name],
        }
        for name, beat in context.routing.gateways.items()
    }  # fmt: skip


@router.get("/health", response_model=Health, responses=documented())
def health(context: Given) -> dict[str, Any]:
    """That it lives, whether it leads, and what is wrong, in words."""
    dead = set(context.serving.dead())
    living = {(one.model, one.release) for one in context.serving.pools()} - dead
    stables = {(route.model, route.stable) for route in context.routing.table.routes.values()}
    leads = context.leadership.term is not None
    missing = [f"{model}/{release}" for model, release in sorted(stables - living)] if leads else []
    wrong = [f"{name} has no living server" for name in missing]
    wrong += [f"{model}/{release} fails: {words}" for (model, release), words in context.controller.failing().items()]
    with context.leadership.reading() as connection:
        wrong += [
            f"{gap.missing} windows of the gateway {gap.gateway} never came"
            for gap in observations.gaps(connection, time.time() - RECENT_S)
        ]
    return {
        "status": "degraded" if wrong else "ok",
        "pid": os.getpid(),
        "leads": leads,
        "leader": context.leadership.leader,
        "route_table": context.routing.table.version,
        "missing": missing,
        "wrong": wrong,
    }
