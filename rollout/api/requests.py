"""Around every request: its id, the most that its body may have, and an answer when something fails unexpectedly."""

import logging

from fastapi import HTTPException
from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from rollout.api import request_ids
from rollout.api.refusals import refusal
from rollout.errors import Code

BODY_MOST = 1 << 20
REPORT_MOST = 64 << 20
"""Gateways send what waited in their backlog, samples with whole answers too."""

log = logging.getLogger("sluice.control")


class Requests:
    """The outermost layer of the application."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        request_id = request_ids.request_id_of(Headers(scope=scope).get(request_ids.HEADER, ""))
        token = request_ids.current.set(request_id)
        has_begun = False

        async def answer(message: Message) -> None:
            nonlocal has_begun
            if message["type"] == "http.response.start":
                has_begun = True
                MutableHeaders(scope=message)[request_ids.HEADER] = request_id
            await send(message)

        try:
            await self._app(scope, _limited(scope, receive), answer)
        except Exception:
            log.exception("%s %s failed", scope["method"], scope["path"])
            if has_begun:
                raise
            await refusal(500, Code.INTERNAL, "the control plane failed at this request")(scope, receive, answer)
        finally:
            request_ids.current.reset(token)


def _limited(scope: Scope, receive: Receive) -> Receive:
    """Receives a body up to what its path may be sent."""
    most = REPORT_MOST if scope["path"] == "/v1/gateway/reports" else BODY_MOST
    announced = Headers(scope=scope).get("content-length", "0")
    received = 0

    async def limited() -> Message:
        nonlocal received
        if announced.isdecimal() and int(announced) > most:
            raise _too_large(most)
        message = await receive()
        received += len(message.get("body", b""))
        if received > most:
            raise _too_large(most)
        return message

    return limited


def _too_large(most: int) -> HTTPException:
    return HTTPException(413, f"the body is larger than {most:,} bytes", {"connection": "close"})
