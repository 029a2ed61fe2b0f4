"""`sluice train`: the terminal's side of the trainer.

Knows rich, typer and exit codes (0 done, 2 the user's mistake). Must not know how training works. torch is imported
only once configuration and data are known to be good, so a mistake is told at once.
"""

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table

from trainer.config import read_config
from trainer.data import load_dataset
from trainer.errors import TrainerError
from trainer.manifest import Run

if TYPE_CHECKING:
    from trainer.loop import Progress as TrainingProgress

_stderr = Console(stderr=True)


def train(
    config: Annotated[Path, typer.Argument(metavar="CONFIG.toml", help="What to train, and how.")],
    out: Annotated[Path, typer.Option("--out", metavar="FOLDER", help="The run folder to write, as in runs/NAME.")],
    resume: Annotated[bool, typer.Option("--resume", help="Go on after the last checkpoint in the folder.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print the run manifest as JSON.")] = False,
) -> None:
    """Train a model and write a run folder. Killed at any moment, it goes on with --resume as if it had not been."""
    try:
        run = _train(config, out, resume)
    except (TrainerError, OSError) as exc:
        _stderr.print(f"error: {exc}", style="red", markup=False, highlight=False, soft_wrap=True)
        raise typer.Exit(2) from exc
    if as_json:
        typer.echo(json.dumps(run.to_json()))
    else:
        Console().print(_summary(run, out))


def _train(config_path: Path, out: Path, resume: bool) -> Run:
    config = read_config(config_path)
    dataset = load_dataset(config.data)
    with _stderr.status("loading torch"):
        from trainer import loop
    with _bar() as bar:
        task = bar.add_task("training", total=None, loss="", speed="")

        def watch(progress: "TrainingProgress") -> None:
            speed = bar.tasks[task].speed
            bar.update(
                task,
                description=f"epoch {progress.epoch}/{config.training.epochs}",
                total=progress.rows_total,
                completed=progress.rows,
                loss=f"loss {progress.loss:.4f}",
                speed=f"{speed:,.0f} samples/s" if speed else "",
            )

        return loop.train(config, dataset, out, resume=resume, watch=watch, announce=bar.console.print)


def _bar() -> Progress:
    return Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("{task.fields[loss]}"),
        TextColumn("{task.fields[speed]}"),
        TimeRemainingColumn(),
        console=_stderr,
    )


def _summary(run: Run, out: Path) -> Table:
    slice_name, accuracy = min(run.metrics.slices.items(), key=lambda item: item[1])
    table = Table.grid(padding=(0, 2))
    table.add_row("run", run.run)
    table.add_row("accuracy", f"{run.metrics.accuracy:.4f} on {run.data.rows['validation']} validation rows")
    table.add_row("loss", f"{run.metrics.loss:.4f}")
    table.add_row("weakest slice", f"{slice_name}, accuracy {accuracy:.4f}")
    table.add_row("device", run.environment["device"])
    table.add_row("folder", str(out))
    return table
