"""Publishing: killed at any step, or many at once, it loses nothing, shows nothing half and uses no number twice."""

import signal
import subprocess
import sys
from pathlib import Path

import pytest

from exporter.errors import RepositoryError
from exporter.release import Golden, Release, Signature, read_release, verify_files
from exporter.repository import publish

ROOT = Path(__file__).parents[2]
STEPS = [
    "taking a number",
    "writing files",
    "checking in files",
    "writing the manifest",
    "showing the release",
    "published",
]

# Publishes to argv[1], and kills itself with SIGKILL when the step argv[2] is announced.
KILLED = """
import os, signal, sys
from pathlib import Path
from tests.exporter.test_export_repository import write
from exporter.repository import publish
def announce(step):
    if step == sys.argv[2]:
        os.kill(os.getpid(), signal.SIGKILL)
publish(Path(sys.argv[1]), "digits", write, announce)
"""


def write(folder: Path, number: int) -> Release:
    (folder / "triton").mkdir()
    (folder / "triton" / "model.onnx").write_text(f"the bytes of {number}")
    return Release(
        model="digits",
        number=number,
        run="a-run",
        created_at="2026-11-23T00:00:00+00:00",
        precision="fp32",
        max_batch_size=8,
        signature=Signature((), ()),
        prediction="label",
        files={},
        parity={},
        golden=Golden({}, {}, 0.0),
        metrics={},
    )


def test_steps_are_the_ones_that_are_killed_below(tmp_path: Path) -> None:
    seen: list[str] = []
    publish(tmp_path, "digits", write, seen.append)
    assert seen == STEPS


@pytest.mark.parametrize("step", STEPS)
def test_killed_at_any_step_nothing_is_lost_or_half(tmp_path: Path, step: str) -> None:
    before = publish(tmp_path, "digits", write)
    process = subprocess.run([sys.executable, "-c", KILLED, str(tmp_path), step], cwd=ROOT, check=False)
    assert process.returncode == -signal.SIGKILL

    for number in (1, 2):
        folder = tmp_path / "digits" / str(number)
        is_shown = number == 1 or step == "published"
        assert folder.exists() == is_shown
        if is_shown:
            verify_files(read_release(folder), folder)
    assert read_release(tmp_path / "digits" / "1") == before

    after = publish(tmp_path, "digits", write)
    assert after.number == (2 if step == "taking a number" else 3)
    assert list((tmp_path / ".staging").iterdir()) == []


def test_staging_of_a_living_exporter_is_left_alone(tmp_path: Path) -> None:
    def write_while_another_publishes(folder: Path, number: int) -> Release:
        code = KILLED.replace("sys.argv[2]", "None")
        subprocess.run([sys.executable, "-c", code, str(tmp_path)], cwd=ROOT, check=True)
        return write(folder, number)

    assert publish(tmp_path, "digits", write_while_another_publishes).number == 1
    assert read_release(tmp_path / "digits" / "2").number == 2


def test_exporters_at_once_get_numbers_of_their_own(tmp_path: Path) -> None:
    code = KILLED.replace("sys.argv[2]", "None")
    running = [subprocess.Popen([sys.executable, "-c", code, str(tmp_path)], cwd=ROOT) for _ in range(4)]
    assert [process.wait() for process in running] == [0] * 4
    assert sorted(path.name for path in (tmp_path / "digits").iterdir()) == ["1", "2", "3", "4"]


def test_failing_writer_leaves_nothing(tmp_path: Path) -> None:
    def fail(folder: Path, number: int) -> Release:
        (folder / "half").write_text("half")
        raise RuntimeError("no")

    with pytest.raises(RuntimeError, match="no"):
        publish(tmp_path, "digits", fail)
    assert list((tmp_path / ".staging").iterdir()) == []
    assert not (tmp_path / "digits").exists()


def test_repository_that_cannot_be_one_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(RepositoryError, match="cannot publish digits in"):
        publish(tmp_path / "file", "digits", write)
    (tmp_path / "models" / ".numbers").mkdir(parents=True)
    (tmp_path / "models" / ".numbers" / "digits").write_text("seven")
    with pytest.raises(RepositoryError, match="must hold the last number"):
        publish(tmp_path / "models", "digits", write)
