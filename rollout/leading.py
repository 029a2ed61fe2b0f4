"""Who leads: of all control planes on one database, the one that decides and writes.

The leader is named by a row with a term and a lease, and the database's own lock (PostgreSQL's advisory lock, SQLite's
file lock, see `store.database`) lets one at a time take it. Every write of a leader asks for its term in the same
transaction: one that was frozen and thawed, or cut off, finds a newer term and writes nothing.
"""

import logging
import os
import socket
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import replace
from pathlib import Path

from sqlalchemy import Connection

from rollout.errors import NotLeaderError
from rollout.pools import kernel
from rollout.store import leader
from rollout.store.database import Database, clock_of
from rollout.store.leader import Leader

LEASE_S = 5.0
"""One that was not heard of for so long is followed by another."""
RENEW_S = 1.0

log = logging.getLogger("sluice.control")


class Leadership:
    """One control plane's part in it. Safe to use from several threads."""

    def __init__(self, database: Database, address: str, lease_s: float = LEASE_S) -> None:
        self._database = database
        self._address = address
        self._lease_s = lease_s
        self._name = f"{_machine()} {os.getpid()} {_started(os.getpid())} {id(self):x}"
        self._term: int | None = None
        self.leader = ""
        """Where the leader takes requests, as it was seen last; empty when nobody led."""

    @property
    def term(self) -> int | None:
        """None when it does not lead, as far as it knows: only a transaction of `writing` is sure of it."""
        return self._term

    def reading(self) -> AbstractContextManager[Connection]:
        """See `Database.reading`; those who follow may read too."""
        return self._database.reading()

    @contextmanager
    def writing(self) -> Iterator[Connection]:
        """A transaction as the leader, see `Database.writing`.

        Raises:
            NotLeaderError: another leads, or nobody does; nothing is written.
            DatabaseError: the database cannot be reached or written.
        """
        with self._database.writing() as connection:
            self._check(connection)
            yield connection

    def check(self) -> None:
        """Raises NotLeaderError unless it leads now."""
        with self._database.reading() as connection:
            self._check(connection)

    def _check(self, connection: Connection) -> None:
        found, term = leader.current(connection), self._term
        if term is None or found is None or found.term != term:
            if found is not None and term is not None and found.term > term:
                self._term, self.leader = None, found.address
            raise NotLeaderError(self.leader)

    def seek(self) -> bool:
        """Lead on, or begin to when nobody else does; does it lead? Raises DatabaseError."""
        with self._database.writing() as connection:
            found, now = leader.current(connection), clock_of(connection)
            if found is None:
                term = 1
            elif found.term == self._term:
                term = found.term
            elif self._is_gone(found, now):
                term = found.term + 1
            else:
                self._term, self.leader = None, found.address
                return False
            leader.replace_leader(connection, Leader(term, self._name, self._address, now))
        if term != self._term:
            log.info("leads, in term %d", term)
        self._term, self.leader = term, self._address
        return True

    def resign(self) -> None:
        """Let another follow at once. Raises DatabaseError."""
        with self._database.writing() as connection:
            found = leader.current(connection)
            if found is not None and found.term == self._term:
                leader.replace_leader(connection, replace(found, renewed_at=0.0))
        self._term = None

    def _is_gone(self, found: Leader, now: float) -> bool:
        """Did it resign, fall silent, or die on this machine? A lease from the future is of a clock set back."""
        if abs(now - found.renewed_at) > self._lease_s:
            return True
        machine, pid, started, _ = found.name.rsplit(" ", 3)
        return machine == _machine() and not kernel.is_running(int(pid), int(started))


def _machine() -> str:
    """This boot of this machine, and the space in which its pids are known."""
    boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    return f"{socket.gethostname()} {boot} {Path('/proc/self/ns/pid').readlink()}"


def _started(pid: int) -> int:
    stat = kernel.read_stat(pid)
    assert stat is not None
    return stat.started_ticks
