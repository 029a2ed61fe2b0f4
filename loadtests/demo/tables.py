"""The demo's results on the terminal, readable at 80 columns: traffic, rollouts with their reasons, promises."""

from collections.abc import Mapping, Sequence
from typing import Any

from rich import box
from rich.console import Console
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from loadtests.account import Account
from loadtests.cli import table_of
from loadtests.demo.promises import Promise
from loadtests.demo.story import Outcome


def show(console: Console, outcome: Outcome, account: Account) -> None:
    """Print all of it."""
    console.print(table_of(account))
    console.print(rollouts_table(outcome.rollouts))
    for one in outcome.rollouts:
        reason = Text.assemble((_name(one), "bold"), f"  {one['decision']['reason']}")
        console.print(Padding(reason, (0, 2)))
    console.print()
    console.print(promises_table(outcome.promises, outcome.seconds))


def rollouts_table(rollouts: Sequence[Mapping[str, Any]]) -> Table:
    """How each rollout ended, what decided it and after how much; the reasons stand below it."""
    table = Table("rollout", "outcome", "decided by", title="rollouts", box=box.SIMPLE)
    for title in ("requests", "seconds"):
        table.add_column(title, justify="right")
    for one in rollouts:
        decision = one["decision"]
        outcome, after = one["status"].replace("_", " "), (f"{decision['requests']:,}", f"{decision['seconds']:.0f}")
        table.add_row(_name(one), outcome, decision["by"], *after)
    return table


def promises_table(promises: Sequence[Promise], seconds: float) -> Table:
    table = Table("", "promised", "seen", title=f"promises, after {seconds:.0f} s", box=box.SIMPLE, pad_edge=False)
    for promise in promises:
        table.add_row("[green]kept[/]" if promise.is_kept else "[bold red]BROKEN[/]", promise.text, promise.seen)
    return table


def _name(rollout: Mapping[str, Any]) -> str:
    return f"{rollout['model']}/{rollout['release']}"
