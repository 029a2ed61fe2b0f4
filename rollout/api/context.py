"""What every router needs, handed over by `app`."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from fastapi import Depends, Request

from rollout.api.feed import Feed
from rollout.controller import Controller
from rollout.leading import Leadership
from rollout.routing import Routing
from rollout.serving import Serving


@dataclass(frozen=True, slots=True)
class Context:
    leadership: Leadership
    controller: Controller
    routing: Routing
    serving: Serving
    repository: Path
    feed: Feed


def context_of(request: Request) -> Context:
    context: Context = request.app.state.context
    return context


Given = Annotated[Context, Depends(context_of)]
