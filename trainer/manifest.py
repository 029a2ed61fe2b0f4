"""The run manifest: what one finished training is. Written last, so a run without it is unfinished.

Knows the layout of a run folder and imports no torch. Must not know how any of it was computed.

    runs/NAME/
      checkpoints/epoch-00020.pt    the last two, to resume from
      weights.pt                    the result
      run.json                      this manifest
"""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

from trainer.durable import write_durably
from trainer.errors import RunError

MANIFEST = "run.json"
WEIGHTS = "weights.pt"
CHECKPOINTS = "checkpoints"
FORMAT = 1


@dataclass(frozen=True, slots=True)
class DataRecord:
    """What was learned from: `fingerprint` is a SHA-256 over all rows, `rows` counts them by split."""

    source: str
    sensitivity: str
    fingerprint: str
    dims: tuple[int, ...]
    classes: int
    rows: Mapping[str, int]


@dataclass(frozen=True, slots=True)
class Metrics:
    """On the validation split. `slices` holds the accuracy of each slice, as in {"class 3": 0.94}."""

    accuracy: float
    loss: float
    slices: Mapping[str, float]


@dataclass(frozen=True, slots=True)
class Run:
    """One finished training. `digests` maps files below the run's folder to their SHA-256.

    `profile` describes inputs and outputs on the validation split, as a reference for what comes later; see
    `trainer.evaluate.profile`.
    """

    run: str
    finished_at: str
    config: Mapping[str, Any]
    data: DataRecord
    code: str
    environment: Mapping[str, str]
    metrics: Metrics
    profile: Mapping[str, Any]
    digests: Mapping[str, str]

    def to_json(self) -> dict[str, Any]:
        return {"format": FORMAT, **asdict(self)}


def write_run(folder: Path, run: Run) -> None:
    write_durably(folder / MANIFEST, json.dumps(run.to_json(), indent=1).encode())


def read_run(folder: Path) -> Run:
    """The manifest of a finished run.

    Raises:
        RunError: there is none, the training did not finish, or the manifest is damaged.
    """
    path = folder / MANIFEST
    if not folder.is_dir():
        raise RunError(f"there is no run at {folder}: train one with `sluice train CONFIG.toml --out {folder}`")
    if not path.exists():
        raise RunError(
            f"{folder} holds no {MANIFEST}: it is not a run, or its training has not finished; "
            f"go on with `sluice train CONFIG.toml --out {folder} --resume`"
        )
    try:
        return _from_json(json.loads(path.read_text()))
    except (OSError, ValueError, KeyError, TypeError) as exc:
        raise RunError(f"{path} cannot be read ({exc!r}): train again into another folder") from exc


def verify_weights(folder: Path, run: Run) -> Path:
    """The path of the run's weights, once they match their digest. Raises RunError."""
    path = folder / WEIGHTS
    if not path.exists() or file_digest(path) != run.digests[WEIGHTS]:
        raise RunError(f"{path} is missing or was changed after the training: train again into another folder")
    return path


def file_digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _from_json(data: Mapping[str, Any]) -> Run:
    if data["format"] != FORMAT:
        raise ValueError(f"format {data['format']!r}, this version reads {FORMAT}")
    known = {field.name: data[field.name] for field in fields(Run)}
    record = {field.name: data["data"][field.name] for field in fields(DataRecord)}
    known["data"] = DataRecord(**{**record, "dims": tuple(record["dims"])})
    known["metrics"] = Metrics(**{field.name: data["metrics"][field.name] for field in fields(Metrics)})
    return Run(**known)
