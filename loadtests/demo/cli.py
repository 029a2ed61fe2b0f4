"""`sluice demo`: everything that Sluice does, on this machine, in a few minutes."""

import asyncio
import json
from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from loadtests.demo.interruption import Interruption
from loadtests.demo.place import Place, taken
from loadtests.demo.screen import Screen
from loadtests.demo.story import Story
from loadtests.demo.tables import show
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

    Exit code 0 when every promise was kept, 1 when not, 2 when it could not run, 130 after Ctrl-C.
    """
    console, interruption = Console(stderr=as_json), Interruption()
    try:
        with taken(home) as place:
            story = asyncio.run(_play(place, rate, keep, console, interruption))
            if interruption.number is not None and not (keep and story.is_told):
                console.print(_stopped(story), style="yellow")
                raise typer.Exit(128 + interruption.number)
            _finish(story, place, console, as_json)
    except LoadError as exc:
        console.print(f"error: {exc}", style="red", markup=False, highlight=False, soft_wrap=True)
        raise typer.Exit(2) from exc


async def _play(place: Place, rate: float, keep: bool, console: Console, interruption: Interruption) -> Story:
    """Tell the story to its end, or until a signal. Whatever happens, everything that was started is stopped."""
    loop = asyncio.get_running_loop()
    with Screen(console) as screen:
        story = Story(place, screen, rate)
        telling = loop.create_task(_tell(story, place, screen, keep))
        try:
            with interruption.ending(lambda: loop.call_soon_threadsafe(telling.cancel)):
                await asyncio.wait({telling})
            screen.step("stopping everything")
        finally:  # Also when nobody reads what is shown any more.
            await story.close()
    if not telling.cancelled():
        telling.result()
    return story


async def _tell(story: Story, place: Place, screen: Screen, keep: bool) -> None:
    await story.tell()
    if keep:
        screen.step(f"kept running: clients {place.clients_url}, control {place.control_url}; Ctrl-C stops it")
        await asyncio.Event().wait()


def _stopped(story: Story) -> str:
    left = ", ".join(story.outcome.left)
    return f"stopped; had to be killed: {left}" if left else "stopped; nothing is left running"


def _finish(story: Story, place: Place, console: Console, as_json: bool) -> None:
    outcome, account = story.outcome, story.traffic.account
    report = {
        "seconds": outcome.seconds,
        "traffic": account.to_json(),
        "rollouts": outcome.rollouts,
        "promises": [asdict(promise) for promise in outcome.promises],
    }
    (place.home / "report.json").write_text(json.dumps(report, indent=1))
    show(console, outcome, account)
    if as_json:
        typer.echo(json.dumps(report))
    raise typer.Exit(0 if all(promise.is_kept for promise in outcome.promises) else 1)
