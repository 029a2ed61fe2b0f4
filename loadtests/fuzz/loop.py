"""An event loop without a kernel: it owns time, and runs one callback when it is told to.

Everything the gateway does in a turn of its loop can so be done step by step, in any order that
could happen, and again.
"""

import asyncio
import contextlib
import heapq
from collections import deque
from collections.abc import Callable, Iterator
from contextvars import Context
from typing import Any, Protocol, cast

from gateway import exchange, mirror, plane


class Network(Protocol):
    """Where connections are made to."""

    async def connect(self, factory: Callable[[], asyncio.Protocol], address: str) -> asyncio.Protocol: ...


_READERS: tuple[Any, ...] = (exchange, mirror, plane)
"""The modules that read the time by themselves."""


class VirtualLoop:
    """What the gateway needs of a loop. `errors` is what escaped from callbacks and tasks."""

    def __init__(self) -> None:
        self.network: Network | None = None
        self.errors: list[str] = []
        self.tasks: set[asyncio.Task[Any]] = set()
        self._ready: deque[asyncio.Handle] = deque()
        self._timers: list[asyncio.TimerHandle] = []
        self._now_s = 1000.0

    @contextlib.contextmanager
    def running(self) -> Iterator[None]:
        """Be the running loop, and the clock of what reads the time by itself.

        The gateway calls the clock by its name, since to pass it along would cost every request; so the names are what
        is exchanged here.
        """
        before = [module.monotonic for module in _READERS]
        asyncio._set_running_loop(cast(asyncio.AbstractEventLoop, self))
        for module in _READERS:
            module.monotonic = self.time
        try:
            yield
        finally:
            asyncio._set_running_loop(None)
            for module, clock in zip(_READERS, before, strict=True):
                module.monotonic = clock

    def time(self) -> float:
        return self._now_s

    @property
    def is_idle(self) -> bool:
        return not self._ready

    @property
    def waiting(self) -> int:
        """Timers that were not cancelled."""
        return sum(not timer.cancelled() for timer in self._timers)

    def step(self) -> bool:
        """Run one callback that is due; False when there is none."""
        if not self._ready:
            return False
        handle = self._ready.popleft()
        if not handle.cancelled():
            handle._run()
        return True

    def run(self) -> None:
        """Run until nothing is due."""
        while self._ready:
            handle = self._ready.popleft()
            if not handle.cancelled():
                handle._run()

    def advance(self, seconds: float) -> None:
        """Let time pass; timers that end with it become due, and are not run yet."""
        self._now_s += seconds
        while self._timers and self._timers[0].when() <= self._now_s:
            self._ready.append(heapq.heappop(self._timers))

    # What asyncio calls (asyncio.AbstractEventLoop)

    def call_soon(self, callback: Callable[..., Any], *args: Any, context: Context | None = None) -> asyncio.Handle:
        handle = asyncio.Handle(callback, args, cast(Any, self), context)
        self._ready.append(handle)
        return handle

    def call_at(
        self, when: float, callback: Callable[..., Any], *args: Any, context: Context | None = None
    ) -> asyncio.TimerHandle:
        timer = asyncio.TimerHandle(when, callback, args, cast(Any, self), context)
        heapq.heappush(self._timers, timer)
        return timer

    def call_later(
        self, delay: float, callback: Callable[..., Any], *args: Any, context: Context | None = None
    ) -> asyncio.TimerHandle:
        return self.call_at(self._now_s + delay, callback, *args, context=context)

    def create_future(self) -> asyncio.Future[Any]:
        return asyncio.Future(loop=cast(Any, self))

    def create_task(self, coro: Any, **_: Any) -> asyncio.Task[Any]:
        task: asyncio.Task[Any] = asyncio.Task(coro, loop=cast(Any, self))
        self.tasks.add(task)
        task.add_done_callback(self._ended)
        return task

    def _ended(self, task: asyncio.Task[Any]) -> None:
        self.tasks.discard(task)
        if not task.cancelled() and task.exception() is not None:
            self.errors.append(f"a task ended with {task.exception()!r}")

    async def create_connection(self, protocol_factory: Any, host: Any = None, port: Any = None, **_: Any) -> Any:
        assert self.network is not None
        protocol = await self.network.connect(protocol_factory, f"{host}:{port}")
        return None, protocol

    def call_exception_handler(self, context: dict[str, Any]) -> None:
        self.errors.append(f"{context.get('message')}: {context.get('exception')!r}")

    def get_debug(self) -> bool:
        return False

    def is_running(self) -> bool:
        return True

    def is_closed(self) -> bool:
        return False

    def _timer_handle_cancelled(self, handle: asyncio.TimerHandle) -> None:
        pass
