"""From a finished run to a published release, top to bottom.

Knows the order: load, convert, compare, choose golden rows, publish. Must not know the terminal.
"""

from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

from exporter.convert import convert, read_signature
from exporter.errors import ExportError
from exporter.release import Release
from exporter.repository import check_model_name, publish
from exporter.triton_config import config_text
from exporter.verify import choose_golden, compare, open_session
from trainer.config import Config, config_from_table
from trainer.data import Inputs, load_dataset
from trainer.manifest import Run, read_run
from trainer.result import load_model

MAX_BATCH_SIZE = 64
TOLERANCE = 1e-4


def export_run(
    run_folder: Path,
    model: str,
    repository: Path,
    *,
    max_batch_size: int = MAX_BATCH_SIZE,
    tolerance: float = TOLERANCE,
    announce: Callable[[str], None] = lambda step: None,
) -> Release:
    """Export a run as the next release of `model`. `tolerance` is absolute, on probabilities.

    Raises:
        ExportError, RunError, DatasetError: with what to do; nothing was published.
    """
    check_model_name(model)
    announce("reading the run")
    run = read_run(run_folder)
    config = config_from_table(run.config, str(run_folder))
    rows = _validation_rows(config, run)
    network = load_model(run_folder, run, config)

    announce("writing the model as ONNX")
    graph = convert(network, run.data.dims)
    session = open_session(graph)
    announce("comparing ONNX Runtime with PyTorch")
    parity = compare(network, session, rows, max_batch_size, tolerance)
    golden = choose_golden(session, rows)
    signature = read_signature(graph)

    def write(folder: Path, number: int) -> Release:
        served = folder / "triton" / model
        (served / str(number)).mkdir(parents=True)
        (served / str(number) / "model.onnx").write_bytes(graph)
        (served / "config.pbtxt").write_text(config_text(model, number, signature, max_batch_size, run.run))
        return Release(
            model=model,
            number=number,
            run=run.run,
            created_at=datetime.now(UTC).isoformat(timespec="seconds"),
            precision="fp32",
            max_batch_size=max_batch_size,
            signature=signature,
            prediction="label",
            files={},
            parity=parity,
            golden=golden,
            metrics={"accuracy": run.metrics.accuracy, "loss": run.metrics.loss},
        )

    return publish(repository, model, write, announce)


def _validation_rows(config: Config, run: Run) -> Inputs:
    dataset = load_dataset(config.data)
    if dataset.fingerprint != run.data.fingerprint:
        raise ExportError(f"{config.data.source} has changed since run {run.run} was trained on it: train again")
    return dataset.validation.inputs
