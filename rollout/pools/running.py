"""Pools in Tritons that are already running: releases are loaded into them beside each other, and unloaded again.

Knows the order in which that is done. Must not know routes, rollouts or who asks.

The laws: whoever changes what a model's servers serve holds its lock; a load names all numbers that are to be served,
so none is lost by it; a start that fails leaves every server with what it served before; a number that was loaded once
is never loaded with other bytes; a pool's addresses are those of the servers that answered its golden rows.
"""

import logging
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

from exporter.release import Release, ReleaseError, verify_files
from rollout.pools import published, server, v2
from rollout.pools.errors import PoolError, PoolStartError
from rollout.pools.loaded import (
    LoadedPool,
    Record,
    State,
    digest_of,
    in_state,
    model_folder,
    model_folders,
    read_records,
    write_record,
)
from rollout.pools.records import locked
from rollout.pools.triton import Triton

START_TIMEOUT_S = 60.0
ANSWER_TIMEOUT_S = 1.0
SILENCE_S = 3.0
"""A server that is silent for so long is gone. A single slow answer, or none, says nothing."""

log = logging.getLogger("sluice.control")


class RunningHost:
    """Loads releases into `tritons`, which all read `repository`, with records below `home`."""

    def __init__(
        self, home: Path, repository: Path, tritons: Sequence[Triton], start_timeout_s: float = START_TIMEOUT_S
    ) -> None:
        assert tritons
        self._home = home.resolve()
        self._repository = repository.resolve()
        self._tritons = tuple(tritons)
        self._start_timeout_s = start_timeout_s
        self._silent_since: dict[str, float] = {}

    def __repr__(self) -> str:
        return f"RunningHost({', '.join(triton.http for triton in self._tritons)})"

    def start(self, release: Release, folder: Path) -> LoadedPool:
        """See `PoolHost.start`. A release that was not loaded yet must come up on every server; one that was, on any:
        a server that is down keeps nobody from being served by the others.

        Where some of its servers lost it, it is returned with the others alone, so that the lost ones are not routed to
        while they load it: then it is not alive, since they are there again, and the next start loads it there.
        """
        home = model_folder(self._home, release.model)
        with locked(home):
            records = read_records(home)
            record = self._record(release, folder, records)
            is_new = record.state is not State.LOADED
            if is_new:
                record = replace(record, state=State.LOADING)
                write_record(home, record)
            elif lasting := self._lasting(record.pool, release):
                write_record(home, replace(record, pool=lasting))
                return lasting
            loaded = {one.pool.release for one in in_state(records.values(), State.LOADED)}
            try:
                addresses = tuple(self._bring_up(release, record, loaded | {release.number}, is_new=is_new))
            except BaseException:
                if is_new:
                    self._leave(record, loaded)
                    write_record(home, replace(record, state=State.UNLOADED))
                raise
            pool = replace(record.pool, addresses=addresses)
            write_record(home, replace(record, pool=pool, state=State.LOADED))
            return pool

    def is_alive(self, pool: LoadedPool) -> bool:
        """See `PoolHost.is_alive`: each of its servers has that version ready, and no other server came back since."""
        return not any(self._wrongs(pool))

    def last_words(self, pool: LoadedPool) -> str | None:
        """See `PoolHost.last_words`."""
        wrongs = dict(zip((triton.http for triton in self._tritons), self._wrongs(pool), strict=True))
        if not all(wrongs.get(address, "gone") for address in pool.addresses):
            return None
        return "; ".join(filter(None, wrongs.values())) or "its servers are no longer in [[control.triton]]"

    def stop(self, pool: LoadedPool, timeout_s: float) -> None:
        """See `PoolHost.stop`. What is in flight is answered by Triton in any case."""
        home = model_folder(self._home, pool.model)
        with locked(home):
            self._end(home, pool.release)
        server.wait(lambda: True not in self._readiness(pool), timeout_s)

    def found(self) -> list[LoadedPool]:
        """See `PoolHost.found`. A server that is silent may have it still: `is_alive` tells before long."""
        alive = []
        for home in model_folders(self._home):
            for number, record in read_records(home).items():
                if record.state is State.LOADED and (addresses := self._not_denied(record.pool)):
                    alive.append(replace(record.pool, addresses=addresses))
                elif record.state is not State.UNLOADED:
                    self._tidy(home, number)
        return alive

    def _record(self, release: Release, folder: Path, records: dict[int, Record]) -> Record:
        """The record of a release as it is to be loaded, its files in place. Raises PoolStartError."""
        digest, known = digest_of(release), records.get(release.number)
        if known is not None and known.digest != digest:
            raise PoolStartError(
                f"another {release.name} was loaded before: a number is never used twice; export the run again"
            )
        try:
            verify_files(release, folder)
        except ReleaseError as exc:
            raise PoolStartError(str(exc)) from exc
        published.publish(release, folder, self._repository)
        if known is not None and known.state is State.LOADED:
            return known
        settings = published.settings_of(release, folder)
        for other in in_state(records.values(), State.LOADED):
            settings = published.joining(release.name, settings, other.settings)
        return Record(LoadedPool(release.model, release.number, ()), digest, settings, State.UNLOADED)

    def _lasting(self, pool: LoadedPool, release: Release) -> LoadedPool | None:
        """The pool without the servers that lost it, when there are some of either; else None."""
        lasting = []
        for address in (triton.http for triton in self._tritons if triton.http in pool.addresses):
            try:
                v2.check_golden(address, release)
                lasting.append(address)
            except PoolError as exc:
                log.warning("%s is left out: %s", address, exc)
        return replace(pool, addresses=tuple(lasting)) if 0 < len(lasting) < len(pool.addresses) else None

    def _bring_up(self, release: Release, record: Record, numbers: set[int], *, is_new: bool) -> Iterator[str]:
        """The addresses where it is ready and answers its golden rows. Raises PoolError."""
        errors: list[PoolError] = []
        for triton in self._tritons:
            try:
                self._bring_up_on(triton, release, record, numbers)
                yield triton.http
            except PoolError as exc:
                if is_new:
                    raise
                log.warning("%s is not served by %s: %s", release.name, triton.http, exc)
                errors.append(exc)
        if len(errors) == len(self._tritons):
            raise errors[0]

    def _bring_up_on(self, triton: Triton, release: Release, record: Record, numbers: set[int]) -> None:
        """One after the other, so that a release that does not load troubles one server only."""
        triton.check()
        triton.load(release.model, record.settings, numbers, self._start_timeout_s)

        def is_ready() -> bool:
            return v2.is_ready(triton.http, release.model, release.number)

        if not server.wait(is_ready, ANSWER_TIMEOUT_S):
            raise PoolStartError(
                f"the Triton at {triton.http} has not got {release.name}: does it read {self._repository}, and is "
                f"{triton.grpc} the same server?"
            )
        v2.check_golden(triton.http, release)

    def _leave(self, record: Record, numbers: set[int]) -> None:
        """Have every server that can be reached serve these numbers of the model, and no others."""
        for triton in self._tritons:
            try:
                if numbers:
                    triton.load(record.pool.model, record.settings, numbers, self._start_timeout_s)
                else:
                    triton.unload(record.pool.model)
            except PoolError as exc:
                log.warning("%s stays where it was: %s", record.pool.name, exc)

    def _end(self, home: Path, number: int) -> None:
        records = read_records(home)
        record = records.pop(number, None)
        if record is None or record.state is State.UNLOADED:
            return
        self._leave(record, {one.pool.release for one in in_state(records.values(), State.LOADED)})
        write_record(home, replace(record, state=State.UNLOADED))

    def _tidy(self, home: Path, number: int) -> None:
        """Unload what nobody is loading any more. Read again under the lock: a start may just have come to its end."""
        with locked(home, wait=False) as is_held:
            record = read_records(home).get(number) if is_held else None
            if record is not None and not (record.state is State.LOADED and self._not_denied(record.pool)):
                self._end(home, number)

    def _readiness(self, pool: LoadedPool) -> list[bool | None]:
        """Whether each server has it ready; None for one that does not say. All are asked at once."""

        def ask(triton: Triton) -> bool | None:
            return v2.readiness(triton.http, pool.model, pool.release, ANSWER_TIMEOUT_S)

        with ThreadPoolExecutor(len(self._tritons)) as threads:
            return list(threads.map(ask, self._tritons))

    def _not_denied(self, pool: LoadedPool) -> tuple[str, ...]:
        """Its addresses, without those of servers that say they have it not."""
        said = zip(self._tritons, self._readiness(pool), strict=True)
        denied = {triton.http for triton, is_ready in said if is_ready is False}
        known = {triton.http for triton in self._tritons}
        return tuple(address for address in pool.addresses if address in known - denied)

    def _wrongs(self, pool: LoadedPool) -> list[str]:
        """What is not as it was when the pool was started, a line for each server; empty lines where all is well."""
        said = zip(self._tritons, self._readiness(pool), strict=True)
        return [self._wrong(triton.http, pool, is_ready) for triton, is_ready in said]

    def _wrong(self, address: str, pool: LoadedPool, is_ready: bool | None) -> str:
        now = time.monotonic()
        if is_ready is not None:
            self._silent_since.pop(address, None)
        silent_s = now - self._silent_since.setdefault(address, now) if is_ready is None else 0.0
        match (address in pool.addresses, is_ready):
            case (True, None) if silent_s >= SILENCE_S:
                return f"the Triton at {address} has not answered for {silent_s:.0f} s"
            case (True, False):
                return f"the Triton at {address} has it no longer: it was restarted, or someone else unloaded it"
            case (False, bool()):
                return f"the Triton at {address} is there again"
            case _:
                return ""
