"""Answers to changes that were asked for with a key, so that a request that is sent again changes nothing.

An answer is written in the transaction of its change: either both are kept, or neither.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Connection, delete, insert, select
from sqlalchemy.exc import IntegrityError

from rollout.errors import ConflictError, KeyReusedError
from rollout.store.tables import answers

KEPT_S = 86400.0


@dataclass(frozen=True, slots=True)
class Asked:
    """A request with its key; `digest` tells one request from another."""

    key: str
    digest: str


@dataclass(frozen=True, slots=True)
class Answer:
    status: int
    headers: Mapping[str, str]
    body: Mapping[str, Any]


def find(connection: Connection, asked: Asked, now: float) -> Answer | None:
    """The answer that was given to this request, if it was made before.

    Raises:
        KeyReusedError: the key was used for another request.
    """
    query = select(answers).where(answers.c.key == asked.key, answers.c.at > now - KEPT_S)
    row = connection.execute(query).first()
    if row is None:
        return None
    if row.digest != asked.digest:
        raise KeyReusedError(
            f"the idempotency key {asked.key!r} was used for another request",
            "make a new key for each change, and use it again only to repeat that change",
        )
    document = json.loads(row.document)
    return Answer(row.status, document["headers"], document["body"])


def keep(connection: Connection, asked: Asked, answer: Answer, now: float) -> None:
    """Write an answer, in the transaction of the change that it tells of; forgets those that are too old.

    Raises:
        ConflictError: the same key arrived twice at the same time, and the other one was first.
    """
    forget(connection, now)
    document = json.dumps({"headers": dict(answer.headers), "body": dict(answer.body)})
    row = {"key": asked.key, "digest": asked.digest, "at": now, "status": answer.status, "document": document}
    try:
        connection.execute(insert(answers).values(**row))
    except IntegrityError as exc:
        raise ConflictError(
            f"a request with the idempotency key {asked.key!r} is being carried out",
            "send it again in a moment to get its answer",
        ) from exc


def forget(connection: Connection, now: float) -> None:
    connection.execute(delete(answers).where(answers.c.at <= now - KEPT_S))
