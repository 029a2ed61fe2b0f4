"""A timer that is exact to some tens of microseconds: Linux's timerfd. An event loop's own are exact to a millisecond.

Python has it from 3.13 on; until then it is called in libc.
"""

import asyncio
import contextlib
import ctypes
import os
import time
from collections.abc import Callable

CLOCK_MONOTONIC = 1
"""Which is what `time.perf_counter` reads on Linux."""
TFD_TIMER_ABSTIME = 1


class _Timespec(ctypes.Structure):
    _fields_ = (("seconds", ctypes.c_long), ("nanoseconds", ctypes.c_long))


class _Timing(ctypes.Structure):
    _fields_ = (("interval", _Timespec), ("first", _Timespec))


_libc = ctypes.CDLL(None, use_errno=True)


class Timer:
    """Calls back in the running loop, once for each `set`."""

    def __init__(self, due: Callable[[], None]) -> None:
        self._due = due
        self._fd = _libc.timerfd_create(CLOCK_MONOTONIC, os.O_NONBLOCK | os.O_CLOEXEC)
        if self._fd < 0:
            raise OSError(ctypes.get_errno(), "timerfd_create failed")
        self._loop = asyncio.get_running_loop()
        self._loop.add_reader(self._fd, self._fired)

    def set(self, at_s: float) -> None:
        """Call back at this time of `time.perf_counter`; at once when it is past."""
        seconds, rest = divmod(max(at_s, time.perf_counter() + 1e-6), 1.0)
        timing = _Timing(_Timespec(0, 0), _Timespec(int(seconds), int(rest * 1e9)))
        if _libc.timerfd_settime(self._fd, TFD_TIMER_ABSTIME, ctypes.byref(timing), None) < 0:
            raise OSError(ctypes.get_errno(), "timerfd_settime failed")

    def close(self) -> None:
        self._loop.remove_reader(self._fd)
        os.close(self._fd)

    def _fired(self) -> None:
        with contextlib.suppress(BlockingIOError):
            os.read(self._fd, 8)
        self._due()
