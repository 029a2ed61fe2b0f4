"""A run and its release, trained and exported for real in a few seconds, for every test that needs one."""

from dataclasses import replace
from pathlib import Path

from exporter.pipeline import export_run
from exporter.release import Release
from trainer.config import Config, ModelConfig, TrainingConfig
from trainer.data import load_dataset
from trainer.loop import train

TINY = Config(model=ModelConfig(hidden=(16,)), training=TrainingConfig(epochs=5, device="cpu"))


def tiny_run(folder: Path, seed: int = 0) -> Path:
    """Train on the digits for five epochs (about 85 % right) into `folder`, and return it."""
    config = replace(TINY, training=replace(TINY.training, seed=seed))
    train(config, load_dataset(config.data), folder)
    return folder


def tiny_release(run_folder: Path, repository: Path, model: str = "digits", max_batch_size: int = 16) -> Release:
    """Export that run as the next release of `model`."""
    return export_run(run_folder, model, repository, max_batch_size=max_batch_size)
