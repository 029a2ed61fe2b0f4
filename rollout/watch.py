"""A rollout on the terminal: one picture for `status`, the same picture live for `watch`."""

import time
from typing import Any

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.table import Table
from rich.text import Text

from rollout.client import ClientError, ControlClient
from rollout.decision.state import ENDED

COLOURS = {
    "promoted": "green", "rolled_back": "red", "failed": "red", "aborted": "yellow", "held": "yellow",
    "harmed": "red", "cleared": "green", "invalid": "yellow",
}  # fmt: skip
BAR_WIDTH = 16


def picture(rollout: dict[str, Any]) -> RenderableType:
    """Where a rollout stands: stage, guards with their evidence, and what it waits for."""
    parts: list[RenderableType] = [_headline(rollout)]
    if rollout["verdicts"]:
        parts.append(_guards(rollout["verdicts"]))
    parts += [Text(f"{one['name']}: {one['reason']}", style="yellow") for one in rollout["checks"] if one["is_failed"]]
    if rollout["waiting_for"]:
        parts.append(Text("waiting for " + "; ".join(rollout["waiting_for"]), style="dim"))
    if rollout["decision"]:
        parts.append(Text(rollout["summary"], style=COLOURS.get(rollout["status"], "")))
    return Group(*parts)


def _headline(rollout: dict[str, Any]) -> Text:
    name, status = f"{rollout['model']}/{rollout['release']}", rollout["status"]
    over = "first release" if rollout["stable"] is None else f"over {rollout['stable']}"
    text = Text.assemble((name, "bold"), f" ({over})  ", (status.replace("_", " "), COLOURS.get(status, "cyan")))
    if status not in ENDED:
        stage = "baking" if rollout["stage"] > rollout["stages"] else f"stage {rollout['stage']} of {rollout['stages']}"
        text.append(f"  {stage}, weight {rollout['weight']:.0%}, shadow {rollout['shadow_share']:.0%}")
        text.append(f", {rollout['requests']:,} requests, {rollout['seconds_in_stage']:.0f} s in stage")
    return text


def _guards(verdicts: list[dict[str, Any]]) -> Table:
    table = Table("guard", "finding", "harm", "clear", "what was seen", "to decide", box=None, pad_edge=False)
    for one in verdicts:
        finding = Text(one["finding"], style=COLOURS.get(one["finding"], ""))
        bars = _bar(one["harm"], "red"), _bar(one["clear"], "green")
        table.add_row(one["guard"], finding, *bars, one["reason"], one["needs"])
    return table


def _bar(share: float, colour: str) -> Text:
    filled = round(share * BAR_WIDTH)
    return Text.assemble(("█" * filled, colour), ("░" * (BAR_WIDTH - filled), "dim"))


def watch(client: ControlClient, key: int, console: Console, every_s: float = 0.5) -> dict[str, Any]:
    """Show a rollout live until it has settled; returns it. A control plane that is away for a while is waited for."""
    try:
        return _watch(client, key, console, every_s)
    except KeyboardInterrupt:
        console.print(f"rollout {key} goes on; `sluice rollout watch {key}` shows it again", highlight=False)
        raise


def _watch(client: ControlClient, key: int, console: Console, every_s: float) -> dict[str, Any]:
    rollout = client.rollout(key)
    with Live(picture(rollout), console=console, refresh_per_second=4) as live:
        while not rollout["is_settled"]:
            time.sleep(every_s)
            try:
                rollout = client.rollout(key)
                live.update(picture(rollout))
            except ClientError as exc:
                if 400 <= exc.status < 500:
                    raise
                live.update(Group(picture(rollout), Text("the control plane is away; waiting for it", style="yellow")))
    if not console.is_terminal:
        console.print()  # Live leaves the last line open there.
    return rollout
