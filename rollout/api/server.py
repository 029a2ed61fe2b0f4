"""The HTTP server, told to stop in an order in which nobody waits for anybody."""

import socket

import uvicorn

from rollout.api.feed import Feed


class ControlServer(uvicorn.Server):
    """Ends streams of events before it waits for the answers under way: a stream would never end by itself."""

    def __init__(self, config: uvicorn.Config, feed: Feed) -> None:
        super().__init__(config)
        self._feed = feed

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        self._feed.stop()
        await super().shutdown(sockets)
