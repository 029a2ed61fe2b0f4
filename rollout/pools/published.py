"""The repository that running Tritons read: a model's releases side by side, as the versions of one Triton model.

    REPOSITORY/digits/7/model.onnx     linked from the release's own files, so it takes no room, and never changed

Knows releases' files and Triton's model settings. Must not know servers. There is no config.pbtxt: whatever else lies
beside the versions, and any change of it, makes Triton load all of them again. The settings go along with each load.
"""

import logging
import os
import shutil
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from google.protobuf import json_format, text_format  # type: ignore[import-untyped]
from tritonclient.grpc import model_config_pb2

from exporter.release import Release, sha256
from rollout.pools.errors import PoolStartError

Settings = Mapping[str, Any]
"""A model's config as JSON, without its versions and without what names one release."""

OF_ONE_RELEASE = ("release", "run")
CLIENTS_RELY_ON = ("input", "output")

log = logging.getLogger("sluice.control")


def publish(release: Release, folder: Path, repository: Path) -> None:
    """Put a release's files where Tritons read them, in one step. Those that are there already must be the same.

    Raises:
        PoolStartError: others are there under this number, or they cannot be written.
    """
    version = Path(release.model) / str(release.number)
    try:
        if not (repository / version).exists():
            _link(folder / "triton" / version, repository / version, repository)
        for path, digest in release.files.items():
            within = Path(path).relative_to("triton") if path.startswith(f"triton/{version}/") else None
            if within is not None and sha256(repository / within) != digest:
                raise PoolStartError(
                    f"{repository / within} is of another {release.name}: a number is never used twice; export again"
                )
    except OSError as exc:
        raise PoolStartError(f"{release.name} cannot be put into {repository}: {exc}") from exc


def _link(source: Path, target: Path, repository: Path) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    staged = Path(tempfile.mkdtemp(dir=repository, prefix=".staging-"))
    try:
        staged.chmod(0o755)
        shutil.copytree(source, staged, copy_function=_link_or_copy, dirs_exist_ok=True)
        _flush(staged)
        staged.rename(target)
        _flush(target.parent)
    finally:
        shutil.rmtree(staged, ignore_errors=True)


def _link_or_copy(source: str, target: str) -> None:
    """A repository on another file system gets copies."""
    try:
        os.link(source, target)
    except OSError:
        shutil.copy2(source, target)


def _flush(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def settings_of(release: Release, folder: Path) -> Settings:
    """The settings in a release's config.pbtxt. Raises PoolStartError when it cannot be read."""
    path = folder / "triton" / release.model / "config.pbtxt"
    try:
        config = text_format.Parse(path.read_text(), model_config_pb2.ModelConfig())
    except (OSError, text_format.ParseError) as exc:
        raise PoolStartError(f"{release.name}: {path} cannot be read ({exc}): export the run again") from exc
    config.ClearField("version_policy")
    for key in OF_ONE_RELEASE:
        config.parameters.pop(key, None)
    settings: Settings = json_format.MessageToDict(config, preserving_proto_field_name=True)
    return settings


def joining(name: str, settings: Settings, loaded: Settings) -> Settings:
    """What a release is loaded with beside others of its model: their settings. Other ones would load those again.

    Raises:
        PoolStartError: it cannot be served with them.
    """
    for key in CLIENTS_RELY_ON:
        if settings.get(key) != loaded.get(key):
            raise PoolStartError(f"{name} has another {key} than the releases of its model that are loaded")
    most, theirs = settings.get("max_batch_size", 0), loaded.get("max_batch_size", 0)
    if most < theirs:
        raise PoolStartError(f"{name} takes batches of {most} rows, the releases loaded beside it {theirs}")
    ignored = sorted(key for key in settings.keys() | loaded.keys() if settings.get(key) != loaded.get(key))
    if ignored:
        log.warning("%s is served with the %s of the releases loaded beside it", name, ", ".join(ignored))
    return loaded
