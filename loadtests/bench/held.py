"""Idle connections, held by a process of its own: each has asked once, and asks no more.

    python -m loadtests.bench.held HOST:PORT COUNT

Says "held" when all of them have their answer; closes them when its standard input ends.
"""

import asyncio
import os
import sys
from typing import Any, cast

import uvloop

from loadtests.bench.asking import BODIES, Request, requests_for
from loadtests.errors import BenchError
from loadtests.peers.message import Message

AT_ONCE = 100
"""Connections that are made at a time, so that no backlog overflows."""
CONNECT_TIMEOUT_S = 60.0
HELD = "held\n"


class Held(asyncio.Protocol):
    """One connection: asks once. `answered` is done with the answer; `lost` fails when the connection is lost."""

    def __init__(self, request: Request, lost: "asyncio.Future[None]") -> None:
        self._request = request
        self._answer = Message()
        self._lost = lost
        self.answered: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        cast(asyncio.Transport, transport).writelines(self._request)  # uvloop's are not subclasses.

    def data_received(self, data: bytes) -> None:
        if self._answer.is_whole_with(data):
            self.answered.set_result(None)

    def connection_lost(self, exc: Exception | None) -> None:
        if not self._lost.done():
            self._lost.set_exception(BenchError(f"a connection that was to be idle was lost: {exc}"))


async def hold(address: str, count: int) -> None:
    """Connect, say so, and wait for the end of the input. Raises BenchError or OSError when a connection fails."""
    loop = asyncio.get_running_loop()
    lost: asyncio.Future[None] = loop.create_future()
    await _first(loop.create_task(_connect(address, count, lost)), lost, CONNECT_TIMEOUT_S)
    sys.stdout.write(HELD)
    sys.stdout.flush()
    await _first(loop.run_in_executor(None, sys.stdin.read), lost, None)
    lost.cancel()


async def _connect(address: str, count: int, lost: "asyncio.Future[None]") -> None:
    host, _, port = address.rpartition(":")
    loop = asyncio.get_running_loop()
    (request, *_) = requests_for(BODIES["small_json"](), address)
    for start in range(0, count, AT_ONCE):
        some = range(min(AT_ONCE, count - start))
        making = (loop.create_connection(lambda: Held(request, lost), host, int(port)) for _ in some)
        made = await asyncio.gather(*making)
        await asyncio.gather(*(held.answered for _, held in made))


async def _first(awaited: "asyncio.Future[Any]", lost: "asyncio.Future[None]", timeout_s: float | None) -> None:
    """Wait for `awaited`. Raises what it raises, what is `lost` before, or BenchError after the time."""
    done, _ = await asyncio.wait((awaited, lost), timeout=timeout_s, return_when=asyncio.FIRST_COMPLETED)
    if not done:
        raise BenchError(f"not all connections were made and answered within {timeout_s:g} s")
    for one in done:
        one.result()


def main() -> None:
    address, count = sys.argv[1:]
    try:
        uvloop.run(hold(address, int(count)))
    except (BenchError, OSError) as exc:
        sys.stderr.write(f"{exc}\n")
        os._exit(1)  # The thread that reads the input would be waited for.


if __name__ == "__main__":
    main()
