"""The rows and how they are divided: train 60 %, validation 10 %, live 30 %, stratified by class.

Knows where rows come from. Must not know torch: the load generator imports `live_split` without it. The division
depends on the source and `split_seed` alone, never on the training's seed, so the live rows are never trained on.
"""

import hashlib
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from trainer.config import DIGITS, DataConfig
from trainer.errors import DatasetError

LIVE_SHARE = 0.30
VALIDATION_SHARE = 0.10

Inputs = npt.NDArray[np.float32]
Labels = npt.NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class Split:
    """`inputs` float32 [rows, *dims] as clients send them (digits: pixels 0 to 16), `labels` int64 [rows]."""

    inputs: Inputs
    labels: Labels

    def __len__(self) -> int:
        return len(self.labels)


@dataclass(frozen=True, slots=True)
class Dataset:
    """A source with its splits. `fingerprint` is the SHA-256 over all rows and labels, before any label is changed."""

    source: str
    fingerprint: str
    classes: int
    train: Split
    validation: Split
    live: Split


def load_dataset(config: DataConfig) -> Dataset:
    """Read the source and divide it.

    Raises:
        DatasetError: the source is missing or does not hold what it should.
    """
    rows = _digits() if config.source == DIGITS else _npz(Path(config.source))
    classes = int(rows.labels.max()) + 1
    train, validation, live = (_take(rows, chosen) for chosen in _divide(rows.labels, config.split_seed))
    if min(len(train), len(validation), len(live)) == 0:
        raise DatasetError(f"{config.source} has too few rows a class to be divided; give at least 10 of each")
    return Dataset(
        source=config.source,
        fingerprint=_fingerprint(rows),
        classes=classes,
        train=_with_wrong_labels(train, config.wrong_labels, classes, config.split_seed),
        validation=validation,
        live=live,
    )


def live_split(config: DataConfig | None = None) -> tuple[Inputs, Labels]:
    """The rows that no training sees, as traffic: inputs float32 [rows, *dims] and labels int64 [rows], classes mixed.

    Raises:
        DatasetError: as `load_dataset`.
    """
    live = load_dataset(config or DataConfig()).live
    return live.inputs, live.labels


def _digits() -> Split:
    # Alpaydin and Kaynak, "Optical Recognition of Handwritten Digits", UCI 1998: the test part, 8x8 counts of 0 to 16.
    from sklearn.datasets import load_digits

    bunch = load_digits()
    return Split(bunch.images.astype(np.float32), bunch.target.astype(np.int64))


def _npz(path: Path) -> Split:
    try:
        with np.load(path, allow_pickle=False) as arrays:
            inputs, labels = arrays["inputs"], arrays["labels"]
    except FileNotFoundError as exc:
        raise DatasetError(
            f'there is no dataset at {path}: set [data] source to "{DIGITS}", or to an .npz file with the arrays '
            '"inputs" (float32 [rows, ...]) and "labels" (int64 [rows])'
        ) from exc
    except KeyError as exc:
        raise DatasetError(f'{path} must hold the arrays "inputs" and "labels": {exc.args[0]}') from exc
    except (OSError, ValueError, EOFError) as exc:
        raise DatasetError(f"{path} cannot be read as an .npz file: {exc}") from exc
    _check_arrays(path, inputs, labels)
    return Split(inputs, labels)


def _check_arrays(path: Path, inputs: npt.NDArray[np.generic], labels: npt.NDArray[np.generic]) -> None:
    if inputs.dtype != np.float32 or inputs.ndim < 2:
        raise DatasetError(f'{path}: "inputs" must be float32 [rows, ...], not {inputs.dtype} {list(inputs.shape)}')
    if labels.dtype != np.int64 or labels.shape != inputs.shape[:1]:
        raise DatasetError(
            f'{path}: "labels" must be int64 [{len(inputs)}], one for each row of "inputs", '
            f"not {labels.dtype} {list(labels.shape)}"
        )
    if not len(labels) or int(labels.min()) < 0:
        raise DatasetError(f'{path}: "labels" must hold class numbers from 0 on')
    if not np.isfinite(inputs).all():
        raise DatasetError(f'{path}: "inputs" holds values that are not finite')


def _divide(labels: Labels, seed: int) -> tuple[Labels, Labels, Labels]:
    """Row numbers of train, validation and live, each in random order."""
    order = np.random.default_rng(seed).permutation(len(labels))
    place = np.empty(len(labels))
    for label in np.unique(labels):
        of_class = order[labels[order] == label]
        place[of_class] = (np.arange(len(of_class)) + 0.5) / len(of_class)
    place = place[order]
    is_live = place < LIVE_SHARE
    is_train = place >= LIVE_SHARE + VALIDATION_SHARE
    return order[is_train], order[~is_live & ~is_train], order[is_live]


def _take(rows: Split, chosen: Labels) -> Split:
    return Split(rows.inputs[chosen], rows.labels[chosen])


def _with_wrong_labels(train: Split, share: float, classes: int, seed: int) -> Split:
    rng = np.random.default_rng([seed, 1])
    wrong = rng.choice(len(train), round(share * len(train)), replace=False)
    labels = train.labels.copy()
    labels[wrong] = (labels[wrong] + rng.integers(1, max(classes, 2), len(wrong))) % classes
    return Split(train.inputs, labels)


def _fingerprint(rows: Split) -> str:
    digest = hashlib.sha256(repr((rows.inputs.shape, rows.labels.shape)).encode())
    digest.update(np.ascontiguousarray(rows.inputs).tobytes())
    digest.update(np.ascontiguousarray(rows.labels).tobytes())
    return digest.hexdigest()
