"""Ctrl-C, SIGTERM, a closed terminal: the first ends what is under way; later ones change nothing.

So stopping is never cut off.
"""

import contextlib
import signal
from collections.abc import Callable, Iterator
from types import FrameType

SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


class Interruption:
    """Takes these signals from now on, until the process ends. `number` is the first that came, None before."""

    def __init__(self) -> None:
        self._end: Callable[[], object] | None = None
        self.number: int | None = None
        for number in SIGNALS:
            signal.signal(number, self._came)

    def _came(self, number: int, _frame: FrameType | None) -> None:
        for one in SIGNALS:
            signal.signal(one, signal.SIG_IGN)
        self.number = number
        if self._end is not None:
            self._end()

    @contextlib.contextmanager
    def ending(self, end: Callable[[], object]) -> Iterator[None]:
        """Call `end`, from a signal handler, when the first signal comes within the block or has come before it."""
        self._end = end
        if self.number is not None:
            end()
        try:
            yield
        finally:
            self._end = None
