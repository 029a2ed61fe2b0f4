"""Our own gateway as a peer: everything on, one worker, its routes from a file."""

import json
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

from gateway.routes import Candidate, Route, RouteTable, Shadow
from loadtests.peers.peer import Peer, Task, package_versions

MODEL = "digits"
ROUTES = "routes.json"
SHADOW = 3
_UNENDING: dict[str, float] = {"requests_per_connection": 1_000_000_000}
"""Like every peer's here: a connection that is closed after so many requests is not what is measured."""


def command(task: Task) -> list[str]:
    """One route: stable 1, candidate 2, and the mirror as the shadow 3."""
    return start_with(table(task, [MODEL]), task)


def start_with(
    routes: RouteTable, task: Task, workers: int = 1, settings: Mapping[str, float] | None = None
) -> list[str]:
    """A gateway with this table; `settings` are keys of its [gateway] table."""
    write_routes(routes, task.folder / ROUTES)
    config = task.folder / "gateway.toml"
    config.write_text(
        "\n".join(["[gateway]", *(f"{key} = {value}" for key, value in (_UNENDING | dict(settings or {})).items())])
    )
    return [
        sys.executable, "-m", "sluice", "gateway", "--workers", str(workers), "--config", str(config),
        "--routes", str(task.folder / ROUTES), "--listen", task.listen, "--metrics-listen", "127.0.0.1:0",
        "--state-dir", str(task.folder / "state"),
    ]  # fmt: skip


def table(task: Task, models: Sequence[str], version: int = 1, stable: int = 1) -> RouteTable:
    """The same split for each of these models; the candidate is the release, 1 or 2, that is not stable."""
    servers: dict[int, tuple[str, ...]] = {1: (task.stable,), 2: (task.candidate,)}
    shadow = None
    if task.mirror is not None:
        servers[SHADOW] = (task.mirror,)
        shadow = Shadow(SHADOW, 1.0)
    candidate = Candidate(3 - stable, task.weight)
    return RouteTable(
        version,
        {
            model: Route(model, version, stable, servers, candidate=candidate, shadow=shadow, salt="bench")
            for model in models
        },
    )


def write_routes(routes: RouteTable, path: Path) -> None:
    """Put a table where a gateway watches for it, as a whole or not at all."""
    staged = path.with_suffix(".staged")
    staged.write_text(json.dumps(routes.to_json()))
    staged.replace(path)


SLUICE = Peer("sluice", package_versions("sluice", "uvloop", "httptools"), "make setup", command, mirrors=True)
