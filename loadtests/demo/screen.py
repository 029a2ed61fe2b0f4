"""What the demo shows: its steps, the traffic's books and the rollout under way, live; tables at the end."""

import time
from typing import Any

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.table import Table
from rich.text import Text

from loadtests.account import Account
from loadtests.cli import table_of
from loadtests.demo.promises import Promise
from rollout.watch import picture


class Screen:
    """One live picture; on something that is no terminal, a line a step."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._began = time.monotonic()
        self._account: Account | None = None
        self._rollout: dict[str, Any] | None = None
        self._step = ""
        self._live = Live(get_renderable=self._picture, console=console, refresh_per_second=4, transient=True)

    def __enter__(self) -> "Screen":
        if self._console.is_terminal:
            self._live.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self._console.is_terminal:
            self._live.stop()

    def step(self, text: str) -> None:
        self._step, self._rollout = text, None
        self._console.print(f"[dim]{self._elapsed}[/] [bold]{text}[/]", highlight=False)

    def note(self, text: str) -> None:
        self._console.print(f"[dim]{self._elapsed}[/]   {text}", highlight=False)

    def show_traffic(self, account: Account) -> None:
        self._account = account

    def show_rollout(self, rollout: dict[str, Any]) -> None:
        self._rollout = rollout

    @property
    def _elapsed(self) -> str:
        return f"{time.monotonic() - self._began:5.0f} s"

    def _picture(self) -> RenderableType:
        parts: list[RenderableType] = [Text(f"{self._elapsed} {self._step} ...", style="cyan")]
        if self._account is not None:
            failed = self._account.failed
            text = f"{self._account.sent:,} requests sent, {self._account.answered:,} answered, {failed:,} failed"
            parts.append(Text(text, style="red" if failed else "green"))
        if self._rollout is not None:
            parts.append(picture(self._rollout))
        return Group(*parts)

    def results(
        self, account: Account, rollouts: list[dict[str, Any]], promises: list[Promise], seconds: float
    ) -> None:
        """The tables at the end."""
        self._console.print(table_of(account))
        table = Table("rollout", "outcome", "decided by", "requests", "seconds", "why", title="rollouts")
        for one in rollouts:
            decision = one["decision"]
            table.add_row(
                f"{one['model']}/{one['release']}", one["status"].replace("_", " "), decision["by"],
                f"{decision['requests']:,}", f"{decision['seconds']:.0f}", decision["reason"],
            )  # fmt: skip
        self._console.print(table)
        kept = Table("", "promised", "seen", title=f"promises, after {seconds:.0f} s")
        for promise in promises:
            kept.add_row("[green]kept[/]" if promise.is_kept else "[bold red]BROKEN[/]", promise.text, promise.seen)
        self._console.print(kept)
