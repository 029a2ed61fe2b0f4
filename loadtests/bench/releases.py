"""Two releases of one small digits model, trained and exported in a process of its own: torch stays out of the bench.

    python -m loadtests.bench.releases FOLDER

The model is the demo's, a perceptron with 64 hidden units; its training is cut short, since its answers are not judged.
"""

import sys
from pathlib import Path

from exporter.pipeline import export_run
from trainer.config import Config, TrainingConfig
from trainer.data import load_dataset
from trainer.loop import train

MODEL = "digits"


def repository(folder: Path) -> Path:
    return folder / "models"


def make(folder: Path) -> None:
    """Write digits/1 and digits/2, alike but for their number, into the repository below `folder`."""
    config = Config(training=TrainingConfig(epochs=5, device="cpu"))
    train(config, load_dataset(config.data), folder / "run")
    for _ in range(2):
        export_run(folder / "run", MODEL, repository(folder))


if __name__ == "__main__":
    make(Path(sys.argv[1]))
