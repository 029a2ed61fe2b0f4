"""The release manifest: what one immutable ONNX export is. The contract between exporter and control plane.

Imports neither torch nor onnx. Layout of a model repository, in which a Triton process is pointed at one release's
`triton` folder (a Triton model repository of its own, holding one model with one version):

    REPOSITORY/
      .staging/                       releases being written; never read
      digits/                         a model
        7/                            the release digits/7, renamed in as a whole
          release.json                this manifest, written last
          triton/digits/config.pbtxt
          triton/digits/7/model.onnx
"""

import hashlib
import json
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

MANIFEST = "release.json"
FORMAT = 1


class ReleaseError(ValueError):
    """A release that is missing, unfinished or damaged; says which and what to do."""


@dataclass(frozen=True, slots=True)
class Tensor:
    """One input or output: its name, Triton data type ("FP32", "INT64") and dims without the batch dimension."""

    name: str
    dtype: str
    dims: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Signature:
    """What clients rely on; a candidate must have stable's."""

    inputs: tuple[Tensor, ...]
    outputs: tuple[Tensor, ...]


@dataclass(frozen=True, slots=True)
class Golden:
    """Rows with known answers, that a server must give before it is routed to.

    `inputs` and `outputs` map tensor names to nested lists of shape [rows, *dims]; floats may differ by `tolerance`
    (absolute), integers not at all.
    """

    inputs: Mapping[str, Any]
    outputs: Mapping[str, Any]
    tolerance: float


@dataclass(frozen=True, slots=True)
class Release:
    """The manifest of `model/number`.

    `files` maps each file's path below the release's folder to its SHA-256. `parity` holds, for each batch size
    compared, the largest absolute difference between PyTorch and ONNX Runtime. `prediction` names the output whose
    value is compared with labels: an integer tensor of class indices, one a row.
    """

    model: str
    number: int
    run: str
    created_at: str
    precision: str
    max_batch_size: int
    signature: Signature
    prediction: str
    files: Mapping[str, str]
    parity: Mapping[str, float]
    golden: Golden
    metrics: Mapping[str, float]

    @property
    def name(self) -> str:
        return f"{self.model}/{self.number}"

    def to_json(self) -> dict[str, Any]:
        return {"format": FORMAT, **asdict(self)}


def read_release(folder: Path) -> Release:
    """The manifest in a release's folder.

    Raises:
        ReleaseError: there is none, or it cannot be read.
    """
    path = folder / MANIFEST
    try:
        data = json.loads(path.read_text())
    except FileNotFoundError as exc:
        raise ReleaseError(f"{folder} holds no {MANIFEST}: it is not a release, or was never finished") from exc
    except (OSError, ValueError) as exc:
        raise ReleaseError(f"{path} cannot be read ({exc}): export the run again") from exc
    return release_from_json(data, str(path))


def release_from_json(data: Any, where: str) -> Release:
    """Read a manifest; unknown fields are ignored. Raises ReleaseError naming what is wrong."""
    try:
        if data["format"] != FORMAT:
            raise ReleaseError(f"{where} has format {data['format']!r}, this version reads {FORMAT}")
        known = {field.name: data[field.name] for field in fields(Release)}
        known["signature"] = Signature(
            inputs=tuple(_tensor(tensor) for tensor in data["signature"]["inputs"]),
            outputs=tuple(_tensor(tensor) for tensor in data["signature"]["outputs"]),
        )
        golden = data["golden"]
        known["golden"] = Golden(golden["inputs"], golden["outputs"], float(golden["tolerance"]))
        return Release(**known)
    except (KeyError, TypeError) as exc:
        raise ReleaseError(f"{where} is not a release manifest: {exc!r}") from exc


def _tensor(data: Mapping[str, Any]) -> Tensor:
    return Tensor(data["name"], data["dtype"], tuple(data["dims"]))


def release_folder(repository: Path, model: str, number: int) -> Path:
    return repository / model / str(number)


def releases(repository: Path, model: str | None = None) -> Iterator[Release]:
    """All finished releases, by model and number. Unfinished or damaged folders are passed over."""
    models = [repository / model] if model else sorted(repository.iterdir()) if repository.is_dir() else []
    for folder in models:
        if folder.name.startswith(".") or not folder.is_dir():
            continue
        numbers = sorted(int(entry.name) for entry in folder.iterdir() if entry.name.isdigit())
        for number in numbers:
            try:
                yield read_release(folder / str(number))
            except ReleaseError:
                continue


def verify_files(release: Release, folder: Path) -> None:
    """Compare every file with its digest.

    Raises:
        ReleaseError: a file is missing or was changed since the release was written.
    """
    for path, digest in release.files.items():
        try:
            found = sha256(folder / path)
        except OSError as exc:
            raise ReleaseError(f"release {release.name}: {path} is missing: export the run again") from exc
        if found != digest:
            raise ReleaseError(f"release {release.name}: {path} was changed after it was written: export the run again")


def sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
