"""A PostgreSQL server of the tests' own, and databases in it. Knows nothing of what is kept there."""

import os
import pwd
import shutil
import signal
import subprocess
import time
from pathlib import Path

import psycopg

from rollout.pools.kernel import free_ports

USER = "sluice"


def programs() -> Path | None:
    """Where initdb and postgres are: on PATH, or where Debian puts them; the newest."""
    on_path = shutil.which("initdb")
    found = sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"), key=lambda path: int(path.parts[-3]))
    places = [*([Path(on_path)] if on_path else []), *found[::-1]]
    return places[0].parent if places else None


class PostgresServer:
    """Data in a folder of its own, on a free port. As root it runs as the user `postgres`: it refuses to be root."""

    def __init__(self, folder: Path, programs: Path) -> None:
        self._programs, self._data, self._log = programs, folder / "data", folder / "log"
        self._user = "postgres" if os.geteuid() == 0 else None
        folder.mkdir(mode=0o755, parents=True)
        if self._user:
            os.chown(folder, pwd.getpwnam(self._user).pw_uid, -1)
        arguments = ["-D", str(self._data), "-U", USER, "-A", "trust", "-E", "UTF8", "--no-locale", "--no-sync"]
        subprocess.run([programs / "initdb", *arguments], check=True, capture_output=True, user=self._user, cwd="/")
        self.port = free_ports(1)[0]
        self.process = self._begin()

    def _begin(self) -> subprocess.Popen[bytes]:
        settings = {"listen_addresses": "127.0.0.1", "port": self.port, "unix_socket_directories": "", "fsync": "off"}
        words = [word for key, value in settings.items() for word in ("-c", f"{key}={value}")]
        with self._log.open("ab") as log:
            process = subprocess.Popen(
                [self._programs / "postgres", "-D", str(self._data), *words],
                stdout=log, stderr=log, user=self._user, cwd="/",
            )  # fmt: skip
        self.process = process
        ends = time.monotonic() + 30.0
        while not self._answers():
            assert process.poll() is None and time.monotonic() < ends, self._log.read_text()
            time.sleep(0.05)
        return process

    def _answers(self) -> bool:
        try:
            psycopg.connect(self.url("postgres")).close()
        except psycopg.OperationalError:
            return False
        return True

    def url(self, database: str) -> str:
        return f"postgresql://{USER}@127.0.0.1:{self.port}/{database}"

    def create(self, database: str) -> str:
        """A new, empty database; its URL."""
        with psycopg.connect(self.url("postgres"), autocommit=True) as connection:
            connection.execute(f'CREATE DATABASE "{database}"')  # type: ignore[arg-type, unused-ignore]
        return self.url(database)

    def emptied(self, database: str) -> str:
        """The URL of a database in which nothing is left, and to which nobody is connected; made when it is not there.

        Much sooner had than a new one, whose every file is copied.
        """
        with psycopg.connect(self.url("postgres"), autocommit=True) as connection:
            found = connection.execute("SELECT 1 FROM pg_database WHERE datname = %s", [database]).fetchone()
            connection.execute("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = %s", [database])
        if found is None:
            return self.create(database)
        with psycopg.connect(self.url(database), autocommit=True) as connection:
            connection.execute("DROP SCHEMA public CASCADE")
            connection.execute("CREATE SCHEMA public")
        return self.url(database)

    def stop(self) -> None:
        """At once: whoever is connected loses the connection."""
        self.process.send_signal(signal.SIGQUIT)
        self.process.wait(30.0)

    def start(self) -> None:
        self._begin()
