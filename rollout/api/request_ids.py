"""The id of the request that is being answered: in its log lines, in its answer, in its errors."""

import logging
import secrets
from contextvars import ContextVar

from gateway.samples import REQUEST_ID

HEADER = "x-request-id"
current: ContextVar[str] = ContextVar("request_id", default="-")
"""Set for the time of a request, in the threads that work for it too."""


class RequestIds(logging.Filter):
    """Gives every log record its `request_id`; `-` outside requests."""

    def filter(self, record: logging.LogRecord) -> bool:
        record.request_id = current.get()
        return True


def request_id_of(given: str) -> str:
    """The id that the client gave, if it is one that can stand anywhere; else a new one."""
    return given if REQUEST_ID.fullmatch(given) else secrets.token_hex(16)
