"""The history: who changed what, when and why; by pages, checked, and as it grows."""

from collections.abc import AsyncIterator
from typing import Annotated, Any

from fastapi import APIRouter, Header, Query
from fastapi.responses import StreamingResponse
from pydantic import ConfigDict

from rollout.api.context import Given
from rollout.api.feed import Wanted, told
from rollout.api.paging import Page, Paging
from rollout.api.refusals import documented
from rollout.api.rollout_shapes import LARGEST, MODEL_NAME, Shape
from rollout.store import history as history_store

router = APIRouter(prefix="/v1", tags=["history"])
Model = Annotated[str | None, Query(pattern=MODEL_NAME, examples=["digits"], description="Only this model's.")]
EXAMPLE: dict[str, Any] = {
    "id": 17, "at": 1796000361.5, "author": "ada", "model": "digits", "rollout": 4, "what": "approved",
    "reason": "labels look good", "previous": "9f" * 32, "digest": "3a" * 32,
}  # fmt: skip


class HistoryEntry(Shape):
    """One change. `author` is a person, or `engine` for what evidence decided."""

    model_config = ConfigDict(json_schema_extra={"examples": [EXAMPLE]})

    id: int
    at: float
    author: str
    model: str
    rollout: int | None
    what: str
    reason: str
    previous: str
    digest: str


class HistoryCheck(Shape):
    """Whether the hash chain holds. `first_broken` is the first entry that does not fit, null when all do."""

    model_config = ConfigDict(json_schema_extra={"examples": [{"newest": 17, "first_broken": None}]})

    newest: int
    first_broken: int | None


@router.get("/history", response_model=Page[HistoryEntry], responses=documented())
def newest(context: Given, paging: Paging, model: Model = None) -> dict[str, Any]:
    """The newest entries first."""
    before = paging.position("history")
    with context.leadership.reading() as connection:
        found = history_store.newest(connection, model=model, before=before, limit=paging.limit + 1)
    return paging.page("history", found)


@router.get("/history/check", response_model=HistoryCheck, responses=documented())
def check(context: Given) -> dict[str, Any]:
    """Read the whole history, and say where its hash chain is broken."""
    with context.leadership.reading() as connection:
        return {
            "newest": history_store.last_id(connection),
            "first_broken": history_store.first_broken(connection),
        }


@router.get(
    "/events", response_class=StreamingResponse,
    responses={
        200: {
            "description": "Server-sent events without end, each with the id of an entry and the entry as JSON.",
            "content": {"text/event-stream": {"schema": {"type": "string"}, "example": told(EXAMPLE)}},
        },
        **documented(),
    },
)  # fmt: skip
async def events(
    context: Given,
    model: Model = None,
    rollout: Annotated[int | None, Query(ge=1, le=LARGEST, description="Only this rollout's.")] = None,
    after: Annotated[
        int | None, Query(ge=0, le=LARGEST, description="The id to go on after; 0 for all. Left off: from now on.")
    ] = None,
    last_event_id: Annotated[
        int | None, Header(ge=0, le=LARGEST, description="As browsers send it to resume; goes before `after`.")
    ] = None,
) -> StreamingResponse:
    """The history as it grows. Resumed after the last id that was seen, nothing is lost and nothing comes twice."""
    position = after if last_event_id is None else last_event_id
    stream: AsyncIterator[str] = context.feed.listen(position, Wanted(model, rollout))
    headers = {"cache-control": "no-store", "x-accel-buffering": "no"}
    return StreamingResponse(stream, media_type="text/event-stream", headers=headers)
