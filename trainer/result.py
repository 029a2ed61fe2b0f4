"""What a training leaves: weights, measurements and the manifest, and the way back from them to a model.

Knows the layout of a run folder (through `trainer.manifest`) and torch. Must not know the loop.
"""

import hashlib
import io
import json
import platform
import subprocess
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import torch

from trainer import evaluate, manifest
from trainer.checkpoint import checkpoint_paths
from trainer.config import Config
from trainer.data import Dataset
from trainer.durable import write_durably
from trainer.models import Classifier, build_model


def finish(config: Config, out: Path, dataset: Dataset, model: Classifier, device: torch.device) -> manifest.Run:
    """Measure on the validation split, write the weights, then the manifest."""
    answers = evaluate.answer(model, dataset.validation.inputs, device)
    buffer = io.BytesIO()
    torch.save({name: tensor.cpu() for name, tensor in model.state_dict().items()}, buffer)
    write_durably(out / manifest.WEIGHTS, buffer.getvalue())
    kept = [out / manifest.WEIGHTS, *checkpoint_paths(out / manifest.CHECKPOINTS)]
    digests = {str(path.relative_to(out)): manifest.file_digest(path) for path in kept}
    run = manifest.Run(
        run=_run_id(out, config, dataset, digests[manifest.WEIGHTS]),
        finished_at=datetime.now(UTC).isoformat(timespec="seconds"),
        config=config.to_json(),
        data=manifest.DataRecord(
            source=dataset.source,
            sensitivity=config.data.sensitivity,
            fingerprint=dataset.fingerprint,
            dims=dataset.train.inputs.shape[1:],
            classes=dataset.classes,
            rows={name: len(getattr(dataset, name)) for name in ("train", "validation", "live")},
        ),
        code=_code_revision(),
        environment=_environment(device),
        metrics=evaluate.measure(answers, dataset.validation, dataset.classes),
        profile=evaluate.profile(answers, dataset.validation, dataset.classes),
        digests=digests,
    )
    manifest.write_run(out, run)
    return run


def load_model(folder: Path, run: manifest.Run, config: Config) -> Classifier:
    """The trained model of a finished run, on the CPU, in evaluation mode. Raises RunError for damaged weights."""
    weights = torch.load(manifest.verify_weights(folder, run), map_location="cpu", weights_only=True)
    model = build_model(config.model, run.data.dims, run.data.classes)
    model.load_state_dict(weights)
    return model.eval()


def _run_id(out: Path, config: Config, dataset: Dataset, weights: str) -> str:
    """The folder's name and a digest of what went in and came out, so that two runs never share one."""
    what = json.dumps([config.to_json(), dataset.fingerprint, weights], sort_keys=True)
    return f"{out.resolve().name}-{hashlib.sha256(what.encode()).hexdigest()[:12]}"


def _environment(device: torch.device) -> dict[str, str]:
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else platform.machine()
    return {
        "python": platform.python_version(),
        "torch": str(torch.__version__),
        "numpy": np.__version__,
        "platform": platform.platform(),
        "device": f"{device.type} ({name})",
    }


def _code_revision() -> str:
    """The commit this code was run from, with "+changes" where it was not clean; "unknown" outside of git."""
    git = ["git", "-C", str(Path(__file__).parent)]
    try:
        commit = subprocess.run([*git, "rev-parse", "HEAD"], capture_output=True, text=True, check=True).stdout.strip()
        changes = subprocess.run([*git, "status", "--porcelain", "."], capture_output=True, text=True, check=True)
    except (OSError, subprocess.CalledProcessError):
        return "unknown"
    return f"{commit}+changes" if changes.stdout.strip() else commit
