"""Checkpoints: everything that decides how a training goes on, in one file that is whole or not there.

Knows torch's serialisation and the generators of torch, numpy and Python. Must not know models or the loop.

A file is one line `sluice-checkpoint 1 SHA256`, then what `torch.save` wrote. The digest finds damage that a zip
reader would let through.
"""

import hashlib
import io
import json
import pickle
import random
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from trainer.durable import sync_folder, write_durably
from trainer.errors import CheckpointError

KEPT = 2
_MAGIC = b"sluice-checkpoint 1 "


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """The state after `epoch` epochs. `belongs_to` (configuration, data fingerprint, device) says whose it is.

    `generators` comes from `read_generators`; it covers the order of rows and the dropout to come.
    """

    epoch: int
    belongs_to: Mapping[str, Any]
    weights: Mapping[str, Any]
    optimizer: Mapping[str, Any]
    generators: Mapping[str, Any]


def read_generators(order: np.random.Generator) -> dict[str, Any]:
    """The state of every source of randomness. `order` is the one that the order of rows is drawn from."""
    return {
        "order": json.dumps(order.bit_generator.state),
        "python": json.dumps(random.getstate()),
        "torch": torch.get_rng_state(),
        "cuda": torch.cuda.get_rng_state_all() if torch.cuda.is_available() else [],
    }


def set_generators(states: Mapping[str, Any], order: np.random.Generator) -> None:
    """Go on where `read_generators` was called."""
    order.bit_generator.state = json.loads(states["order"])
    version, internal, gauss = json.loads(states["python"])
    random.setstate((version, tuple(internal), gauss))
    torch.set_rng_state(states["torch"])
    if torch.cuda.is_available():
        torch.cuda.set_rng_state_all(states["cuda"])


def write_checkpoint(folder: Path, checkpoint: Checkpoint) -> Path:
    """Write `epoch-N.pt` durably, then remove all but the last two."""
    folder.mkdir(parents=True, exist_ok=True)
    buffer = io.BytesIO()
    torch.save({name: getattr(checkpoint, name) for name in Checkpoint.__slots__}, buffer)
    payload = buffer.getvalue()
    path = folder / f"epoch-{checkpoint.epoch:07}.pt"
    write_durably(path, _MAGIC + hashlib.sha256(payload).hexdigest().encode() + b"\n" + payload)
    for old in checkpoint_paths(folder)[:-KEPT]:
        old.unlink()
    sync_folder(folder)
    return path


def read_checkpoint(path: Path) -> Checkpoint:
    """Read a file that `write_checkpoint` wrote; tensors come to the CPU, and nothing in it is executed.

    Raises:
        CheckpointError: it cannot be read, is cut short or was changed.
    """
    try:
        head, _, payload = path.read_bytes().partition(b"\n")
        if head != _MAGIC + hashlib.sha256(payload).hexdigest().encode():
            raise CheckpointError(f"the checkpoint {path} is cut short or was changed")
        return Checkpoint(**torch.load(io.BytesIO(payload), map_location="cpu", weights_only=True))
    except (OSError, RuntimeError, pickle.UnpicklingError, TypeError) as exc:
        raise CheckpointError(f"the checkpoint {path} cannot be read: {exc}") from exc


def latest_checkpoint(folder: Path, announce: Callable[[str], None]) -> Checkpoint | None:
    """The newest that is whole, or None where there are none. Passing over a damaged one is announced.

    Raises:
        CheckpointError: there are checkpoints, and all are damaged.
    """
    paths = checkpoint_paths(folder)
    for path in reversed(paths):
        try:
            return read_checkpoint(path)
        except CheckpointError as exc:
            announce(f"{exc}; trying the one before")
    if paths:
        raise CheckpointError(f"every checkpoint in {folder} is damaged: train again into another folder")
    return None


def checkpoint_paths(folder: Path) -> list[Path]:
    """Oldest first."""
    return sorted(folder.glob("epoch-*.pt"))
