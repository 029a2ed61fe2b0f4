"""Rollouts: begin, look, hold, resume, approve, abort."""

from dataclasses import asdict
from typing import Annotated, Any

from fastapi import APIRouter, Depends
from pydantic import BaseModel, ConfigDict, Field
from sqlalchemy import Connection

from rollout.api.context import Context, context_of
from rollout.decision.verdict import progress
from rollout.errors import RefusedError
from rollout.plan import PlanError, plan_from_json
from rollout.store import history, rollouts
from rollout.store.rollouts import StoredRollout

router = APIRouter(prefix="/v1/rollouts", tags=["rollouts"])
Given = Annotated[Context, Depends(context_of)]


class Begin(BaseModel):
    """Who rolls out what by which plan; an empty plan means the defaults."""

    model_config = ConfigDict(extra="forbid")

    model: str = Field(pattern=r"^[A-Za-z0-9_-][A-Za-z0-9_.-]{0,127}$")
    release: int = Field(ge=1)
    plan: dict[str, Any] = {}
    by: str = Field(min_length=1, max_length=128)
    reason: str = ""


class Order(BaseModel):
    """Who orders it, and why."""

    model_config = ConfigDict(extra="forbid")

    by: str = Field(min_length=1, max_length=128)
    reason: str = ""


@router.post("", status_code=201)
def begin(order: Begin, context: Given) -> dict[str, Any]:
    try:
        plan = plan_from_json(order.plan)
    except PlanError as exc:
        raise RefusedError(str(exc)) from exc
    return _show(context, context.controller.begin(order.model, order.release, plan, order.by, order.reason))


@router.get("")
def newest(context: Given, model: str | None = None) -> list[dict[str, Any]]:
    with context.database.reading() as connection:
        return [shown(connection, stored) for stored in rollouts.newest(connection, model)]


@router.get("/{key}")
def one(key: int, context: Given) -> dict[str, Any]:
    return _show(context, context.controller.get(key))


@router.post("/{key}/hold")
def hold(key: int, order: Order, context: Given) -> dict[str, Any]:
    return _show(context, context.controller.hold(key, order.by, order.reason))


@router.post("/{key}/resume")
def resume(key: int, order: Order, context: Given) -> dict[str, Any]:
    return _show(context, context.controller.resume(key, order.by, order.reason))


@router.post("/{key}/approve")
def approve(key: int, order: Order, context: Given) -> dict[str, Any]:
    return _show(context, context.controller.approve(key, order.by, order.reason))


@router.post("/{key}/abort")
def abort(key: int, order: Order, context: Given) -> dict[str, Any]:
    return _show(context, context.controller.abort(key, order.by, order.reason))


@router.get("/{key}/history")
def told(key: int, context: Given) -> list[dict[str, Any]]:
    with context.database.reading() as connection:
        rollouts.get(connection, key)
        return history.entries(connection, key)


def _show(context: Context, stored: StoredRollout) -> dict[str, Any]:
    with context.database.reading() as connection:
        return shown(connection, stored)


def shown(connection: Connection, stored: StoredRollout) -> dict[str, Any]:
    """A rollout as clients see it: where it stands, why, and what it waits for.

    `is_settled` says that it has ended and all that follows (routes, pools) is carried out.
    """
    return {
        "id": stored.id,
        "created_at": stored.created_at,
        "updated_at": stored.updated_at,
        "is_settled": stored.state.has_ended and not rollouts.owed(connection, stored.id),
        **asdict(progress(stored.state, stored.updated_at)),
    }
