"""The inputs that are sent: the live split of the digits, a file's rows, or noise in a model's shape."""

import zipfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from loadtests.errors import LoadError
from trainer.config import DataConfig
from trainer.data import live_split
from trainer.errors import TrainerError


@dataclass(frozen=True, slots=True)
class Rows:
    """`inputs` [rows, *dims] float32 for the input named `name`; `labels` [rows] int64, or None when unknown."""

    name: str
    inputs: npt.NDArray[np.float32]
    labels: npt.NDArray[np.int64] | None


def rows_for(model: str, metadata: dict[str, Any], path: Path | None = None, seed: int = 0) -> Rows:
    """Rows for a model, given its metadata (GET /v2/models/MODEL).

    A file is an .npz with `inputs` and, if known, `labels`. Without one, the model `digits` gets the live split, which
    no run was trained on, and any other model gets noise and no labels.

    Raises:
        LoadError: the file is of no use, or the model does not take one FP32 input.
    """
    inputs = metadata.get("inputs", [])
    if len(inputs) != 1 or inputs[0]["datatype"] != "FP32":
        raise LoadError(f"{model} must take one FP32 input for this load; it takes {inputs}")
    name, dims = inputs[0]["name"], [int(dim) for dim in inputs[0]["shape"][1:]]
    if path is not None:
        return _from_file(name, path)
    if model == "digits":
        try:
            live_inputs, labels = live_split(DataConfig())
        except TrainerError as exc:
            raise LoadError(str(exc)) from exc
        return Rows(name, live_inputs, labels)
    noise = np.random.default_rng(seed).random((256, *[abs(dim) for dim in dims]), dtype=np.float32)
    return Rows(name, noise, None)


def _from_file(name: str, path: Path) -> Rows:
    try:
        with path.open("rb") as file, np.lib.npyio.NpzFile(file) as arrays:
            labels = arrays["labels"].astype(np.int64) if "labels" in arrays else None
            rows = Rows(name, arrays["inputs"].astype(np.float32), labels)
    except (OSError, EOFError, KeyError, ValueError, zipfile.BadZipFile) as exc:
        raise LoadError(
            f"{path} must be an .npz file with an array `inputs`, and `labels` if they are known: {exc}"
        ) from exc
    if rows.inputs.ndim < 2 or not len(rows.inputs) or (labels is not None and labels.shape != rows.inputs.shape[:1]):
        raise LoadError(f"{path} must hold at least one row [rows, *dims] in `inputs`, and one label for each")
    return rows
