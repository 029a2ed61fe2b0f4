"""What is sent: the live split, a file's rows, or noise; and a clear refusal of anything else."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from loadtests.errors import LoadError
from loadtests.rows import rows_for
from tests.loadtests.tiny_model import METADATA
from trainer.config import DataConfig
from trainer.data import live_split


def _metadata(*inputs: tuple[str, str, list[int]]) -> dict[str, Any]:
    return {"inputs": [{"name": name, "datatype": kind, "shape": shape} for name, kind, shape in inputs]}


def test_digits_get_the_live_split() -> None:
    rows = rows_for("digits", METADATA)
    inputs, labels = live_split(DataConfig())
    assert rows.name == "image"
    assert np.array_equal(rows.inputs, inputs)
    assert rows.labels is not None
    assert np.array_equal(rows.labels, labels)


def test_another_model_gets_noise_in_its_shape_and_no_labels() -> None:
    rows = rows_for("other", _metadata(("x", "FP32", [-1, 3, -1])))
    assert rows.inputs.shape == (256, 3, 1)
    assert rows.inputs.dtype == np.float32
    assert rows.labels is None
    assert np.array_equal(rows.inputs, rows_for("other", _metadata(("x", "FP32", [-1, 3, -1]))).inputs)


@pytest.mark.parametrize("labels", [None, np.arange(5)])
def test_a_file_gives_its_rows(tmp_path: Path, labels: np.ndarray | None) -> None:
    inputs = np.arange(20.0).reshape(5, 4)
    np.savez(tmp_path / "rows.npz", inputs=inputs, **({} if labels is None else {"labels": labels}))
    rows = rows_for("other", _metadata(("x", "FP32", [-1, 4])), tmp_path / "rows.npz")
    assert np.array_equal(rows.inputs, inputs.astype(np.float32))
    assert (rows.labels is None) == (labels is None)


@pytest.mark.parametrize("content", [None, b"", b"not an archive", b"PK\x03\x04 cut off"])
def test_a_file_of_no_use_is_named(tmp_path: Path, content: bytes | None) -> None:
    path = tmp_path / "rows.npz"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(LoadError, match=r"rows\.npz must be an \.npz file with an array `inputs`"):
        rows_for("digits", METADATA, path)


def _save(path: Path, **arrays: Any) -> Path:
    np.savez(path, **arrays)
    return path


def test_rows_that_do_not_fit_are_refused(tmp_path: Path) -> None:
    nameless = _save(tmp_path / "a.npz", rows=np.zeros((2, 8, 8)))
    empty = _save(tmp_path / "b.npz", inputs=np.zeros((0, 8, 8)))
    uneven = _save(tmp_path / "c.npz", inputs=np.zeros((2, 8, 8)), labels=np.zeros(3))
    bare = tmp_path / "d.npy"
    np.save(bare, np.zeros((2, 8, 8)))
    for path in (nameless, empty, uneven, bare):
        with pytest.raises(LoadError, match=path.name):
            rows_for("digits", METADATA, path)


@pytest.mark.parametrize(
    "metadata", [{}, _metadata(("x", "INT64", [-1])), _metadata(("x", "FP32", [-1]), ("y", "FP32", [-1]))]
)
def test_a_model_with_other_inputs_is_refused(metadata: dict[str, Any]) -> None:
    with pytest.raises(LoadError, match="must take one FP32 input"):
        rows_for("other", metadata)
