"""What the demo shows while it runs: its steps, the traffic's books and the rollout under way."""

import time
from typing import Any

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.table import Table
from rich.text import Text

from loadtests.account import Account
from loadtests.errors import DemoError
from rollout.watch import picture


class Screen:
    """One live picture below the steps; on something that is no terminal, a line a step."""

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
        self._line(Text(text, style="bold"))

    def note(self, text: str) -> None:
        self._line(Text(f"  {text}"))

    def show_traffic(self, account: Account) -> None:
        self._account = account

    def show_rollout(self, rollout: dict[str, Any]) -> None:
        self._rollout = rollout

    @property
    def _elapsed(self) -> str:
        return f"{time.monotonic() - self._began:5.0f} s"

    def _line(self, text: Text) -> None:
        """A long text hangs beside the time on a terminal, and stays one line in a log.

        Raises:
            DemoError: nobody reads it any more.
        """
        elapsed = Text(self._elapsed, style="dim", no_wrap=True)
        grid = Table.grid(padding=(0, 1))
        grid.add_row(elapsed, text)
        try:
            if self._console.is_terminal:
                self._console.print(grid)
            else:
                self._console.print(Text.assemble(elapsed, " ", text), soft_wrap=True)
        except (OSError, SystemExit) as exc:  # rich makes a SystemExit of a broken pipe.
            raise DemoError("whoever read the demo's output went away") from exc

    def _picture(self) -> RenderableType:
        parts: list[RenderableType] = [Text(f"{self._elapsed} {self._step} ...", style="cyan")]
        if self._account is not None:
            failed = self._account.failed
            text = f"{self._account.sent:,} requests sent, {self._account.answered:,} answered, {failed:,} failed"
            parts.append(Text(text, style="red" if failed else "green"))
        if self._rollout is not None:
            parts.append(picture(self._rollout))
        return Group(*parts)
