"""`sluice gateway`: serve clients, with or without a control plane."""

import asyncio
import json
import logging
from pathlib import Path
from typing import Annotated

import typer

from gateway.config import load_config
from gateway.errors import GatewayError
from gateway.supervisor import Supervisor, serve


def gateway(
    config: Annotated[Path | None, typer.Option(help="TOML file with a table named gateway.")] = None,
    routes: Annotated[Path | None, typer.Option(help="Static route table (JSON), instead of a control plane.")] = None,
    listen: Annotated[str | None, typer.Option(help="Where clients connect, HOST:PORT.")] = None,
    metrics_listen: Annotated[str | None, typer.Option(help="Where Prometheus scrapes /metrics, HOST:PORT.")] = None,
    control_url: Annotated[str | None, typer.Option(help="The control plane, http://HOST:PORT.")] = None,
    state_dir: Annotated[str | None, typer.Option(help="Where the last route table is kept.")] = None,
    name: Annotated[str | None, typer.Option(help="This gateway's name, unique in the fleet.")] = None,
    workers: Annotated[int | None, typer.Option(help="Worker processes; default: one a core.")] = None,
    check: Annotated[bool, typer.Option("--check", help="Only check, and print where it would listen.")] = False,
) -> None:
    """Serve clients: split, stick, fall back, mirror and count.

    Examples:

        sluice gateway --control-url http://127.0.0.1:8080

        sluice gateway --routes routes.json --listen 127.0.0.1:8000 --workers 2
    """
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(name)s %(message)s")
    logging.getLogger("httpx").setLevel(logging.WARNING)
    settings = {
        "listen": listen, "metrics_listen": metrics_listen, "control_url": control_url, "state_dir": state_dir,
        "name": name, "workers": workers,
    }  # fmt: skip
    try:
        loaded = load_config(config, settings)
        if routes is None and not loaded.control_url:
            raise GatewayError("the gateway needs routes: give --control-url http://HOST:PORT or --routes FILE")
        if check:
            typer.echo(json.dumps({"listen": loaded.listen, "metrics_listen": loaded.metrics_listen}))
            return
        asyncio.run(serve(loaded, routes, _announce))
    except GatewayError as exc:
        typer.secho(f"error: {exc}", err=True, fg="red")
        raise typer.Exit(2) from exc


def _announce(supervisor: Supervisor) -> None:
    logging.getLogger("sluice.gateway").info("serving on http://%s", supervisor.address)
