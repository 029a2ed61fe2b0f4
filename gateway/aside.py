"""Work that would hold the supervisor's loop up is done in threads, and steps back while a worker needs the core."""

import asyncio
import contextlib
import os
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import ParamSpec, TypeVar

NICE = 5
SMALL_BYTES = 64 * 1024
SMALL_ROUTES = 200
"""What is smaller takes about a millisecond: less than it takes to be scheduled beside busy workers."""

P = ParamSpec("P")
T = TypeVar("T")


def threads() -> ThreadPoolExecutor:
    return ThreadPoolExecutor(4, "aside", _step_back)


def _step_back() -> None:
    with contextlib.suppress(OSError):
        os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), NICE)


async def aside(is_small: bool, work: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
    """Do it here when it is small, else in a thread of the loop's default executor."""
    return work(*args, **kwargs) if is_small else await asyncio.to_thread(work, *args, **kwargs)
