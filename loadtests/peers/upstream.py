"""The server behind every peer: takes any request of known length and answers one small JSON document.

    python -m loadtests.peers.upstream HOST:PORT HOST:PORT ...

One process, as fast as Python gets, so that the proxy in front of it is what is measured. Knows no protocol errors: it
is spoken to by proxies only.
"""

import asyncio
import json
import sys
from typing import cast

import uvloop

from loadtests.peers.message import Message

_DOCUMENT = json.dumps(
    {
        "model_name": "digits",
        "model_version": "1",
        "outputs": [
            {"name": "label", "datatype": "INT64", "shape": [1], "data": [7]},
            {"name": "scores", "datatype": "FP32", "shape": [1, 10], "data": [0.01] * 7 + [0.91, 0.01, 0.01]},
        ],
    }
).encode()
_ANSWER = (
    b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: %d\r\n\r\n" % len(_DOCUMENT) + _DOCUMENT
)


class Answering(asyncio.Protocol):
    """One connection."""

    def __init__(self) -> None:
        self._request = Message()
        self._transport: asyncio.Transport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)  # uvloop's are not subclasses.

    def data_received(self, data: bytes) -> None:
        assert self._transport is not None
        if self._request.is_whole_with(data):
            self._transport.write(_ANSWER)


async def serve(addresses: list[str]) -> None:
    """Answer at every address until cancelled."""
    loop = asyncio.get_running_loop()
    for address in addresses:
        host, _, port = address.rpartition(":")
        await loop.create_server(Answering, host, int(port), backlog=1024)
    await asyncio.Event().wait()


if __name__ == "__main__":
    uvloop.run(serve(sys.argv[1:]))
