"""`sluice demo`: everything that Sluice does, on this machine, in a few minutes."""

import asyncio
import json
from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from loadtests.demo.screen import Screen
from loadtests.demo.stage_hands import new_place
from loadtests.demo.story import Story
from loadtests.errors import LoadError


def demo(
    home: Annotated[Path, typer.Option("--home", help="A folder for it; an earlier demo there is removed.")] = Path(
        "build/demo"
    ),
    rate: Annotated[float, typer.Option("--rate", min=20, max=2000, help="Requests a second.")] = 300.0,
    keep: Annotated[bool, typer.Option("--keep", help="Leave it running at the end, until Ctrl-C.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print the results as JSON at the end.")] = False,
) -> None:
    """Train four models, serve them, and roll them out and back under live traffic without a lost request.

    Exit code 0 when every promise was kept, 1 when not, 2 when it could not run.
    """
    console = Console(stderr=as_json)
    try:
        story = asyncio.run(_play(home, rate, keep, console))
    except* LoadError as group:
        first = group.exceptions[0]
        console.print(f"error: {first}", style="red", markup=False, highlight=False, soft_wrap=True)
        raise SystemExit(2) from first
    except* KeyboardInterrupt:
        console.print("stopped; nothing is left running", style="yellow")
        raise SystemExit(130) from None
    _finish(story, home, console, as_json)


async def _play(home: Path, rate: float, keep: bool, console: Console) -> Story:
    place = new_place(home)
    with Screen(console) as screen:
        story = Story(place, screen, rate)
        try:
            await story.tell()
            if keep:
                screen.step(f"kept running: clients {place.clients_url}, control {place.control_url}; Ctrl-C stops it")
                await _until_interrupted()
        finally:
            screen.step("stopping everything")
            await asyncio.shield(story.close())
    return story


async def _until_interrupted() -> None:
    try:
        await asyncio.Event().wait()
    except asyncio.CancelledError:
        task = asyncio.current_task()
        assert task is not None
        task.uncancel()  # Ctrl-C is how a kept demo ends well.


def _finish(story: Story, home: Path, console: Console, as_json: bool) -> None:
    outcome, account = story.outcome, story.traffic.account
    Screen(console).results(account, outcome.rollouts, outcome.promises, outcome.seconds)
    report = {
        "seconds": outcome.seconds,
        "traffic": account.to_json(),
        "rollouts": outcome.rollouts,
        "promises": [asdict(promise) for promise in outcome.promises],
    }
    (home / "report.json").write_text(json.dumps(report, indent=1))
    if as_json:
        typer.echo(json.dumps(report))
    raise typer.Exit(0 if all(promise.is_kept for promise in outcome.promises) else 1)
