"""The rows: real ones from scikit-learn, and files that are not as they should be."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from trainer.config import DataConfig
from trainer.data import live_split, load_dataset
from trainer.errors import DatasetError


def _rows(inputs: np.ndarray) -> set[bytes]:
    return {row.tobytes() for row in inputs}


def test_digits_are_all_there_and_divided_by_class() -> None:
    dataset = load_dataset(DataConfig())
    splits = (dataset.train, dataset.validation, dataset.live)
    assert [len(split) for split in splits] == [1078, 180, 539]
    assert dataset.train.inputs.shape[1:] == (8, 8)
    assert dataset.train.inputs.max() == 16
    for split in splits:
        shares = np.bincount(split.labels, minlength=10) / len(split)
        assert np.all(np.abs(shares - 0.1) < 0.015)


def test_live_rows_are_never_trained_on() -> None:
    dataset = load_dataset(DataConfig())
    assert not _rows(dataset.live.inputs) & (_rows(dataset.train.inputs) | _rows(dataset.validation.inputs))


def test_live_rows_depend_on_the_split_seed_alone() -> None:
    inputs, labels = live_split()
    same_inputs, same_labels = live_split(DataConfig(wrong_labels=0.5))
    assert np.array_equal(inputs, same_inputs)
    assert np.array_equal(labels, same_labels)
    assert not np.array_equal(inputs, live_split(DataConfig(split_seed=1))[0])


def test_wrong_labels_touch_their_share_of_training_only() -> None:
    right, wrong = load_dataset(DataConfig()), load_dataset(DataConfig(wrong_labels=0.35))
    assert np.mean(right.train.labels != wrong.train.labels) == pytest.approx(0.35, abs=0.001)
    assert np.array_equal(right.validation.labels, wrong.validation.labels)
    assert right.fingerprint == wrong.fingerprint


def test_live_rows_need_no_torch() -> None:
    code = "import sys; from trainer.data import live_split; live_split(); sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_own_file_is_read(tmp_path: Path) -> None:
    inputs = np.random.default_rng(0).random((50, 4, 5), dtype=np.float32)
    np.savez(tmp_path / "own.npz", inputs=inputs, labels=np.arange(50) % 2)
    dataset = load_dataset(DataConfig(source=str(tmp_path / "own.npz")))
    assert (dataset.classes, len(dataset.train), len(dataset.validation), len(dataset.live)) == (2, 30, 6, 14)


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        ({"inputs": np.zeros((9, 4), np.float32)}, 'must hold the arrays "inputs" and "labels"'),
        ({"inputs": np.zeros((9, 4)), "labels": np.zeros(9, np.int64)}, '"inputs" must be float32'),
        ({"inputs": np.zeros((9, 4), np.float32), "labels": np.zeros(8, np.int64)}, '"labels" must be int64 [9]'),
        ({"inputs": np.zeros((9, 4), np.float32), "labels": np.full(9, -1)}, "class numbers from 0 on"),
        ({"inputs": np.full((9, 4), np.nan, np.float32), "labels": np.zeros(9, np.int64)}, "not finite"),
        ({"inputs": np.zeros((2, 4), np.float32), "labels": np.arange(2)}, "too few rows"),
    ],
)
def test_wrong_file_is_refused(tmp_path: Path, arrays: dict[str, np.ndarray], message: str) -> None:
    np.savez(tmp_path / "own.npz", **arrays)
    with pytest.raises(DatasetError) as caught:
        load_dataset(DataConfig(source=str(tmp_path / "own.npz")))
    assert message in str(caught.value)


def test_missing_and_garbage_files_are_refused(tmp_path: Path) -> None:
    with pytest.raises(DatasetError, match=r'there is no dataset at .* set \[data\] source to "digits"'):
        load_dataset(DataConfig(source=str(tmp_path / "none.npz")))
    (tmp_path / "garbage.npz").write_bytes(b"garbage")
    with pytest.raises(DatasetError, match="cannot be read"):
        load_dataset(DataConfig(source=str(tmp_path / "garbage.npz")))
