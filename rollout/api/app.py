"""The application: database, pools, controller and routers put together, started and stopped with the server."""

import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import uvicorn
from fastapi import FastAPI, Request
from fastapi.responses import JSONResponse

from rollout.api import catalogue, gateways, rollouts
from rollout.api.context import Context
from rollout.config import ControlSettings
from rollout.controller import Controller
from rollout.errors import ControlError
from rollout.leading import Leadership
from rollout.pools.seam import PoolHost
from rollout.routing import Routing
from rollout.serving import Serving
from rollout.store.database import Database


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

    @asynccontextmanager
    async def life(_app: FastAPI) -> AsyncIterator[None]:
        controller.start()
        yield
        controller.stop()
        database.close()

    app = FastAPI(title="Sluice control plane", version="1", lifespan=life)
    app.state.context = Context(leadership, controller, routing, serving, settings.repository_path)
    app.add_exception_handler(ControlError, _refused)
    for part in (rollouts, catalogue, gateways):
        app.include_router(part.router)
    return app


async def _refused(_request: Request, exc: Exception) -> JSONResponse:
    assert isinstance(exc, ControlError)
    return JSONResponse({"error": str(exc)}, status_code=exc.status)


def serve(settings: ControlSettings, host: PoolHost[Any]) -> None:
    """Serve until SIGTERM or SIGINT. Pools live on. Raises DatabaseError."""
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(name)s %(message)s")
    address, _, port = settings.listen.rpartition(":")
    config = uvicorn.Config(
        build(settings, host), host=address, port=int(port), log_level="warning", timeout_graceful_shutdown=2
    )
    uvicorn.Server(config).run()
