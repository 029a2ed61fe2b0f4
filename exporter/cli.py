"""`sluice export` and `sluice verify`: the terminal's side of the exporter.

Knows rich, typer and exit codes (0 done, 2 the user's mistake or a damaged file). Must not know how exporting works.
torch is imported only when a command runs.
"""

import contextlib
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.table import Table

from exporter.errors import ExportError
from exporter.release import Release, ReleaseError, release_folder
from trainer.errors import TrainerError

_stderr = Console(stderr=True)


def export(
    run: Annotated[Path, typer.Argument(metavar="RUN", help="The folder of a finished run.")],
    model: Annotated[str, typer.Option("--model", help="The name that clients call.")],
    repository: Annotated[Path, typer.Option("--repository", help="The model repository.")] = Path("models"),
    max_batch_size: Annotated[int, typer.Option("--max-batch-size", min=1, max=65_536, help="Rows in one batch.")] = 64,
    tolerance: Annotated[
        float, typer.Option("--tolerance", min=0, max=1, help="How far a probability may be from PyTorch's.")
    ] = 1e-4,
    as_json: Annotated[bool, typer.Option("--json", help="Print the release manifest as JSON.")] = False,
) -> None:
    """Export a run as the next release of a model: ONNX, compared with PyTorch, published as a whole."""
    with _mistakes_told(), _stderr.status("loading torch") as status:
        from exporter.pipeline import export_run

        release = export_run(
            run, model, repository, max_batch_size=max_batch_size, tolerance=tolerance, announce=status.update
        )
    _tell(release, release_folder(repository, model, release.number), as_json)


def verify(
    folder: Annotated[Path, typer.Argument(metavar="RELEASE", help="A release's folder, as in models/digits/7.")],
    as_json: Annotated[bool, typer.Option("--json", help="Print the release manifest as JSON.")] = False,
) -> None:
    """Check a release: every file against its digest, and the model against its golden rows."""
    with _mistakes_told(), _stderr.status("checking the release"):
        from exporter.verify import check_release

        release = check_release(folder)
    _tell(release, folder, as_json)


@contextlib.contextmanager
def _mistakes_told() -> Iterator[None]:
    try:
        yield
    except (ExportError, ReleaseError, TrainerError, OSError) as exc:
        _stderr.print(f"error: {exc}", style="red", markup=False, highlight=False, soft_wrap=True)
        raise typer.Exit(2) from exc


def _tell(release: Release, folder: Path, as_json: bool) -> None:
    if as_json:
        typer.echo(json.dumps(release.to_json()))
        return
    table = Table.grid(padding=(0, 2))
    table.add_row("release", release.name)
    table.add_row("run", release.run)
    table.add_row("accuracy", f"{release.metrics['accuracy']:.4f}")
    table.add_row("parity", f"{max(release.parity.values()):.1e} from PyTorch at most")
    table.add_row("folder", str(folder))
    Console().print(table)
