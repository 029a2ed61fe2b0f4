"""The proxy that people write at home: FastAPI in front, an httpx client behind.

    python -m loadtests.peers.fastapi_proxy LISTEN STABLE CANDIDATE WEIGHT      (addresses as HOST:PORT)

Written to do well: one process on uvloop and httptools, no access log, connections kept, bodies handed on as bytes and
never parsed. It splits by weight with a sticky key and sets a request id; it counts nothing, has no limits, no fallback
and no metrics.
"""

import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from hashlib import blake2b
from uuid import uuid4

import httpx
import uvicorn
from fastapi import FastAPI, Request, Response

_PASSED_ON = ("content-type", "inference-header-content-length")
_LIMITS = httpx.Limits(max_connections=256, max_keepalive_connections=256)


def build(stable: str, candidate: str, weight: float) -> FastAPI:
    """The proxy; `weight` in [0, 1] is the candidate's share of the keys."""
    client = httpx.AsyncClient(timeout=10.0, limits=_LIMITS, trust_env=False)

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        async with client:
            yield

    app = FastAPI(lifespan=lifespan)

    @app.post("/v2/models/{model}/infer")
    async def infer(model: str, request: Request) -> Response:
        request_id = request.headers.get("x-request-id") or uuid4().hex
        key = request.headers.get("x-sluice-key") or request_id
        release, server = (2, candidate) if _place(key) < weight else (1, stable)
        answer = await client.post(
            f"http://{server}/v2/models/{model}/versions/{release}/infer",
            content=await request.body(),
            headers={name: request.headers[name] for name in _PASSED_ON if name in request.headers},
        )
        headers = {"x-request-id": request_id, "x-sluice-release": f"{model}/{release}"}
        return Response(answer.content, answer.status_code, headers, answer.headers.get("content-type"))

    return app


def _place(key: str) -> float:
    return int.from_bytes(blake2b(key.encode(), digest_size=8).digest(), "little") / 2**64


def main() -> None:
    listen, stable, candidate, weight = sys.argv[1:]
    host, _, port = listen.rpartition(":")
    app = build(stable, candidate, float(weight))
    uvicorn.run(app, host=host, port=int(port), loop="uvloop", http="httptools", access_log=False, log_level="warning")


if __name__ == "__main__":
    main()
