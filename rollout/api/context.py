"""What every router needs, handed over by `app`."""

from dataclasses import dataclass
from pathlib import Path

from fastapi import Request

from rollout.controller import Controller
from rollout.leading import Leadership
from rollout.routing import Routing
from rollout.serving import Serving


@dataclass(frozen=True, slots=True)
class Context:
    database: Leadership
    controller: Controller
    routing: Routing
    serving: Serving
    repository: Path


def context_of(request: Request) -> Context:
    context: Context = request.app.state.context
    return context
