"""Releases written by hand, for tests that need a manifest and no model."""

from dataclasses import replace
from pathlib import Path

from exporter.release import MANIFEST, Golden, Release, Signature, Tensor, release_folder, sha256
from gateway.samples import Answer, Sample

SIGNATURE = Signature((Tensor("image", "FP32", (8, 8)),), (Tensor("label", "INT64", (1,)),))


def write_release(repository: Path, number: int, model: str = "digits", signature: Signature = SIGNATURE) -> Release:
    """A release whose one file is not a model: enough for whoever reads manifests."""
    folder = release_folder(repository, model, number)
    folder.mkdir(parents=True)
    (folder / "weights").write_text(f"{model} {number}")
    release = Release(
        model=model, number=number, run=f"run-{number}", created_at="2026-11-23T00:00:00+00:00", precision="fp32",
        max_batch_size=8, signature=signature, prediction="label", files={"weights": sha256(folder / "weights")},
        parity={"1": 0.0}, golden=Golden({}, {}, 0.0), metrics={"accuracy": 0.9},
    )  # fmt: skip
    write_manifest(folder, release)
    return release


def write_manifest(folder: Path, release: Release) -> None:
    import json

    (folder / MANIFEST).write_text(json.dumps(replace(release).to_json()))


def sample(request_id: str, answered: tuple[int, int], mirrored: tuple[int, int] | None = None) -> Sample:
    """A sample of (release, class) answers, in JSON tensors."""

    def answer(release: int, label: int) -> Answer:
        body = f'{{"outputs":[{{"name":"label","datatype":"INT64","shape":[1,1],"data":[{label}]}}]}}'
        return Answer(release, body.encode())

    return Sample(request_id, "digits", 1e12, answer(*answered), None if mirrored is None else answer(*mirrored))
