"""The application: database, pools, controller and routers put together, started and stopped with the server."""

import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import uvicorn
from fastapi import FastAPI

from rollout.api import catalogue, gateways, history, metrics, rollouts
from rollout.api.context import Context
from rollout.api.feed import Feed
from rollout.api.refusals import refuse_in_one_form
from rollout.api.request_ids import RequestIds
from rollout.api.requests import Requests
from rollout.api.server import ControlServer
from rollout.config import ControlSettings
from rollout.controller import Controller
from rollout.leading import Leadership
from rollout.pools.seam import PoolHost
from rollout.routing import Routing
from rollout.serving import Serving
from rollout.store.database import Database

DESCRIPTION = """\
Puts releases of models on live traffic by degrees.

* Every answer that is not a success is a `Refusal`: a `code` for programs, a `message` and a `hint` for people, and the
  `request_id` (send your own as `x-request-id`).
* Every change has an author and a reason. With an `Idempotency-Key` it may be sent again; with `If-Match`,
  `expect_stage` or `expect_phase` it is only made while the rollout is as you saw it.
* Lists come by pages: give `next` of one page as `cursor` of the following.
* Times are seconds since the epoch. Pass over fields that you do not know.
"""


def build(settings: ControlSettings, host: PoolHost[Any]) -> FastAPI:
    """The control plane on `host`'s pools. Raises DatabaseError when its database cannot be used."""
    database = Database.open(settings.database_url)
    leadership = Leadership(database, settings.url)
    serving = Serving(host, settings.repository_path)
    routing = Routing(leadership, settings.gateway_timeout_s)
    controller = Controller(
        leadership, serving, routing, settings.repository_path, tick_s=settings.tick_s,
        drain_timeout_s=settings.drain_timeout_s, kept_observations_s=settings.kept_observations_s,
    )  # fmt: skip
    feed = Feed(database)
    database.tell_of_writes(feed.wake)

    @asynccontextmanager
    async def life(_app: FastAPI) -> AsyncIterator[None]:
        controller.start()
        async with feed.running():
            yield
        controller.stop()
        database.close()

    app = FastAPI(
        title="Sluice control plane", version="1", description=DESCRIPTION, lifespan=life, redirect_slashes=False
    )
    app.state.context = Context(leadership, controller, routing, serving, settings.repository_path, feed)
    app.add_middleware(Requests)
    refuse_in_one_form(app)
    for part in (rollouts, history, catalogue, gateways, metrics):
        app.include_router(part.router)
    app.include_router(rollouts.models)
    return app


def serve(settings: ControlSettings, host: PoolHost[Any]) -> None:
    """Serve until SIGTERM or SIGINT. Pools live on. Raises DatabaseError."""
    handler = logging.StreamHandler()
    handler.addFilter(RequestIds())
    logging.basicConfig(
        level=logging.INFO, format="%(asctime)s %(name)s [%(request_id)s] %(message)s", handlers=[handler]
    )
    app = build(settings, host)
    address, _, port = settings.listen.rpartition(":")
    config = uvicorn.Config(app, host=address, port=int(port), log_level="warning", timeout_graceful_shutdown=2)
    ControlServer(config, app.state.context.feed).run()
