"""Does the ONNX graph answer as it should? Compared with PyTorch before, and with the golden rows ever after.

Knows ONNX Runtime. Must not know how a graph is made or where releases lie.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnxruntime
import torch
from torch import nn

from exporter.errors import ParityError
from exporter.release import Golden, Release, ReleaseError, read_release, verify_files

BATCH_SIZES = (1, 2, 7)
GOLDEN_ROWS = 4
# Wider than parity: golden rows are checked on whatever serves them, and a GPU sums in another order.
GOLDEN_TOLERANCE = 1e-3

Rows = npt.NDArray[np.float32]
Answers = Mapping[str, npt.NDArray[Any]]


def open_session(graph: bytes) -> Any:
    """An ONNX Runtime session on one CPU thread. Raises ReleaseError where the bytes are no graph it can run."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    options.log_severity_level = 3
    try:
        return onnxruntime.InferenceSession(graph, options, providers=["CPUExecutionProvider"])
    except Exception as exc:  # its errors have no common root but Exception
        raise ReleaseError(f"ONNX Runtime cannot load the model: {exc}") from exc


def answer(session: Any, inputs: Mapping[str, npt.NDArray[Any]]) -> Answers:
    names = [output.name for output in session.get_outputs()]
    return dict(zip(names, session.run(names, dict(inputs)), strict=True))


def compare(model: nn.Module, session: Any, rows: Rows, largest: int, tolerance: float) -> dict[str, float]:
    """Ask both at batch sizes 1, 2, 7 and `largest`, on real rows, float32 [rows, *dims], repeated where too few.

    Labels must be the same, except in rows whose two best probabilities are closer than `tolerance`.

    Returns:
        For each batch size the largest absolute difference of a probability.

    Raises:
        ParityError: a difference above `tolerance`.
    """
    sizes = sorted({*BATCH_SIZES, largest})
    return {str(size): _compare(model, session, _batch(rows, size), tolerance) for size in sizes if size <= largest}


def _batch(rows: Rows, size: int) -> Rows:
    return rows[np.arange(size) % len(rows)]


@torch.no_grad()
def _compare(model: nn.Module, session: Any, batch: Rows, tolerance: float) -> float:
    label, probabilities = (tensor.numpy() for tensor in model(torch.from_numpy(batch)))
    found = answer(session, {"image": batch})
    difference = float(np.abs(found["probabilities"] - probabilities).max())
    if not difference <= tolerance:
        raise ParityError(
            f"at batch size {len(batch)} a probability from ONNX Runtime differs by {difference:.2e} from PyTorch's, "
            f"and {tolerance:.2e} is allowed: the release is refused"
        )
    is_other = (found["label"] != label)[:, 0] & (_lead(probabilities) > tolerance)
    if is_other.any():
        raise ParityError(
            f"at batch size {len(batch)} ONNX Runtime gives another label than PyTorch in {int(is_other.sum())} rows: "
            "the release is refused"
        )
    return difference


def _lead(probabilities: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    """How far the best class is ahead of the second, [rows]."""
    best_two = np.sort(probabilities, axis=1)[:, -2:]
    return np.asarray(best_two[:, -1] - best_two[:, 0])


def choose_golden(session: Any, rows: Rows) -> Golden:
    """Real rows with their answers. Only rows that no rounding can give another label are taken."""
    probabilities = answer(session, {"image": rows})["probabilities"]
    chosen = rows[_lead(probabilities) > 10 * GOLDEN_TOLERANCE][:GOLDEN_ROWS]
    if not len(chosen):
        raise ParityError(
            "the model is undecided about every validation row, so it has no golden rows: train it longer"
        )
    found = answer(session, {"image": chosen})
    outputs = {name: array.tolist() for name, array in found.items()}
    return Golden({"image": chosen.tolist()}, outputs, GOLDEN_TOLERANCE)


def check_release(folder: Path) -> Release:
    """Read a published release, check its files, load its graph and ask it the golden rows.

    Raises:
        ReleaseError: any of it is not as it was when the release was written.
    """
    release = read_release(folder)
    verify_files(release, folder)
    graph = folder / "triton" / release.model / str(release.number) / "model.onnx"
    session = open_session(graph.read_bytes())
    found = answer(session, {name: np.asarray(rows, np.float32) for name, rows in release.golden.inputs.items()})
    for name, expected in release.golden.outputs.items():
        if not np.allclose(found[name], expected, rtol=0, atol=release.golden.tolerance):
            raise ReleaseError(f'release {release.name}: "{name}" is not answered as the golden rows say')
    return release
