"""`sluice train` as a process: exit codes, messages, and a kill in the middle."""

import json
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from trainer.manifest import CHECKPOINTS, MANIFEST, WEIGHTS

COMMAND = [sys.executable, "-c", "import typer; from trainer.cli import train; typer.run(train)"]
CONFIG = """
[model]
hidden = [16]
dropout = 0.2
[training]
epochs = 60
checkpoint_every = 2
device = "cpu"
"""


def _train(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run([*COMMAND, *map(str, arguments)], capture_output=True, text=True, check=False)


def _config(folder: Path, text: str = CONFIG) -> Path:
    path = folder / "it.toml"
    path.write_text(text)
    return path


def test_killed_and_resumed_training_ends_with_the_same_bits(tmp_path: Path) -> None:
    config = _config(tmp_path)
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    finished = _train(config, "--out", whole, "--json")
    assert finished.returncode == 0, finished.stderr
    assert json.loads(finished.stdout) == json.loads((whole / MANIFEST).read_text())

    process = subprocess.Popen([*COMMAND, str(config), "--out", str(killed)], stderr=subprocess.DEVNULL)
    while not list((killed / CHECKPOINTS).glob("epoch-*.pt")):
        assert process.poll() is None
        time.sleep(0.001)
    process.send_signal(signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL
    assert not (killed / WEIGHTS).exists()

    resumed = _train(config, "--out", killed, "--resume")
    assert resumed.returncode == 0, resumed.stderr
    assert "going on after epoch" in resumed.stderr
    assert (killed / WEIGHTS).read_bytes() == (whole / WEIGHTS).read_bytes()


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[training]\nepoch = 1\n", 'the nearest known one is "epochs"'),
        ('[data]\nsource = "nowhere.npz"\n', "there is no dataset at"),
    ],
    ids=["wrong key", "wrong dataset path"],
)
def test_mistake_exits_with_2_and_writes_nothing(tmp_path: Path, text: str, message: str) -> None:
    done = _train(_config(tmp_path, text), "--out", tmp_path / "run")
    assert done.returncode == 2
    assert message in done.stderr
    assert done.stdout == ""
    assert sorted(path.name for path in tmp_path.iterdir()) == ["it.toml"]
