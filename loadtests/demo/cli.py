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
    console = Console(stderr=as_json)
    try:
        with taken(home) as place:
            story, signal_number = asyncio.run(_play(place, rate, keep, console))
            if signal_number is not None:
                console.print(_stopped(story), style="yellow")
                raise typer.Exit(128 + signal_number)
            _finish(story, place, console, as_json)
    except LoadError as exc:
        console.print(f"error: {exc}", style="red", markup=False, highlight=False, soft_wrap=True)
        raise typer.Exit(2) from exc
    except KeyboardInterrupt:  # Before anything was started, or after everything was stopped.
        raise typer.Exit(130) from None


async def _play(place: Place, rate: float, keep: bool, console: Console) -> tuple[Story, int | None]:
    """The story, and the signal that cut it short. Whatever happens, everything that was started is stopped."""
    with Screen(console) as screen:
        story = Story(place, screen, rate)
        telling = asyncio.create_task(_tell(story, place, screen, keep))
        interruption = Interruption(telling.cancel)
        try:
            await asyncio.wait({telling})
        finally:
            screen.step("stopping everything")
            await story.close()
    if not telling.cancelled():
        telling.result()
    is_kept_to_its_end = keep and story.is_told
    return story, None if is_kept_to_its_end else interruption.number


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
