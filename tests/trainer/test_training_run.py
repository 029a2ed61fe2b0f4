"""A training from end to end, in process: what it leaves, and what it refuses."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from trainer import checkpoint as checkpoints
from trainer.config import Config, DataConfig, ModelConfig, TrainingConfig
from trainer.data import load_dataset
from trainer.errors import CheckpointError, RunError
from trainer.evaluate import answer
from trainer.loop import Progress, train
from trainer.manifest import CHECKPOINTS, WEIGHTS, Run, read_run, verify_weights
from trainer.result import load_model

TINY = Config(
    model=ModelConfig(hidden=(8,), dropout=0.1), training=TrainingConfig(epochs=4, checkpoint_every=1, device="cpu")
)


@pytest.fixture(scope="module")
def run_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("runs") / "tiny"
    _train(TINY, folder)
    return folder


def test_manifest_says_what_the_run_is(run_folder: Path) -> None:
    run = read_run(run_folder)
    assert run.run.startswith("tiny-")
    assert run.config == TINY.to_json()
    assert run.data.fingerprint == load_dataset(TINY.data).fingerprint
    assert 0.2 < run.metrics.accuracy <= 1
    assert set(run.metrics.slices) == {f"class {label}" for label in range(10)}
    assert sum(run.profile["inputs"]["image"]["histogram"]["counts"]) == 180 * 64
    assert sum(run.profile["outputs"]["label"]["shares"]) == pytest.approx(1, abs=1e-4)
    assert sorted(run.digests) == ["checkpoints/epoch-0000003.pt", "checkpoints/epoch-0000004.pt", WEIGHTS]


def test_model_is_rebuilt_with_its_preprocessing(run_folder: Path) -> None:
    run = read_run(run_folder)
    validation = load_dataset(TINY.data).validation
    answers = answer(load_model(run_folder, run, TINY), validation.inputs, torch.device("cpu"))
    assert (answers.label == validation.labels).mean() == pytest.approx(run.metrics.accuracy)
    assert answers.probabilities.sum(axis=1) == pytest.approx(np.ones(180), abs=1e-5)


def test_conv_takes_images_and_reports_progress(tmp_path: Path) -> None:
    seen: list[Progress] = []
    config = replace(TINY, model=ModelConfig(kind="conv", hidden=(4,)), training=TrainingConfig(epochs=2, device="cpu"))
    run = _train(config, tmp_path / "conv", watch=seen.append)
    assert run.metrics.accuracy > 0.5
    assert [progress.rows for progress in seen if progress.epoch == 2][-1] == seen[-1].rows_total == 2 * 1078
    assert seen[-1].loss < seen[0].loss


def test_finished_and_unfinished_folders_are_not_written_over(run_folder: Path, tmp_path: Path) -> None:
    with pytest.raises(RunError, match="finished run, which is never written over"):
        _train(TINY, run_folder, resume=True)
    unfinished = _unfinished(run_folder, tmp_path)
    with pytest.raises(RunError, match="add --resume"):
        _train(TINY, unfinished)
    with pytest.raises(RunError, match="has not finished"):
        read_run(unfinished)


def test_resuming_with_another_configuration_is_refused(run_folder: Path, tmp_path: Path) -> None:
    changed = replace(TINY, training=replace(TINY.training, batch_size=64))
    with pytest.raises(CheckpointError, match=r"config\.training\.batch_size was 32 and is 64"):
        _train(changed, _unfinished(run_folder, tmp_path), resume=True)
    other_rows = replace(TINY, data=DataConfig(split_seed=9))
    with pytest.raises(CheckpointError, match=r"config\.data\.split_seed was 0 and is 9"):
        _train(other_rows, _unfinished(run_folder, tmp_path / "again"), resume=True)


@pytest.mark.parametrize("damage", [b"", b"garbage", None], ids=["empty", "garbage", "cut short"])
def test_damaged_checkpoint_is_passed_over_and_said(run_folder: Path, tmp_path: Path, damage: bytes | None) -> None:
    unfinished = _unfinished(run_folder, tmp_path)
    newest = unfinished / CHECKPOINTS / "epoch-0000004.pt"
    newest.write_bytes(newest.read_bytes()[:-100] if damage is None else damage)
    said: list[str] = []
    _train(TINY, unfinished, resume=True, announce=said.append)
    assert "cut short or was changed; trying the one before" in said[0]
    assert said[1] == "going on after epoch 3 of 4"
    assert (unfinished / WEIGHTS).read_bytes() == (run_folder / WEIGHTS).read_bytes()


def test_training_killed_before_its_last_writes_is_finished(run_folder: Path, tmp_path: Path) -> None:
    unfinished = _unfinished(run_folder, tmp_path)
    run = _train(TINY, unfinished, resume=True)
    assert (unfinished / WEIGHTS).read_bytes() == (run_folder / WEIGHTS).read_bytes()
    assert read_run(unfinished) == run


def test_only_damaged_checkpoints_are_refused(run_folder: Path, tmp_path: Path) -> None:
    unfinished = _unfinished(run_folder, tmp_path)
    for path in checkpoints.checkpoint_paths(unfinished / CHECKPOINTS):
        path.write_bytes(path.read_bytes()[:50])
    with pytest.raises(CheckpointError, match=r"every checkpoint in .* is damaged"):
        _train(TINY, unfinished, resume=True)


def test_changed_weights_are_refused(run_folder: Path, tmp_path: Path) -> None:
    run = read_run(run_folder)
    (tmp_path / WEIGHTS).write_bytes(b"other")
    with pytest.raises(RunError, match="changed after the training"):
        verify_weights(tmp_path, run)


def _train(config: Config, out: Path, **how: Any) -> Run:
    return train(config, load_dataset(config.data), out, **how)


def _unfinished(run_folder: Path, parent: Path) -> Path:
    """A copy of a run as a kill before its last writes leaves it."""
    folder = parent / "unfinished"
    (folder / CHECKPOINTS).mkdir(parents=True)
    for path in checkpoints.checkpoint_paths(run_folder / CHECKPOINTS):
        (folder / CHECKPOINTS / path.name).write_bytes(path.read_bytes())
    return folder
