"""Which server processes serve which release: started, adopted, watched, stopped. Routes get their addresses here."""

import logging
import threading
from pathlib import Path

from exporter.release import ReleaseError, read_release, release_folder, verify_files
from rollout.pools.errors import PoolError
from rollout.pools.seam import PoolHost, PoolProcess

log = logging.getLogger("sluice.control")

Key = tuple[str, int]
"""(model, release)."""


class Serving:
    """The pools of this machine. Safe to use from several threads; a pool is started once, however often asked."""

    def __init__(self, host: PoolHost, repository: Path) -> None:
        self._host = host
        self._repository = repository
        self._processes: dict[Key, PoolProcess] = {}
        self._one_at_a_time: dict[Key, threading.Lock] = {}
        self._lock = threading.Lock()

    def adopt(self) -> list[PoolProcess]:
        """Take over the processes that outlived the last control plane."""
        found = self._host.found()
        self._processes = {(one.model, one.release): one for one in found}
        return found

    def ensure(self, model: str, release: int) -> PoolProcess:
        """The ready pool of a release, started if it does not live. Blocks while it warms.

        Raises:
            PoolError: the release is damaged, or its server did not become ready; nothing is left running.
        """
        key = (model, release)
        with self._lock_of(key):
            known = self._processes.get(key)
            if known is not None and self._host.is_alive(known):
                return known
            if known is not None:
                self._host.stop(known, 1.0)
            folder = release_folder(self._repository, model, release)
            try:
                manifest = read_release(folder)
                verify_files(manifest, folder)
            except ReleaseError as exc:
                raise PoolError(str(exc)) from exc
            process = self._host.start(manifest, folder)
            self._processes[key] = process
            return process

    def stop(self, model: str, release: int, timeout_s: float) -> None:
        """Stop a release's pool, if there is one, and clean up after it."""
        with self._lock_of((model, release)):
            process = self._processes.pop((model, release), None)
            if process is not None:
                self._host.stop(process, timeout_s)

    def _lock_of(self, key: Key) -> threading.Lock:
        """One at a time starts or stops a pool."""
        with self._lock:
            return self._one_at_a_time.setdefault(key, threading.Lock())

    def dead(self) -> list[Key]:
        """The pools that should live and do not."""
        return [key for key, process in self._processes.copy().items() if not self._host.is_alive(process)]

    def address(self, model: str, release: int) -> str | None:
        """host:port of a release's server, also when it died; None when it has none."""
        process = self._processes.get((model, release))
        return None if process is None else process.address

    def processes(self) -> list[PoolProcess]:
        return list(self._processes.copy().values())
