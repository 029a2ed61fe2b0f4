"""What the controller asks of whoever runs pools, and what it sees of one running pool.

Knows releases and addresses. Must not know Triton, processes or files: `process.TritonHost` and `running.RunningHost`
do, and `fake.FakeHost` pretends to.
"""

from pathlib import Path
from typing import Any, Protocol, TypeVar

from exporter.release import Release


class Pool(Protocol):
    """The servers of one release. Each host has a record of its own that says more; it never changes."""

    @property
    def model(self) -> str: ...

    @property
    def release(self) -> int: ...

    @property
    def addresses(self) -> tuple[str, ...]:
        """Where it takes requests, as the route table wants them: HOST:PORT."""

    def to_json(self) -> dict[str, Any]:
        """With `model` and `release`, for whoever looks."""


P = TypeVar("P", bound=Pool)


class PoolHost(Protocol[P]):
    """Runs pools. Every method may block for seconds and may be called from any thread; all are idempotent."""

    def start(self, release: Release, folder: Path) -> P:
        """Bring up the release in `folder` (exporter.release's layout) until it answers its golden rows.

        A pool of that release that already runs and answers them is returned as it is; what a dead one left is removed
        first.

        Raises:
            PoolError: it could not; the message has the reason, and nothing of the attempt is left running.
        """

    def is_alive(self, pool: P) -> bool:
        """Is it still just as it was started? Says nothing about how well it answers. When not: `start` it again."""

    def last_words(self, pool: P) -> str | None:
        """Why it died, as far as its servers or their logs say; None where some of its servers serve still."""

    def stop(self, pool: P, timeout_s: float) -> None:
        """Ask it to end, and after `timeout_s` end it; then remove what it leaves. A dead pool is only tidied up."""

    def found(self) -> list[P]:
        """The pools that run and were ready once, whoever started them: after a restart, the ones to adopt.

        What dead pools and interrupted starts have left is removed.
        """
