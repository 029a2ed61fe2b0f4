"""Ctrl-C and SIGTERM: the first ends what is under way; later ones change nothing, so stopping is never cut off."""

import asyncio
import signal
from collections.abc import Callable


class Interruption:
    """Listens for both signals in the running loop; `number` is the first that came, None before."""

    def __init__(self, end: Callable[[], object]) -> None:
        self._end = end
        self.number: signal.Signals | None = None
        loop = asyncio.get_running_loop()
        for number in (signal.SIGINT, signal.SIGTERM):
            loop.add_signal_handler(number, self._came, number)

    def _came(self, number: signal.Signals) -> None:
        if self.number is None:
            self.number = number
            self._end()
