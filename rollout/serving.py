"""Which pool serves which release: started, adopted, watched, stopped. Routes get their addresses here."""

import logging
import threading
from pathlib import Path
from typing import Any

from exporter.release import ReleaseError, read_release, release_folder, verify_files
from rollout.pools.errors import PoolError
from rollout.pools.seam import Pool, PoolHost

log = logging.getLogger("sluice.control")

Key = tuple[str, int]
"""(model, release)."""


class Serving:
    """The pools of one host. Safe to use from several threads; a pool is started once, however often asked."""

    def __init__(self, host: PoolHost[Any], repository: Path) -> None:
        self._host = host
        self._repository = repository
        self._pools: dict[Key, Pool] = {}
        self._one_at_a_time: dict[Key, threading.Lock] = {}
        self._lock = threading.Lock()

    def adopt(self) -> list[Pool]:
        """Take over the pools that outlived the last control plane."""
        found: list[Pool] = self._host.found()
        self._pools = {(one.model, one.release): one for one in found}
        return found

    def ensure(self, model: str, release: int) -> Pool:
        """The ready pool of a release, started (again) if it does not live. Blocks while it warms.

        Raises:
            PoolError: the release is damaged, or its server did not become ready; nothing is left running.
        """
        key = (model, release)
        with self._lock_of(key):
            known = self._pools.get(key)
            if known is not None and self._host.is_alive(known):
                return known
            folder = release_folder(self._repository, model, release)
            try:
                manifest = read_release(folder)
                verify_files(manifest, folder)
            except ReleaseError as exc:
                raise PoolError(str(exc)) from exc
            pool: Pool = self._host.start(manifest, folder)
            self._pools[key] = pool
            return pool

    def stop(self, model: str, release: int, timeout_s: float) -> None:
        """Stop a release's pool, if there is one, and clean up after it."""
        with self._lock_of((model, release)):
            pool = self._pools.pop((model, release), None)
            if pool is not None:
                self._host.stop(pool, timeout_s)

    def _lock_of(self, key: Key) -> threading.Lock:
        """One at a time starts or stops a pool."""
        with self._lock:
            return self._one_at_a_time.setdefault(key, threading.Lock())

    def dead(self) -> list[Key]:
        """The pools that should live and do not."""
        return [key for key, pool in self._pools.copy().items() if not self._host.is_alive(pool)]

    def last_words(self, model: str, release: int) -> str | None:
        """Why a pool is not there, as far as it said; None where some of its servers serve still."""
        pool = self._pools.get((model, release))
        return "it was not there when the control plane started" if pool is None else self._host.last_words(pool)

    def addresses(self, model: str, release: int) -> tuple[str, ...]:
        """HOST:PORT of a release's servers, also when they died; none when it has no pool."""
        pool = self._pools.get((model, release))
        return () if pool is None else pool.addresses

    def pools(self) -> list[Pool]:
        return list(self._pools.copy().values())
