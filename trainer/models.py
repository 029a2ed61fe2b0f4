"""The models: what a client sends goes in, the answer comes out, and all pre-processing is inside.

Knows torch and the model section of the configuration. Must not know files, data sources or the loop.
"""

import itertools
import math
from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn

from trainer.config import ModelConfig
from trainer.errors import ConfigError


class Classifier(nn.Module):
    """A body between normalising and softmax.

    `mean` [*dims] and `scale` [] are statistics of the training rows, kept as buffers so that they travel with the
    weights and end up inside the exported graph.
    """

    mean: Tensor
    scale: Tensor

    def __init__(self, body: nn.Module, dims: Sequence[int]) -> None:
        super().__init__()
        self.body = body
        self.register_buffer("mean", torch.zeros(tuple(dims)))
        self.register_buffer("scale", torch.ones(()))

    def learn_statistics(self, inputs: Tensor) -> None:
        """Set the buffers from the training rows, float32 [rows, *dims]."""
        self.mean.copy_(inputs.mean(dim=0))
        self.scale.copy_(inputs.std().clamp(min=1e-6))

    def logits(self, image: Tensor) -> Tensor:
        """float32 [batch, *dims] -> float32 [batch, classes]."""
        logits: Tensor = self.body((image - self.mean) / self.scale)
        return logits

    def forward(self, image: Tensor) -> tuple[Tensor, Tensor]:
        """The answer: `label` int64 [batch, 1] and `probabilities` float32 [batch, classes]."""
        probabilities = torch.softmax(self.logits(image), dim=1)
        return probabilities.argmax(dim=1, keepdim=True), probabilities


def build_model(config: ModelConfig, dims: Sequence[int], classes: int) -> Classifier:
    """A model with fresh weights, drawn from torch's global generator.

    Raises:
        ConfigError: this kind of model cannot take inputs of `dims`.
    """
    return Classifier(KINDS[config.kind](config, dims, classes), dims)


def _mlp(config: ModelConfig, dims: Sequence[int], classes: int) -> nn.Module:
    sizes = [math.prod(dims), *config.hidden]
    layers: list[nn.Module] = [nn.Flatten()]
    for narrow, wide in itertools.pairwise(sizes):
        layers += [nn.Linear(narrow, wide), nn.ReLU(), nn.Dropout(config.dropout)]
    return nn.Sequential(*layers, nn.Linear(sizes[-1], classes))


def _conv(config: ModelConfig, dims: Sequence[int], classes: int) -> nn.Module:
    if len(dims) != 2:
        raise ConfigError(f'[model] kind "conv" needs inputs of two dimensions, not {list(dims)}; use "mlp"')
    channels = [1, *config.hidden]
    layers: list[nn.Module] = [nn.Unflatten(1, (1, dims[0]))]
    for before, after in itertools.pairwise(channels):
        layers += [nn.Conv2d(before, after, kernel_size=3, padding=1), nn.ReLU(), nn.Dropout(config.dropout)]
    return nn.Sequential(*layers, nn.Flatten(), nn.Linear(channels[-1] * math.prod(dims), classes))


KINDS: dict[str, Callable[[ModelConfig, Sequence[int], int], nn.Module]] = {"mlp": _mlp, "conv": _conv}
