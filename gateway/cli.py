"""`sluice gateway`: serve clients, with or without a control plane; reload, upgrade or show the one that runs."""

import asyncio
import json
import logging
import signal
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any

import typer

from gateway import handover, presence
from gateway.config import GatewayConfig, load_config
from gateway.errors import GatewayError
from gateway.supervisor import Supervisor, serve

TIMEOUT_S = 120.0
"""How long `reload` and `upgrade` wait; old workers of a reload before may drain first."""

gateway = typer.Typer(add_completion=False, rich_markup_mode="rich")

Config = Annotated[Path | None, typer.Option("--config", help="TOML file with a table named gateway.")]
StateDir = Annotated[
    str | None, typer.Option("--state-dir", help="Where the pid file and the last route table are kept.")
]
Timeout = Annotated[float, typer.Option("--timeout-s", help="How long to wait for it.")]


@gateway.callback(invoke_without_command=True)
def run(
    context: typer.Context,
    config: Config = None,
    routes: Annotated[Path | None, typer.Option(help="Static route table (JSON), instead of a control plane.")] = None,
    listen: Annotated[str | None, typer.Option(help="Where clients connect, HOST:PORT.")] = None,
    metrics_listen: Annotated[str | None, typer.Option(help="Where Prometheus scrapes /metrics, HOST:PORT.")] = None,
    control_url: Annotated[
        str | None, typer.Option(help="The control plane, http://HOST:PORT; several with commas.")
    ] = None,
    state_dir: StateDir = None,
    name: Annotated[str | None, typer.Option(help="This gateway's name, unique in the fleet.")] = None,
    workers: Annotated[int | None, typer.Option(help="Worker processes; default: one a core.")] = None,
    check: Annotated[bool, typer.Option("--check", help="Only check, and print where it would listen.")] = False,
) -> None:
    """Serve clients: split, stick, fall back, mirror and count.

    Examples:

        sluice gateway --control-url http://127.0.0.1:8080

        sluice gateway --routes routes.json --listen 127.0.0.1:8000 --workers 2

        sluice gateway reload
    """
    if context.invoked_subcommand is not None:
        context.obj = config, state_dir
        return
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(name)s %(message)s")
    logging.getLogger("httpx").setLevel(logging.WARNING)
    settings = {
        "listen": listen, "metrics_listen": metrics_listen, "control_url": control_url, "state_dir": state_dir,
        "name": name, "workers": workers,
    }  # fmt: skip

    def load() -> GatewayConfig:
        loaded = load_config(config, settings)
        if routes is None and not loaded.control_url:
            raise GatewayError("the gateway needs routes: give --control-url http://HOST:PORT or --routes FILE")
        return loaded if routes is None else replace(loaded, control_url="")

    try:
        if check:
            handover.check_layout()
            loaded = load()
            typer.echo(json.dumps({"listen": loaded.listen, "metrics_listen": loaded.metrics_listen}))
            return
        asyncio.run(serve(load, routes, _announce))
    except GatewayError as exc:
        raise _failed(exc) from exc


@gateway.command()
def reload(
    context: typer.Context, config: Config = None, state_dir: StateDir = None, timeout_s: Timeout = TIMEOUT_S
) -> None:
    """Read the settings again and renew the workers; no request is refused or cut. Like SIGHUP.

    Exit code 2 when no gateway runs there, or when it was given up: then the old workers serve on.
    """
    _ask(context, config, state_dir, signal.SIGHUP, timeout_s)


@gateway.command()
def upgrade(
    context: typer.Context, config: Config = None, state_dir: StateDir = None, timeout_s: Timeout = TIMEOUT_S
) -> None:
    """Go over to the code that is installed now, in place; no request is refused or cut. Like SIGUSR2.

    Exit code 2 when no gateway runs there, or when it was given up: then the running one goes on as it was.
    """
    _ask(context, config, state_dir, signal.SIGUSR2, timeout_s)


@gateway.command()
def status(
    context: typer.Context,
    config: Config = None,
    state_dir: StateDir = None,
    as_json: Annotated[bool, typer.Option("--json", help="As JSON.")] = False,
) -> None:
    """Show the gateway that runs: workers, route table, control plane, the last reload."""
    try:
        now = presence.status(_state_dir(context, config, state_dir))
    except GatewayError as exc:
        raise _failed(exc) from exc
    typer.echo(json.dumps(now, indent=1) if as_json else "\n".join(_lines(now)))


def _ask(
    context: typer.Context, config: Path | None, state_dir: str | None, number: signal.Signals, timeout_s: float
) -> None:
    is_told = False

    def waiting(now: Mapping[str, Any]) -> None:
        nonlocal is_told
        if not is_told and any(worker["state"] == "draining" for worker in now.get("workers", ())):
            is_told = True
            typer.echo("old workers are still draining ...")

    try:
        outcome = presence.ask(_state_dir(context, config, state_dir), number, timeout_s, waiting)["outcome"]
        if not outcome["ok"]:
            raise GatewayError(outcome["text"])
    except GatewayError as exc:
        raise _failed(exc) from exc
    typer.echo(outcome["text"])


def _state_dir(context: typer.Context, config: Path | None, state_dir: str | None) -> Path:
    """Where that gateway's state is, by options before or after the command. Raises ConfigError."""
    config_before, state_dir_before = context.obj
    return Path(load_config(config or config_before, {"state_dir": state_dir or state_dir_before}).state_dir)


def _lines(now: Mapping[str, Any]) -> list[str]:
    if "workers" not in now:
        return [f"pid {now['pid']}, starting"]
    lines = [f"{now['name']} on http://{now['listen']}, pid {now['pid']}, metrics on {now['metrics_listen']}"]
    version = now["table_version"]
    lines.append(f"route table: {f'version {version}' if version >= 0 else 'none yet'}")
    if now["table_refused"]:
        lines.append(f"  the newest was refused: {now['table_refused']}")
    if now["control_plane"]:
        reached = "reached" if now["control_plane_is_reached"] else "not reached"
        lines.append(f"control plane: {now['control_plane']}, {reached}")
    lines.append(f"workers: generation {now['generation']}, {now['workers_replaced']} replaced after their death")
    lines += [f"  pid {one['pid']}: {one['state']}, generation {one['generation']}" for one in now["workers"]]
    if now["outcome"]:
        lines.append(f"last: {now['outcome']['text']}")
    return lines


def _failed(exc: GatewayError) -> typer.Exit:
    typer.secho(f"error: {exc}", err=True, fg="red")
    return typer.Exit(2)


def _announce(supervisor: Supervisor) -> None:
    logging.getLogger("sluice.gateway").info("serving on http://%s", supervisor.address)
