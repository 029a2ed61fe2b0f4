"""A whole export from a real run: what is published, what is refused, and what damage is found."""

import json
import shutil
from pathlib import Path

import pytest
import typer
from typer.testing import CliRunner

from exporter import cli
from exporter.errors import ExportError, ParityError, RepositoryError
from exporter.pipeline import export_run
from exporter.release import Release, ReleaseError, read_release, releases, verify_files
from exporter.triton_config import config_text
from exporter.verify import check_release
from tests.exporter.tiny import tiny_release
from trainer.errors import RunError

GRAPH = "triton/digits/1/model.onnx"


@pytest.fixture
def copied(exported: tuple[Release, Path], tmp_path: Path) -> Path:
    """The release's folder, free to be damaged."""
    return shutil.copytree(exported[1] / "digits" / "1", tmp_path / "digits" / "1")


@pytest.fixture
def app() -> typer.Typer:
    app = typer.Typer()
    app.command()(cli.export)
    app.command()(cli.verify)
    return app


def test_release_is_complete(exported: tuple[Release, Path]) -> None:
    release, repository = exported
    assert read_release(repository / "digits" / "1") == release
    assert list(releases(repository)) == [release]
    assert sorted(release.files) == [GRAPH, "triton/digits/config.pbtxt"]
    assert sorted(release.parity) == ["1", "16", "2", "7"]
    assert 0.5 < release.metrics["accuracy"] < 1
    assert check_release(repository / "digits" / "1") == release
    assert [path.name for path in (repository / ".staging").iterdir()] == []


def test_config_is_portable_and_names_its_release(exported: tuple[Release, Path]) -> None:
    release, repository = exported
    text = (repository / "digits/1/triton/digits/config.pbtxt").read_text()
    assert text == config_text("digits", 1, release.signature, 16, release.run)
    assert "KIND_" not in text
    for part in (
        'backend: "onnxruntime"',
        "max_batch_size: 16",
        "version_policy { specific { versions: 1 } }",
        'name: "image" data_type: TYPE_FP32 dims: [ 8, 8 ]',
        "dynamic_batching {",
        'parameters { key: "release" value { string_value: "digits/1" } }',
    ):
        assert part in text


def test_number_is_never_used_again(run_folder: Path, tmp_path: Path) -> None:
    assert tiny_release(run_folder, tmp_path).number == 1
    shutil.rmtree(tmp_path / "digits")
    assert tiny_release(run_folder, tmp_path).number == 2
    shutil.rmtree(tmp_path / ".numbers")
    assert tiny_release(run_folder, tmp_path).number == 3


def test_outside_of_tolerance_nothing_is_published(run_folder: Path, tmp_path: Path) -> None:
    with pytest.raises(ParityError):
        export_run(run_folder, "digits", tmp_path / "models", tolerance=0)
    assert not (tmp_path / "models").exists()


def test_unfinished_or_missing_run_is_refused(tmp_path: Path) -> None:
    with pytest.raises(RunError, match="there is no run at"):
        export_run(tmp_path / "none", "digits", tmp_path / "models")
    (tmp_path / "run").mkdir()
    with pytest.raises(RunError, match="has not finished"):
        export_run(tmp_path / "run", "digits", tmp_path / "models")


def test_data_that_changed_since_are_refused(run_folder: Path, tmp_path: Path) -> None:
    run = shutil.copytree(run_folder, tmp_path / "run")
    manifest = json.loads((run / "run.json").read_text())
    manifest["data"]["fingerprint"] = "0" * 64
    (run / "run.json").write_text(json.dumps(manifest))
    with pytest.raises(ExportError, match="has changed since run tiny-"):
        export_run(run, "digits", tmp_path / "models")


@pytest.mark.parametrize("name", ["", "..", ".hidden", "a/b", "a b", "x" * 129, "naïve"])
def test_name_that_no_model_can_have_is_refused(run_folder: Path, tmp_path: Path, name: str) -> None:
    with pytest.raises(RepositoryError, match="cannot name a model"):
        export_run(run_folder, name, tmp_path / "models")


@pytest.mark.parametrize("damage", [b"", b"garbage"])
def test_corrupt_graph_is_found_by_its_digest(copied: Path, damage: bytes) -> None:
    (copied / GRAPH).write_bytes(damage)
    with pytest.raises(ReleaseError, match=r"digits/1: .*model\.onnx was changed after it was written"):
        check_release(copied)


def test_missing_file_is_found(copied: Path) -> None:
    (copied / GRAPH).unlink()
    with pytest.raises(ReleaseError, match="is missing: export the run again"):
        verify_files(read_release(copied), copied)


def test_other_answers_than_golden_are_found(copied: Path) -> None:
    manifest = json.loads((copied / "release.json").read_text())
    manifest["golden"]["outputs"]["probabilities"][0][0] += 0.01
    (copied / "release.json").write_text(json.dumps(manifest))
    with pytest.raises(ReleaseError, match='"probabilities" is not answered as the golden rows say'):
        check_release(copied)


def test_commands(app: typer.Typer, run_folder: Path, tmp_path: Path) -> None:
    runner = CliRunner()
    done = runner.invoke(app, ["export", str(run_folder), "--model", "digits", "--repository", str(tmp_path), "--json"])
    assert done.exit_code == 0, done.output
    assert json.loads(done.stdout)["number"] == 1
    folder = tmp_path / "digits" / "1"
    assert runner.invoke(app, ["verify", str(folder)]).exit_code == 0
    (folder / GRAPH).write_bytes(b"garbage")
    done = runner.invoke(app, ["verify", str(folder)])
    assert done.exit_code == 2
    assert "was changed after it was written" in done.stderr
    done = runner.invoke(app, ["export", str(tmp_path / "none"), "--model", "digits"])
    assert done.exit_code == 2
    assert "there is no run at" in done.stderr
