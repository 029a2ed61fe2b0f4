"""`sluice load`: constant traffic at any gateway, with every request accounted for."""

import asyncio
import json
import time
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.live import Live
from rich.table import Table

from loadtests.account import Account
from loadtests.errors import LoadError
from loadtests.rows import rows_for
from loadtests.schedule import Load, Traffic, metadata_of


def load(
    host: Annotated[str, typer.Option("--host", help="The gateway, or a Triton.")] = "http://127.0.0.1:8000",
    model: Annotated[str, typer.Option("--model", help="The model to ask.")] = "digits",
    rate: Annotated[float, typer.Option("--rate", min=0.1, max=20000, help="Requests a second.")] = 100.0,
    seconds: Annotated[float, typer.Option("--seconds", min=0.1, max=86400, help="How long.")] = 10.0,
    sticky: Annotated[float, typer.Option("--sticky", min=0, max=1, help="Share of sticky clients.")] = 0.5,
    binary: Annotated[float, typer.Option("--binary", min=0, max=1, help="Share of binary requests.")] = 0.25,
    rows: Annotated[Path | None, typer.Option("--rows", help="An .npz file with inputs and labels.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON instead.")] = False,
) -> None:
    """Send an open-loop load and show who answered. Exit code 1 when a request failed or was not accounted for.

    Example: sluice load --rate 300 --seconds 30
    """
    host = host if "://" in host else f"http://{host}"
    wanted = Load(host, model, rate, sticky_share=sticky, binary_share=binary)
    try:
        account = asyncio.run(_run(wanted, rows, seconds, Console(stderr=True)))
    except LoadError as exc:
        Console(stderr=True).print(f"error: {exc}", style="red", markup=False, highlight=False, soft_wrap=True)
        raise typer.Exit(2) from exc
    if as_json:
        typer.echo(json.dumps(account.to_json()))
    else:
        Console().print(table_of(account))
    raise typer.Exit(0 if account.is_balanced and not account.failed else 1)


async def _run(wanted: Load, rows: Path | None, seconds: float, console: Console) -> Account:
    traffic = Traffic(wanted, rows_for(wanted.model, await metadata_of(wanted.url, wanted.model), rows))
    running = asyncio.create_task(traffic.run(seconds))
    began = time.monotonic()
    with Live(console=console, transient=True, refresh_per_second=4) as live:
        while not running.done():
            live.update(f"{time.monotonic() - began:4.0f} of {seconds:.0f} s  {traffic.account.sent:,} sent")
            await asyncio.wait({running}, timeout=0.25)
    return await running


def table_of(account: Account) -> Table:
    """The books as a table, one row a release."""
    withdrawn = f" + {account.withdrawn:,} withdrawn" if account.withdrawn else ""
    table = Table(
        "release", "answered", "failed", "fallbacks", "accuracy", "p50 ms", "p99 ms",
        title=f"{account.sent:,} sent = {account.answered:,} answered + {account.failed:,} failed{withdrawn}",
    )  # fmt: skip
    for name, page in sorted(account.pages.items()):
        accuracy = f"{page.right / page.judged:.4f}" if page.judged else ""
        p50, p99 = page.quantile_ms(0.5), page.quantile_ms(0.99)
        table.add_row(
            name, f"{page.answered:,}", f"{page.failed:,}", f"{page.fallbacks:,}", accuracy,
            "" if p50 is None else f"{p50:.2f}", "" if p99 is None else f"{p99:.2f}",
        )  # fmt: skip
    if account.reasons:
        table.caption = "; ".join(f"{n:,} x {reason}" for reason, n in account.reasons.most_common(5))
    return table
