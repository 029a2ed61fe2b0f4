"""Publishing: a release appears in the repository as a whole or not at all, under a number used once.

Knows the repository's layout (exporter.release) and what survives a kill. Must not know what is in a release.

The laws:
* a number is taken by writing it to `.numbers/MODEL` and flushing, before anything is staged under it, so that it is
  never taken again, whatever is deleted later;
* all is written and flushed below `.staging/`, on the same filesystem, and shown by one rename;
* a staging folder is locked by its writer; one without a living writer is swept by the next publish.
"""

import contextlib
import fcntl
import json
import os
import re
import shutil
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

from exporter.errors import RepositoryError
from exporter.release import MANIFEST, Release, release_folder, sha256
from trainer.durable import sync_folder, write_durably

STAGING = ".staging"
NUMBERS = ".numbers"
MODEL_NAME = re.compile(r"[A-Za-z0-9_-][A-Za-z0-9_.-]{0,127}")


def check_model_name(model: str) -> None:
    """Raises RepositoryError unless `model` can be a folder, a path segment of a URL and a Triton model alike."""
    if not MODEL_NAME.fullmatch(model):
        raise RepositoryError(
            f'"{model}" cannot name a model: use up to 128 letters, digits, "_", "-" and "." and do not begin with "."'
        )


def publish(
    repository: Path,
    model: str,
    write: Callable[[Path, int], Release],
    announce: Callable[[str], None] = lambda step: None,
) -> Release:
    """Take the next number, let `write(folder, number)` fill a staging folder, and show it as `model/number`.

    `write` leaves the files and returns their manifest, whose `files` is filled in here. `announce` hears of each step
    before it is taken. When `write` raises, nothing is published and its error goes on to the caller.

    Raises:
        RepositoryError: the model's name or the repository cannot be used.
    """
    check_model_name(model)
    try:
        announce("taking a number")
        with _staged(repository, model) as (folder, number):
            announce("writing files")
            release = write(folder, number)
            announce("checking in files")
            release = replace(release, files=_flush(folder))
            announce("writing the manifest")
            write_durably(folder / MANIFEST, json.dumps(release.to_json(), indent=1).encode())
            announce("showing the release")
            _show(folder, release_folder(repository, model, number))
            announce("published")
    except OSError as exc:
        raise RepositoryError(f"cannot publish {model} in {repository}: {exc}") from exc
    return release


@contextlib.contextmanager
def _staged(repository: Path, model: str) -> Iterator[tuple[Path, int]]:
    """A locked staging folder and its number; swept at the end where it was not renamed away."""
    with _locked(repository):
        _sweep(repository / STAGING)
        number = _take_number(repository, model)
        folder = repository / STAGING / f"{model}.{number}"
        folder.mkdir()
        lock = _lock_folder(folder)
    assert lock is not None
    try:
        yield folder, number
    finally:
        shutil.rmtree(folder, ignore_errors=True)
        os.close(lock)


@contextlib.contextmanager
def _locked(repository: Path) -> Iterator[None]:
    """One exporter at a time. The lock ends with the process, however that ends."""
    for folder in (repository / STAGING, repository / NUMBERS):
        folder.mkdir(parents=True, exist_ok=True)
    sync_folder(repository)
    with (repository / NUMBERS / ".lock").open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def _sweep(staging: Path) -> None:
    """Remove what killed exporters left. Called with the repository locked."""
    for folder in staging.iterdir():
        lock = _lock_folder(folder)
        if lock is not None:
            shutil.rmtree(folder)
            os.close(lock)


def _lock_folder(folder: Path) -> int | None:
    """Hold a folder for as long as this process lives; None where another process holds it."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(descriptor)
        return None
    return descriptor


def _take_number(repository: Path, model: str) -> int:
    counter = repository / NUMBERS / model
    try:
        taken = [int(counter.read_text())] if counter.exists() else []
    except ValueError as exc:
        raise RepositoryError(f"{counter} must hold the last number given to a release of {model}: {exc}") from exc
    if (repository / model).is_dir():
        taken += [int(entry.name) for entry in (repository / model).iterdir() if entry.name.isdigit()]
    number = max(taken, default=0) + 1
    write_durably(counter, f"{number}\n".encode())
    return number


def _flush(folder: Path) -> dict[str, str]:
    """Force every file and folder to disk. Returns the SHA-256 of each file by its path below `folder`."""
    digests = {}
    for path in sorted(folder.rglob("*")):
        if path.is_dir():
            sync_folder(path)
            continue
        with path.open("rb") as file:
            os.fsync(file.fileno())
        digests[str(path.relative_to(folder))] = sha256(path)
    return digests


def _show(staged: Path, target: Path) -> None:
    target.parent.mkdir(exist_ok=True)
    sync_folder(target.parent.parent)
    staged.rename(target)
    sync_folder(target.parent)
    sync_folder(staged.parent)
