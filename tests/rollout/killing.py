"""A whole rollout in processes that are killed, one after the other, each after one more step than the one before.

    python -m tests.rollout.killing URL FOLDER

Plays it once unhurt, then for each step (a transaction that was committed, or an instruction that was carried out) in
a process of its own that SIGKILLs itself right after that step, and in another that goes on to the end. Prints a JSON
list with what each came to. The database is emptied before each play.

Time is the play's own: second by second, windows and labels of that second are kept, then the controller ticks.
"""

import json
import os
import signal
import sys
import threading
import time
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psycopg
from sqlalchemy import Connection, func, select

from exporter.release import Release
from gateway.samples import Label
from gateway.windows import Outcome, Role, Window, bucket_of
from rollout.controller import Controller
from rollout.leading import Leadership
from rollout.plan import plan_from_json
from rollout.pools.records import PoolProcess
from rollout.routing import Heartbeat, Routing
from rollout.serving import Serving
from rollout.store import observations, rollouts
from rollout.store.database import Database
from rollout.store.observations import Prediction
from rollout.store.tables import windows
from tests.rollout.releases import write_release

SECONDS_MOST = 60
PLAN = {
    "block_s": 4.0, "cap_blocks": 2, "warmup_s": 0.0, "bake_s": 3.0, "longest_s": 1000.0,
    "guards": {"latency": {"required": False}},
    "stages": [
        {"shadow_share": 1.0, "soak_s": 2.0, "min_requests": 10, "clear": ["quality"]},
        {"weight": 0.5, "shadow_share": 1.0, "soak_s": 2.0, "min_requests": 10},
    ],
}  # fmt: skip


class Steps:
    """Counts steps, and dies after the one it was told."""

    def __init__(self, last: int | None) -> None:
        self.passed, self._last = 0, last
        self._lock = threading.Lock()

    def step(self) -> None:
        with self._lock:
            self.passed += 1
            if self.passed == self._last:
                os.kill(os.getpid(), signal.SIGKILL)
                time.sleep(60)


class CountedDatabase(Database):
    """Every transaction that was committed is a step."""

    steps: Steps

    @contextmanager
    def writing(self) -> Iterator[Connection]:
        with super().writing() as connection:
            yield connection
        self.steps.step()


class RecordedHost:
    """Pools that are files, so that they outlive the process. Every start and stop is a step."""

    def __init__(self, folder: Path, steps: Steps) -> None:
        self._folder, self._steps = folder, steps
        folder.mkdir(parents=True, exist_ok=True)

    def start(self, release: Release, folder: Path) -> PoolProcess:
        (self._folder / str(release.number)).touch()
        self._steps.step()
        return self._pool(release.number)

    def _pool(self, number: int) -> PoolProcess:
        return PoolProcess("digits", number, 1, number, 9000 + number, 0, 0, self._folder, f"none_{number}_")

    def is_alive(self, pool: PoolProcess) -> bool:
        return (self._folder / str(pool.release)).exists()

    def last_words(self, pool: PoolProcess) -> str | None:
        return "it is gone"

    def stop(self, pool: PoolProcess, timeout_s: float) -> None:
        (self._folder / str(pool.release)).unlink(missing_ok=True)
        self._steps.step()

    def found(self) -> list[PoolProcess]:
        return [self._pool(int(path.name)) for path in sorted(self._folder.iterdir())]


class Play:
    """One control plane's life in it."""

    def __init__(self, url: str, folder: Path, steps: Steps) -> None:
        self.database = CountedDatabase.open(url)
        self.database.steps = steps
        self.host = RecordedHost(folder / "pools", steps)
        leadership = Leadership(self.database, "http://play")
        self._leadership = leadership
        self.routing = Routing(leadership, 30.0)
        self.second = 0
        self.controller = Controller(
            leadership, Serving(self.host, folder / "models"), self.routing, folder / "models", tick_s=1.0,
            drain_timeout_s=5.0, kept_observations_s=1e9, now=lambda: 1000.0 + self.second,
        )  # fmt: skip
        self._is_over = threading.Event()
        threading.Thread(target=self._beat, daemon=True).start()
        self.controller.lead_or_follow()
        self.wait(lambda: not self._owes())

    def _beat(self) -> None:
        """A gateway that applies every table at once and has nothing in flight."""
        while not self._is_over.wait(0.002):
            self.routing.heard("g", Heartbeat(time.monotonic(), self.routing.table.version, {}))

    def _owes(self) -> bool:
        with self.database.reading() as connection:
            return bool(rollouts.owed(connection))

    def wait(self, until: Callable[[], bool]) -> None:
        ends = time.monotonic() + 20.0
        while not until():
            assert time.monotonic() < ends, "it does not settle"
            time.sleep(0.002)

    def go(self) -> dict[str, Any]:
        """To the end, from wherever the one before came to."""
        if "digits" not in self.routing.table.routes:
            if not self._begun():
                self.controller.begin("digits", 1, plan_from_json({}), "test", "the first")
            self.wait(lambda: not self._owes())
        if len(self._begun()) < 2:
            self.controller.begin("digits", 2, plan_from_json(PLAN), "test", "the second")
            self.wait(lambda: not self._owes())
        self.second = kept = self._last_second()
        while self.second < SECONDS_MOST and not self._end().has_ended:
            if self.second > kept:
                self._count()
            self.controller.tick()
            self.wait(lambda: not self._owes())
            self.second += 1
        self._is_over.set()
        return self._found()

    def _begun(self) -> list[int]:
        with self.database.reading() as connection:
            return [one.id for one in rollouts.page(connection)]

    def _end(self) -> Any:
        with self.database.reading() as connection:
            return rollouts.get(connection, max(self._begun())).state

    def _last_second(self) -> int:
        """The last one whose counts were kept; 0 before the first."""
        with self.database.reading() as connection:
            return (connection.execute(select(func.max(windows.c.sequence))).scalar() or 0) // 10

    def _count(self) -> None:
        """What the gateway counts in a second is kept, all of it or nothing."""
        route = self.routing.table.routes["digits"]
        weight = 0.0 if route.candidate is None else route.candidate.weight
        seen = [(2, Role.MIRRORED, 50)]
        if weight > 0:
            seen += [(1, Role.ANSWERED, round(1000 * (1 - weight))), (2, Role.ANSWERED, round(1000 * weight))]
        counted = [
            Window("g", "b", 10 * self.second + number, route.revision, "digits", release, role, weight,
                   1000.0 + self.second, 1.0, {Outcome.OK: ok}, {bucket_of(1000.0): ok})
            for number, (release, role, ok) in enumerate(seen, start=1)
        ]  # fmt: skip
        names = [f"{self.second}-{number}" for number in range(50)]
        with self._leadership.writing() as connection:
            observations.keep_windows(connection, counted, 1000.0)
            observations.keep_predictions(
                connection, [Prediction(name, "digits", 1000.0 + self.second, 1, (3,), 2, (7,)) for name in names]
            )
            observations.keep_labels(connection, [Label(name, "digits", (7,)) for name in names], 1000.0)

    def _found(self) -> dict[str, Any]:
        """What must be the same however often it was killed."""
        state = self._end().to_json()
        same = {key: state[key] for key in ("status", "decision", "evidence", "trail", "requests")}
        stable = self.routing.table.routes["digits"].stable
        return {**same, "stable": stable, "pools": [pool.release for pool in self.host.found()]}


def in_a_child(url: str, folder: Path, last: int | None) -> dict[str, Any] | None:
    """Play on in a process of its own; None when it was killed."""
    result = folder / "result.json"
    pid = os.fork()
    if pid == 0:
        try:
            steps = Steps(last)
            found = Play(url, folder, steps).go()
            result.write_text(json.dumps({**found, "steps": steps.passed}))
        except BaseException as exc:
            result.write_text(json.dumps({"error": "".join(traceback.format_exception(exc))}))
        os._exit(0)
    _, status = os.waitpid(pid, 0)
    return None if os.WIFSIGNALED(status) else json.loads(result.read_text())  # type: ignore[no-any-return]


def play(url: str, folder: Path, last: int | None) -> dict[str, Any]:
    """With nothing of the play before; when it was killed, the next one goes on."""
    empty(url)
    for number in (1, 2):
        write_release(folder / "models", number)
    found = in_a_child(url, folder, last)
    assert last is None or found is None, f"it came to its end before step {last}"
    return found if found is not None else in_a_child(url, folder, None) or {"error": "killed"}


def empty(url: str) -> None:
    if url.startswith("sqlite:///"):
        for path in Path(url.removeprefix("sqlite:///")).parent.glob("*.db*"):
            path.unlink()
        return
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute("DROP SCHEMA public CASCADE")
        connection.execute("CREATE SCHEMA public")


def main(url: str, folder: Path) -> None:
    unhurt = play(url, folder / "0", None)
    hurt = [play(url, folder / str(last), last) for last in range(1, 1 + int(unhurt.get("steps", 0)))]
    sys.stdout.write(json.dumps([unhurt, *hurt]))


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]))
