"""The demo's four runs are as good, and as bad, on live traffic as the demo needs them to be."""

from pathlib import Path

import pytest
import torch

from trainer.config import read_config
from trainer.data import load_dataset
from trainer.evaluate import answer
from trainer.loop import train
from trainer.result import load_model

EXAMPLES = Path(__file__).parents[2] / "trainer" / "examples"


@pytest.mark.parametrize(
    ("name", "low", "high"),
    [("digits-1", 0.88, 0.92), ("digits-2", 0.965, 1), ("digits-3", 0.84, 0.90), ("digits-4", 0.965, 1)],
)
def test_live_accuracy(tmp_path: Path, name: str, low: float, high: float) -> None:
    config = read_config(EXAMPLES / f"{name}.toml")
    dataset = load_dataset(config.data)
    model = load_model(tmp_path, train(config, dataset, tmp_path), config)
    answers = answer(model, dataset.live.inputs, torch.device("cpu"))
    assert low <= (answers.label == dataset.live.labels).mean() <= high
