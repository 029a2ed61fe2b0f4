"""Changes that people ask for over HTTP: based on what they saw, carried out once however often they are sent."""

import hashlib
import json
import time
from dataclasses import asdict, dataclass
from typing import Annotated, Any

from fastapi import Depends, Header, Request
from fastapi.responses import JSONResponse
from pydantic import BaseModel
from sqlalchemy import Connection

from rollout.decision.state import Status
from rollout.decision.verdict import progress
from rollout.errors import RevisionChangedError, StageChangedError
from rollout.store import answers, rollouts
from rollout.store.answers import Answer, Asked
from rollout.store.database import Transactions
from rollout.store.rollouts import StoredRollout

IDEMPOTENCY_KEY = r"^[!-~]{1,128}$"
REPLAYED = "idempotency-replayed"


@dataclass(frozen=True, slots=True)
class Headers:
    """What the headers of a change say: its key, and the revisions that it may be based on."""

    path: str
    key: str | None
    if_match: str | None

    def asked(self, order: BaseModel) -> Asked | None:
        """This request under its key, when it has one."""
        if self.key is None:
            return None
        canonical = json.dumps([self.path, order.model_dump(mode="json")], sort_keys=True)
        return Asked(self.key, hashlib.sha256(canonical.encode()).hexdigest())


def headers_of(
    request: Request,
    idempotency_key: Annotated[
        str | None,
        Header(
            pattern=IDEMPOTENCY_KEY, examples=["01JDQ3X7Z9"],
            description="Sent again with the same key within 24 hours, the same request changes nothing and gets the"
            " same answer, with the header `idempotency-replayed`.",
        ),
    ] = None,
    if_match: Annotated[
        str | None,
        Header(examples=['"5"'], description="The ETag that the rollout had when it was looked at; else 412."),
    ] = None,
) -> Headers:  # fmt: skip
    return Headers(request.url.path, idempotency_key, if_match)


GivenHeaders = Annotated[Headers, Depends(headers_of)]


class AnsweredBeforeError(Exception):
    """Leaves the transaction of a change that was made before."""

    def __init__(self, answer: Answer) -> None:
        super().__init__("this request was answered before")
        self.answer = answer


@dataclass(frozen=True, slots=True)
class Expected:
    """What somebody looked at when they decided; None where they do not say."""

    stage: int | None = None
    phase: Status | None = None
    if_match: str | None = None

    def check(self, stored: StoredRollout) -> None:
        """Raises StageChangedError or RevisionChangedError when the rollout has gone on since."""
        state = stored.state
        if self.stage not in (None, state.stage + 1) or self.phase not in (None, state.phase):
            raise StageChangedError(f"rollout {stored.id} has gone on: it is {_where(stored)} by now")
        matching = {one.strip() for one in (self.if_match or "*").split(",")}
        if not matching & {"*", etag(stored.revision)}:
            raise RevisionChangedError(
                f"rollout {stored.id} has changed: it is at revision {stored.revision}, {_where(stored)}"
            )


class Change:
    """The terms of one change, and the answer to it once it is made."""

    def __init__(self, asked: Asked | None, expected: Expected, status: int = 200) -> None:
        self._asked = asked
        self._expected = expected
        self._status = status
        self.answer: Answer | None = None

    def before(self, connection: Connection, stored: StoredRollout | None) -> None:
        if self._asked is not None:
            answer = answers.find(connection, self._asked, time.time())
            if answer is not None:
                raise AnsweredBeforeError(answer)
        if stored is not None:
            self._expected.check(stored)

    def after(self, connection: Connection, key: int) -> None:
        stored = rollouts.get(connection, key)
        self.answer = Answer(self._status, {"etag": etag(stored.revision)}, shown(connection, stored))
        if self._asked is not None:
            answers.keep(connection, self._asked, self.answer, time.time())

    def answer_before(self, database: Transactions) -> Answer | None:
        """The answer, when the same request was made before; spares all that precedes the transaction."""
        if self._asked is None:
            return None
        with database.reading() as connection:
            return answers.find(connection, self._asked, time.time())


def answered(answer: Answer, is_replayed: bool) -> JSONResponse:
    headers = {**answer.headers, **({REPLAYED: "true"} if is_replayed else {})}
    return JSONResponse(answer.body, answer.status, headers)


def etag(revision: int) -> str:
    return f'"{revision}"'


def shown(connection: Connection, stored: StoredRollout) -> dict[str, Any]:
    """A rollout as clients see it: where it stands, why, and what it waits for.

    `is_settled` says that it has ended and all that follows (routes, pools) is carried out.
    """
    return {
        "id": stored.id,
        "revision": stored.revision,
        "created_at": stored.created_at,
        "updated_at": stored.updated_at,
        "is_settled": stored.state.has_ended and not rollouts.owed(connection, stored.id),
        **asdict(progress(stored.state, stored.updated_at)),
    }


def _where(stored: StoredRollout) -> str:
    state = stored.state
    stages = len(state.plan.stages)
    status = state.status.value.replace("_", " ")
    return status if state.has_ended or state.stage >= stages else f"{status}, stage {state.stage + 1} of {stages}"
