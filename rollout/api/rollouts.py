"""Rollouts: begin, look, hold, resume, approve, promote, roll back, abort."""

from collections.abc import Callable, Mapping
from dataclasses import asdict
from typing import Annotated, Any

from fastapi import APIRouter, Path, Query, Response
from fastapi.responses import JSONResponse

from rollout.api.changes import AnsweredBeforeError, Change, Expected, GivenHeaders, answered, etag, shown
from rollout.api.context import Given
from rollout.api.history import HistoryEntry
from rollout.api.paging import Page, Paging
from rollout.api.refusals import documented, documented_change
from rollout.api.rollout_shapes import LARGEST, MODEL_NAME, Begin, Evidence, Order, RolloutRow, RolloutShown
from rollout.controller import Controller
from rollout.decision.state import Status
from rollout.decision.verdict import verdict_of
from rollout.errors import Code, RefusedError
from rollout.orders import ORDERS
from rollout.plan import PlanError, plan_from_json
from rollout.store import history, rollouts
from rollout.store.rollouts import Row, StoredRollout
from rollout.terms import Terms

router = APIRouter(prefix="/v1/rollouts", tags=["rollouts"])
Key = Annotated[int, Path(ge=1, le=LARGEST, description="The rollout's number.", examples=[4])]
Made = Callable[[Controller, Terms], StoredRollout]

ETAG = {"ETag": {"description": "The revision, for If-Match.", "schema": {"type": "string"}, "example": '"5"'}}
ON_ONE: dict[str, Any] = {
    "response_model": RolloutShown,
    "responses": {
        200: {"headers": ETAG},
        **documented_change(
            Code.NOT_FOUND, Code.CONFLICT, Code.STAGE_CHANGED, Code.IDEMPOTENCY_REUSED, Code.REVISION_CHANGED
        ),
    },
}
"""What is said of every change of a rollout."""


@router.post(
    "", status_code=201, response_model=RolloutShown,
    responses={
        201: {"headers": ETAG},
        **documented_change(Code.NOT_FOUND, Code.CONFLICT, Code.IDEMPOTENCY_REUSED, Code.REFUSED),
    },
)  # fmt: skip
def begin(order: Begin, headers: GivenHeaders, context: Given) -> JSONResponse:
    """Start a rollout. The first release of a model becomes stable as soon as it is ready."""

    def made(controller: Controller, terms: Terms) -> StoredRollout:
        try:
            plan = plan_from_json(order.plan)
        except PlanError as exc:
            raise RefusedError(str(exc), "`sluice plan --help` tells of plans") from exc
        return controller.begin(order.model, order.release, plan, order.by, order.reason, terms)

    return _once(context, Change(headers.asked(order), Expected(), 201), made)


@router.get("", response_model=Page[RolloutRow], responses=documented())
def newest(
    context: Given,
    paging: Paging,
    model: Annotated[str | None, Query(pattern=MODEL_NAME, examples=["digits"])] = None,
    status: Status | None = None,
) -> dict[str, Any]:
    """The newest rollouts first."""
    before = paging.position("rollouts")
    with context.leadership.reading() as connection:
        found = rollouts.page(connection, model=model, status=status, before=before, limit=paging.limit + 1)
    return paging.page("rollouts", [_row(one) for one in found])


@router.get("/{key}", response_model=RolloutShown, responses={200: {"headers": ETAG}, **documented(Code.NOT_FOUND)})
def one(key: Key, context: Given, response: Response) -> dict[str, Any]:
    """A rollout: where it stands, why, and what it waits for."""
    with context.leadership.reading() as connection:
        stored = rollouts.get(connection, key)
        response.headers["etag"] = etag(stored.revision)
        return shown(connection, stored)


def _takes(verb: str) -> Callable[..., JSONResponse]:
    def ordered(key: Key, order: Order, headers: GivenHeaders, context: Given) -> JSONResponse:
        return _ordered(context, headers, order, lambda at, terms: at.order(verb, key, order.by, order.reason, terms))

    return ordered


for verb, known in ORDERS.items():
    router.add_api_route(
        f"/{{key}}/{verb}", _takes(verb), methods=["POST"], name=verb, description=known.said, **ON_ONE
    )


@router.get("/{key}/history", response_model=Page[HistoryEntry], responses=documented(Code.NOT_FOUND))
def told(key: Key, paging: Paging, context: Given) -> dict[str, Any]:
    """What happened in a rollout, the oldest first: when, by whom and why."""
    after = paging.position("told") or 0
    with context.leadership.reading() as connection:
        rollouts.get(connection, key)
        return paging.page("told", history.entries(connection, key, after=after, limit=paging.limit + 1))


@router.get("/{key}/evidence", response_model=Evidence, responses=documented(Code.NOT_FOUND))
def evidence(key: Key, context: Given) -> dict[str, Any]:
    """The evidence of every guard over time, and what it says now."""
    with context.leadership.reading() as connection:
        stored = rollouts.get(connection, key)
    state = stored.state
    points = [
        {"at": one.clock, "stage": one.stage + 1, "harm": _shares(one.harm), "clear": _shares(one.clear)}
        for one in state.trail
    ]
    return {
        "id": stored.id, "model": state.model, "release": state.release, "stable": state.stable,
        "status": state.status, "updated_at": stored.updated_at, "points": points,
        "guards": [asdict(verdict_of(state, guard)) for guard in state.plan.guards.enabled],
    }  # fmt: skip


def _shares(evidence: Mapping[str, float]) -> dict[str, float]:
    """From 0, no evidence or evidence of the contrary, to 1, as much as is needed or more."""
    return {guard: min(1.0, max(0.0, share)) for guard, share in evidence.items()}


models = APIRouter(prefix="/v1/models", tags=["rollouts"])


@models.post("/{model}/rollback", **ON_ONE)
def roll_back_model(
    model: Annotated[str, Path(pattern=MODEL_NAME, examples=["digits"])], order: Order, headers: GivenHeaders,
    context: Given,
) -> JSONResponse:  # fmt: skip
    """Give all traffic to the release before: ends the rollout under way, or brings the stable one before back."""
    return _ordered(context, headers, order, lambda at, terms: at.roll_back_model(model, order.by, order.reason, terms))


def _ordered(context: Given, headers: GivenHeaders, order: Order, make: Made) -> JSONResponse:
    expected = Expected(order.expect_stage, order.expect_phase, headers.if_match)
    return _once(context, Change(headers.asked(order), expected), make)


def _once(context: Given, change: Change, make: Made) -> JSONResponse:
    """Make a change, or give the answer again when the same request made it before."""
    before = change.answer_before(context.leadership)
    if before is not None:
        return answered(before, is_replayed=True)
    try:
        make(context.controller, change)
    except AnsweredBeforeError as exc:
        return answered(exc.answer, is_replayed=True)
    assert change.answer is not None
    return answered(change.answer, is_replayed=False)


def _row(row: Row) -> dict[str, Any]:
    return {
        "id": row.id, "model": row.model, "release": row.release, "status": row.status, "revision": row.revision,
        "created_at": row.created_at, "updated_at": row.updated_at, "is_settled": row.is_settled, **row.outline,
    }  # fmt: skip
