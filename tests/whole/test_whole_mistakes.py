"""What users get wrong: each mistake gets a message that says what to do, exit code 2, and changes nothing."""

import json
import shutil
import socket
from pathlib import Path

import pytest

from exporter.release import MANIFEST, sha256
from tests.whole.conftest import Sluice, Up


def everything_in(folder: Path) -> dict[str, str]:
    """Every file and its digest, without what a running `sluice up` writes."""
    files = (path for path in folder.rglob("*") if path.is_file() and "home" not in path.parts)
    return {str(path.relative_to(folder)): sha256(path) for path in files}


def write(path: Path, text: str) -> Path:
    path.write_text(text)
    return path


def test_wrong_training_key_names_the_nearest(sluice: Sluice, place: Path) -> None:
    config = write(place / "c.toml", "[training]\nepocs = 3\n")
    before = everything_in(place)
    ended = sluice("train", str(config), "--out", "runs/new")
    assert ended.returncode == 2
    assert "epocs" in ended.stderr
    assert "epochs" in ended.stderr
    assert everything_in(place) == before


def test_wrong_dataset_path(sluice: Sluice, place: Path) -> None:
    config = write(place / "c.toml", '[data]\nsource = "no/such.npz"\n')
    before = everything_in(place)
    ended = sluice("train", str(config), "--out", "runs/new")
    assert ended.returncode == 2
    assert "no/such.npz" in ended.stderr
    assert everything_in(place) == before


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("[control]\nhoem = 'x'\n", "'home'"),
        ("[contorl]\n", "'control'"),
        ("[gateway]\nworkesr = 3\n", "'workers'"),
        ("[control]\ntick_s = 'soon'\n", "tick_s"),
        ("[control\n", "cannot be read"),
    ],
)
def test_wrong_key_in_the_settings_of_up(sluice: Sluice, place: Path, text: str, says: str) -> None:
    ended = sluice("up", "--config", str(write(place / "sluice.toml", text)))
    assert ended.returncode == 2
    assert says in ended.stderr
    assert not (place / ".sluice" / "control.db").exists()


@pytest.mark.parametrize("option", ["--listen", "--metrics-listen", "--control-listen"])
def test_port_in_use(sluice: Sluice, place: Path, option: str) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        address = f"127.0.0.1:{taken.getsockname()[1]}"
        ended = sluice("up", option, address)
    assert ended.returncode == 2
    assert address in ended.stderr
    assert "another port" in ended.stderr
    assert not (place / ".sluice" / "control.db").exists()


def test_missing_triton(sluice: Sluice, place: Path) -> None:
    """A package that shadows the wheel and holds no server."""
    (place / "empty" / "pytriton").mkdir(parents=True)
    (place / "empty" / "pytriton" / "__init__.py").touch()
    ended = sluice("up", PYTHONPATH=str(place / "empty"))
    assert ended.returncode == 2
    assert "nvidia-pytriton" in ended.stderr
    assert not (place / ".sluice" / "control.db").exists()
    found = sluice("doctor", "--json", PYTHONPATH=str(place / "empty"))
    assert found.returncode == 1
    (triton,) = [one for one in json.loads(found.stdout) if one["what"] == "Triton"]
    assert not triton["is_good"]
    assert "nvidia-pytriton" in triton["cure"]


def test_nothing_runs(sluice: Sluice) -> None:
    for command in (["rollout", "status"], ["releases"], ["rollout", "start", "digits/1"]):
        ended = sluice(*command, "--url", "http://127.0.0.1:9")
        assert ended.returncode == 1
        assert "sluice up" in ended.stderr
    ended = sluice("load", "--host", "http://127.0.0.1:9")
    assert ended.returncode == 2
    assert "sluice up" in ended.stderr


def test_unfinished_run_is_not_exported(sluice: Sluice, place: Path) -> None:
    (place / "runs" / "tiny-0" / "run.json").unlink()
    before = everything_in(place)
    ended = sluice("export", "runs/tiny-0", "--model", "digits")
    assert ended.returncode == 2
    assert "run" in ended.stderr
    assert everything_in(place) == before


def test_corrupt_onnx_is_found(sluice: Sluice, place: Path) -> None:
    model = next((place / "models" / "digits" / "2").rglob("*.onnx"))
    model.write_bytes(model.read_bytes()[:100])
    ended = sluice("verify", "models/digits/2")
    assert ended.returncode == 2
    assert "changed" in ended.stderr


@pytest.mark.triton
def test_mistakes_against_a_running_sluice(sluice: Sluice, place: Path, up: Up) -> None:
    """One `sluice up` for all of them, for it takes seconds."""
    first = sluice("rollout", "start", "digits/1", "--url", up.url, "--watch", "--json")
    assert first.returncode == 0, first.stderr
    before = sluice("rollout", "status", "--url", up.url, "--json").stdout

    def refused(*arguments: str, says: str, code: int = 2) -> None:
        ended = sluice(*arguments, "--url", up.url)
        assert ended.returncode == code, ended
        assert says in ended.stderr

    refused("rollout", "start", "digits/9", says="no release digits/9", code=5)
    refused("rollout", "start", "nothing/1", says="no release nothing/1", code=5)
    refused("rollout", "start", "digits", says="MODEL/NUMBER")
    refused("rollout", "start", "digits/1", says="stable already", code=6)
    refused("rollout", "status", "77", says="no rollout 77", code=5)
    refused("rollout", "abort", "1", says="promoted", code=6)
    plan = write(place / "plan.toml", "alhpa = 0.1\n")
    refused("rollout", "start", "digits/2", "--plan", str(plan), says="'alpha'")
    make_third_release_with_another_signature(place)
    refused("rollout", "start", "digits/3", says="does not match stable digits/1")
    make_fourth_release_with_a_corrupt_model(place)
    refused("rollout", "start", "digits/4", says="changed after it was written")
    assert sluice("rollout", "status", "--url", up.url, "--json").stdout == before

    second_up = sluice("up", "--home", "home", "--repository", "models")
    assert second_up.returncode == 2
    assert "runs already" in second_up.stderr or "cannot be listened on" in second_up.stderr

    assert sluice("rollout", "start", "digits/2", "--url", up.url).returncode == 0
    refused("rollout", "start", "digits/2", says="under way", code=6)
    aborted = sluice("rollout", "abort", "digits", "--reason", "the test is over", "--url", up.url, "--json")
    assert json.loads(aborted.stdout)["status"] == "aborted"
    told = json.loads(sluice("rollout", "history", "digits", "--url", up.url, "--json").stdout)
    assert told[-1]["reason"] == "the test is over"


def make_third_release_with_another_signature(place: Path) -> None:
    folder = place / "models" / "digits"
    shutil.copytree(folder / "2", folder / "3")
    manifest = json.loads((folder / "3" / MANIFEST).read_text())
    manifest["number"] = 3
    manifest["signature"]["inputs"][0]["dims"] = [28, 28]
    (folder / "3" / MANIFEST).write_text(json.dumps(manifest))


def make_fourth_release_with_a_corrupt_model(place: Path) -> None:
    folder = place / "models" / "digits"
    shutil.copytree(folder / "2", folder / "4")
    manifest = json.loads((folder / "4" / MANIFEST).read_text())
    (folder / "4" / MANIFEST).write_text(json.dumps({**manifest, "number": 4}))
    model = next((folder / "4").rglob("*.onnx"))
    model.write_bytes(b"this is no model")
