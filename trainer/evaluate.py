"""How good a model is, and what its inputs and outputs look like.

Knows torch and numpy. Must not know files, nor where the rows come from.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch.nn import functional

from trainer.data import Labels, Split
from trainer.manifest import Metrics
from trainer.models import Classifier

HISTOGRAM_BINS = 16
LARGEST_BATCH = 4096


@dataclass(frozen=True, slots=True)
class Answers:
    """What a model said for each row: `label` int64 [rows], `probabilities` float32 [rows, classes]."""

    label: Labels
    probabilities: npt.NDArray[np.float32]


@torch.no_grad()
def answer(model: Classifier, inputs: npt.NDArray[np.float32], device: torch.device) -> Answers:
    """The model's answers in inference form, for float32 [rows, *dims]. Leaves the model in evaluation mode."""
    model.eval()
    parts = [model(part.to(device)) for part in torch.split(torch.from_numpy(inputs), LARGEST_BATCH)]
    label = torch.cat([label for label, _ in parts]).squeeze(1)
    probabilities = torch.cat([probabilities for _, probabilities in parts])
    return Answers(label.cpu().numpy(), probabilities.cpu().numpy())


def measure(answers: Answers, split: Split, classes: int) -> Metrics:
    """Accuracy, mean cross-entropy in nats, and the accuracy of each class that has rows."""
    is_right = answers.label == split.labels
    loss = functional.nll_loss(
        torch.from_numpy(answers.probabilities).clamp(min=1e-12).log(), torch.from_numpy(split.labels)
    )
    slices = {
        f"class {label}": round(float(is_right[split.labels == label].mean()), 6)
        for label in range(classes)
        if (split.labels == label).any()
    }
    return Metrics(accuracy=float(is_right.mean()), loss=float(loss), slices=slices)


def profile(answers: Answers, split: Split, classes: int) -> Mapping[str, Any]:
    """What inputs and outputs look like: moments and a histogram for each tensor, shares for each label.

    A later comparison of live traffic with this profile says whether the model still sees what it was made for.
    """
    return {
        "rows": len(split),
        "inputs": {"image": _describe(split.inputs)},
        "outputs": {
            "probabilities": _describe(answers.probabilities),
            "label": {"shares": _shares(answers.label, classes)},
        },
        "labels": {"shares": _shares(split.labels, classes)},
    }


def _describe(tensor: npt.NDArray[np.float32]) -> dict[str, Any]:
    counts, edges = np.histogram(tensor, bins=HISTOGRAM_BINS)
    return {
        "mean": float(tensor.mean(dtype=np.float64)),
        "std": float(tensor.std(dtype=np.float64)),
        "low": float(tensor.min()),
        "high": float(tensor.max()),
        "histogram": {"edges": [round(float(edge), 9) for edge in edges], "counts": counts.tolist()},
    }


def _shares(labels: Labels, classes: int) -> list[float]:
    counts = np.bincount(labels, minlength=classes)
    return [round(float(count) / len(labels), 6) for count in counts]
