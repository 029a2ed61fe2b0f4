"""The training, from a configuration to a finished run folder, top to bottom.

Knows the order of things: data, model, epochs, checkpoints, evaluation, manifest last. Must not know the terminal:
progress and announcements go to the functions it is given.
"""

import os
import random
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch.nn import functional

from trainer import checkpoint as checkpoints
from trainer import manifest
from trainer.config import Config, TrainingConfig
from trainer.data import Dataset
from trainer.errors import CheckpointError, ConfigError, RunError
from trainer.models import build_model
from trainer.result import finish

PROGRESS_EVERY_BATCHES = 20


@dataclass(frozen=True, slots=True)
class Progress:
    """`rows` of `rows_total` seen over all epochs; `loss` is the mean over the epoch so far, in nats."""

    epoch: int
    rows: int
    rows_total: int
    loss: float


def train(
    config: Config,
    dataset: Dataset,
    out: Path,
    *,
    resume: bool = False,
    watch: Callable[[Progress], None] = lambda progress: None,
    announce: Callable[[str], None] = lambda message: None,
) -> manifest.Run:
    """Train on `dataset`, loaded as `config.data` says, and leave a run folder with its manifest written last.

    Killed at any moment and called again with `resume`, it ends with the same weights, bit by bit, as if it had not
    been killed: the generators' states are part of a checkpoint, and only deterministic algorithms are used.

    Raises:
        TrainerError: the configuration, the folder or its checkpoints are not as they should be. Nothing was written.
    """
    check_folder(out, resume)
    settings = config.training
    device = choose_device(settings)
    make_deterministic(settings)
    order = np.random.default_rng(settings.seed)

    model = build_model(config.model, dataset.train.inputs.shape[1:], dataset.classes)
    inputs, labels = torch.from_numpy(dataset.train.inputs), torch.from_numpy(dataset.train.labels)
    model.learn_statistics(inputs)
    model.to(device)
    inputs, labels = inputs.to(device), labels.to(device)
    optimizer = torch.optim.AdamW(model.parameters(), settings.learning_rate, weight_decay=settings.weight_decay)

    belongs_to = {"config": config.to_json(), "data": dataset.fingerprint, "device": device.type}
    folder = out / manifest.CHECKPOINTS
    done = checkpoints.latest_checkpoint(folder, announce) if resume else None
    if done:
        check_owner(done, belongs_to, out)
        model.load_state_dict(done.weights)
        optimizer.load_state_dict(dict(done.optimizer))
        checkpoints.set_generators(done.generators, order)
        announce(f"going on after epoch {done.epoch} of {settings.epochs}")

    rows_total = settings.epochs * len(labels)
    for epoch in range(done.epoch + 1 if done else 1, settings.epochs + 1):
        model.train()
        loss_sum = torch.zeros((), device=device)
        batches = torch.split(torch.from_numpy(order.permutation(len(labels))), settings.batch_size)
        rows = 0
        for number, batch in enumerate(batches, start=1):
            batch = batch.to(device)
            loss = functional.cross_entropy(model.logits(inputs[batch]), labels[batch])
            optimizer.zero_grad()
            torch.autograd.backward(loss)
            optimizer.step()
            loss_sum += loss.detach() * len(batch)
            rows += len(batch)
            if number % PROGRESS_EVERY_BATCHES == 0 or number == len(batches):
                watch(Progress(epoch, (epoch - 1) * len(labels) + rows, rows_total, float(loss_sum) / rows))
        if epoch % settings.checkpoint_every == 0 or epoch == settings.epochs:
            state = checkpoints.Checkpoint(
                epoch, belongs_to, model.state_dict(), optimizer.state_dict(), checkpoints.read_generators(order)
            )
            checkpoints.write_checkpoint(folder, state)

    return finish(config, out, dataset, model, device)


def check_folder(out: Path, resume: bool) -> None:
    """A finished run is never written over, an unfinished one only where that is meant. Raises RunError."""
    if (out / manifest.MANIFEST).exists():
        raise RunError(f"{out} holds a finished run, which is never written over: choose another folder")
    if checkpoints.checkpoint_paths(out / manifest.CHECKPOINTS) and not resume:
        raise RunError(f"{out} holds an unfinished run: add --resume to go on with it, or choose another folder")
    if out.exists() and not out.is_dir():
        raise RunError(f"{out} is a file: choose another folder")


def check_owner(done: checkpoints.Checkpoint, belongs_to: dict[str, Any], out: Path) -> None:
    """A checkpoint is only gone on with by the training that wrote it. Raises CheckpointError naming what differs."""
    before, now = _flat(done.belongs_to), _flat(belongs_to)
    changed = [f"{key} was {before.get(key)!r} and is {now[key]!r}" for key in now if before.get(key) != now[key]]
    if changed:
        raise CheckpointError(
            f"{out} was begun with another configuration ({'; '.join(changed)}): "
            "go on with the old one, or choose another folder"
        )


def choose_device(settings: TrainingConfig) -> torch.device:
    """Raises ConfigError where "cuda" is asked for and is not there."""
    if settings.device == "cuda" and not torch.cuda.is_available():
        raise ConfigError('[training] device is "cuda", but torch finds no GPU here: use "auto" or "cpu"')
    is_cuda = settings.device != "cpu" and torch.cuda.is_available()
    return torch.device("cuda" if is_cuda else "cpu")


def make_deterministic(settings: TrainingConfig) -> None:
    """Seed every generator and allow only algorithms that give the same bits each time."""
    # https://docs.nvidia.com/cuda/cublas, "Results reproducibility": needed before the first cuBLAS call.
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    torch.use_deterministic_algorithms(True)
    torch.set_num_threads(settings.threads)
    torch.manual_seed(settings.seed)
    random.seed(settings.seed)


def _flat(table: Any, prefix: str = "") -> dict[str, Any]:
    if not isinstance(table, dict):
        return {prefix: table}
    flat: dict[str, Any] = {}
    for name, item in table.items():
        flat |= _flat(item, f"{prefix}.{name}" if prefix else name)
    return flat
