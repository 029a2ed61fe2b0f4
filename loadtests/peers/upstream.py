"""The server behind every peer: takes any request of known length and answers one small JSON document.

    python -m loadtests.peers.upstream MANNER=HOST:PORT MANNER=HOST:PORT ...

A manner is `at_once`, `in_50ms`, `large`: answers of 400 KB, `megabyte`: answers of 1 MB, or `unread`: connections are
made and nothing is ever taken from them. A GET, whatever its path, says how many requests came to that address; where
answers are large it is a request like others.

One process, as fast as Python gets, so that the proxy in front of it is what is measured. Knows no protocol errors: it
is spoken to by proxies only.
"""

import asyncio
import json
import socket
import sys
from functools import partial
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


AT_ONCE, IN_50MS, LARGE, MEGABYTE, UNREAD = "at_once", "in_50ms", "large", "megabyte", "unread"
DELAYS_S = {IN_50MS: 0.05}
SIZES = {LARGE: 400_000, MEGABYTE: 1_000_000}
SEND_BYTES = 128 * 1024
"""What the kernel holds of a large answer."""


def _large(size: int) -> bytes:
    head = f"HTTP/1.1 200 OK\r\ncontent-type: application/octet-stream\r\ncontent-length: {size}\r\n\r\n"
    return head.encode() + bytes(size)


class Address:
    """What all connections to one address share."""

    def __init__(self, manner: str) -> None:
        self.delay_s = DELAYS_S.get(manner, 0.0)
        self.is_large = manner in SIZES
        self.answer = _large(SIZES[manner]) if self.is_large else _ANSWER
        self.asked = 0

    def count(self) -> bytes:
        said = str(self.asked).encode()
        return b"HTTP/1.1 200 OK\r\ncontent-length: %d\r\n\r\n" % len(said) + said


class Answering(asyncio.Protocol):
    """One connection."""

    def __init__(self, address: Address) -> None:
        self._address = address
        self._request = Message()
        self._transport: asyncio.Transport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)  # uvloop's are not subclasses.

    def data_received(self, data: bytes) -> None:
        assert self._transport is not None
        if self._request.is_new and data.startswith(b"GET "):
            self._transport.write(self._address.answer if self._address.is_large else self._address.count())
        elif self._request.is_whole_with(data):
            self._address.asked += 1
            if self._address.delay_s:
                asyncio.get_running_loop().call_later(
                    self._address.delay_s, self._transport.write, self._address.answer
                )
            else:
                self._transport.write(self._address.answer)


class Deaf(asyncio.Protocol):
    """One connection that is accepted and never read."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        cast(asyncio.Transport, transport).pause_reading()


async def serve(told: list[str]) -> None:
    """Answer at every address until cancelled."""
    loop = asyncio.get_running_loop()
    for one in told:
        manner, _, address = one.rpartition("=")
        host, _, port = address.rpartition(":")
        if manner == UNREAD:
            await loop.create_server(Deaf, host, int(port), backlog=1024)
        else:
            shared = Address(manner or AT_ONCE)
            server = await loop.create_server(partial(Answering, shared), host, int(port), backlog=1024)
            if shared.is_large:  # Thousands that are not read would take the memory that the machine has for TCP.
                server.sockets[0].setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, SEND_BYTES)
    await asyncio.Event().wait()


if __name__ == "__main__":
    uvloop.run(serve(sys.argv[1:]))
