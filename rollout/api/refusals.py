"""The one form of every answer that is not a success, and how it stands in the API's description."""

import logging
from collections.abc import Mapping
from http import HTTPStatus
from typing import Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from pydantic import BaseModel, ConfigDict, Field
from sqlalchemy.exc import DBAPIError
from starlette.exceptions import HTTPException
from starlette.routing import compile_path

from rollout.api import request_ids
from rollout.errors import Code, ControlError

log = logging.getLogger("sluice.control")

HINTS = {
    Code.INVALID: "/docs describes what each request takes",
    Code.NOT_FOUND: "/docs lists the paths, and GET /v1/rollouts the rollouts",
    Code.METHOD_NOT_ALLOWED: "the `allow` header names what this path takes",
    Code.CONFLICT: "look at the rollout again, then decide anew",
    Code.STAGE_CHANGED: "look at what is known of the stage where it is now, then decide anew",
    Code.REVISION_CHANGED: "get the rollout again, and use its new ETag",
    Code.IDEMPOTENCY_REUSED: "make a new key for each change",
    Code.TOO_LARGE: "send less at once",
    Code.REFUSED: "change what the message names, then ask again",
    Code.INTERNAL: "the control plane's log tells more, under this request_id",
    Code.UNAVAILABLE: "try again in a moment; nothing was changed",
    Code.NOT_LEADER: "ask the control plane that leads",
}
"""What to do next, where an error does not say it better itself."""
BY_STATUS = {400: Code.INVALID, 404: Code.NOT_FOUND, 405: Code.METHOD_NOT_ALLOWED, 413: Code.TOO_LARGE}


class Refusal(BaseModel):
    """Why a request was not carried out. `code` is for programs, `message` and `hint` for people."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {
                    "code": "stage_changed",
                    "message": "rollout 4 is in stage 2 of 3 (canary) by now",
                    "hint": HINTS[Code.STAGE_CHANGED],
                    "request_id": "5f0c954bb0a94d24ab9dd3d4f9d9a0e1",
                }
            ]
        }
    )

    code: Code
    message: str
    hint: str = Field(description="What to do next.")
    request_id: str = Field(description="As in the header `x-request-id` and in the control plane's log.")


def refusal(
    status: int, code: Code, message: str, hint: str = "", headers: Mapping[str, str] | None = None
) -> JSONResponse:
    """An error answer in the one form."""
    told = {"code": code, "message": message, "hint": hint or HINTS[code], "request_id": request_ids.current.get()}
    writable = {key: text.encode("utf-8", "replace").decode() for key, text in told.items()}
    return JSONResponse(writable, status, headers)


def refuse_in_one_form(app: FastAPI) -> None:
    """Answer whatever goes wrong in a request with a `Refusal`. What nobody expected is `requests`' business."""
    app.add_exception_handler(ControlError, _refused)
    app.add_exception_handler(RequestValidationError, _invalid)
    app.add_exception_handler(HTTPException, _not_answered)
    app.add_exception_handler(DBAPIError, _no_database)


def documented(*codes: Code) -> dict[int | str, dict[str, Any]]:
    """The error answers of a route, for its description: those named, and those that every route has."""
    by_status: dict[int, list[Code]] = {}
    for code in (*codes, Code.INVALID, Code.INTERNAL, Code.UNAVAILABLE):
        by_status.setdefault(STATUSES[code], []).append(code)
    return {
        status: {
            "model": Refusal,
            "description": f"{HTTPStatus(status).phrase}: {' or '.join(f'`{code}`' for code in found)}",
        }
        for status, found in by_status.items()
    }


def documented_change(*codes: Code) -> dict[int | str, dict[str, Any]]:
    """The error answers of a route that takes a body."""
    unreadable = {"model": Refusal, "description": "Bad Request: the body cannot be read, `invalid`"}
    return {400: unreadable, **documented(Code.TOO_LARGE, Code.NOT_LEADER, *codes)}


STATUSES = {
    Code.INVALID: 422, Code.NOT_FOUND: 404, Code.METHOD_NOT_ALLOWED: 405, Code.CONFLICT: 409, Code.STAGE_CHANGED: 409,
    Code.REVISION_CHANGED: 412, Code.IDEMPOTENCY_REUSED: 409, Code.TOO_LARGE: 413, Code.REFUSED: 422,
    Code.INTERNAL: 500, Code.UNAVAILABLE: 503, Code.NOT_LEADER: 503,
}  # fmt: skip


async def _refused(_request: Request, exc: Exception) -> JSONResponse:
    assert isinstance(exc, ControlError)
    headers = {"retry-after": "1"} if exc.status == 503 else None
    return refusal(exc.status, exc.code, str(exc), exc.hint, headers)


async def _invalid(_request: Request, exc: Exception) -> JSONResponse:
    assert isinstance(exc, RequestValidationError)
    faults = "; ".join(_fault(error) for error in exc.errors())
    return refusal(422, Code.INVALID, faults)


def _fault(error: Mapping[str, Any]) -> str:
    """Where a request is wrong, and how: `body.release: Input should be greater than or equal to 1`."""
    if error["type"] == "json_invalid":
        return f"the body is not JSON: {error.get('ctx', {}).get('error', 'it cannot be read')}"
    where = ".".join(map(str, error["loc"]))
    return f"{where}: {error['msg'].removeprefix('Value error, ')}"


async def _not_answered(request: Request, exc: Exception) -> JSONResponse:
    assert isinstance(exc, HTTPException)
    code = BY_STATUS.get(exc.status_code, Code.INVALID if exc.status_code < 500 else Code.INTERNAL)
    said = {
        404: f"there is nothing at {request.url.path}",
        405: f"{request.url.path} does not take {request.method}",
        400: "the body cannot be read",
    }
    headers = {"allow": _allowed(request)} if exc.status_code == 405 else exc.headers
    return refusal(exc.status_code, code, said.get(exc.status_code, exc.detail), headers=headers)


def _allowed(request: Request) -> str:
    """Every method that the path of a request takes."""
    paths = request.app.openapi()["paths"]
    found = [set(paths[path]) for path in paths if compile_path(path)[0].match(request.url.path)]
    return ", ".join(sorted(method.upper() for method in set().union(*found)))


async def _no_database(_request: Request, exc: Exception) -> JSONResponse:
    log.error("the database failed: %s", exc)
    return refusal(503, Code.UNAVAILABLE, "the database cannot be used now", headers={"retry-after": "1"})
