"""`sluice load` and the Locust file as users run them: real commands, exit codes, books."""

import json
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from tests.loadtests.tiny_model import Reply, TinyModel

ROOT = Path(__file__).parents[2]
LOCUST = Path(sys.executable).parent / "locust"


def _run(*command: str | Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [*map(str, command)], capture_output=True, text=True, check=False, cwd=ROOT, timeout=60
    )  # fmt: skip


def _load(tiny: TinyModel, *more: str | Path) -> subprocess.CompletedProcess[str]:
    command = (sys.executable, "-m", "sluice", "load", "--host", tiny.url, "--rate", "100", "--seconds", "0.5")
    return _run(*command, *more)


def test_load_prints_its_books_as_json(tiny: TinyModel) -> None:
    ended = _load(tiny, "--json")
    assert ended.returncode == 0, ended.stderr
    said = json.loads(ended.stdout)
    assert said["sent"] == said["answered"] == len(tiny.received) > 0
    assert said["balanced"]
    assert said["releases"]["digits/1"]["p99_ms"] > 0
    assert said["labels_sent"] == len(tiny.labels)


def test_load_fails_when_a_request_fails_and_says_why(tiny: TinyModel) -> None:
    tiny.answer = lambda n: Reply(503, text="overloaded") if n == 7 else Reply()
    ended = _load(tiny)
    assert ended.returncode == 1
    assert "1 failed" in ended.stdout
    assert "1 x 503 overloaded" in ended.stdout


def test_load_that_cannot_run_says_what_to_do(tiny: TinyModel, tmp_path: Path) -> None:
    away = _run(sys.executable, "-m", "sluice", "load", "--host", "http://127.0.0.1:1")
    wrong = _load(tiny, "--rows", tmp_path / "none.npz")
    assert (away.returncode, wrong.returncode) == (2, 2)
    assert "start one with `sluice up`, or give --host" in away.stderr
    assert "none.npz must be an .npz file" in wrong.stderr
    assert "Traceback" not in away.stderr + wrong.stderr
    assert not tiny.received


def test_load_takes_rows_of_another_shape(tiny: TinyModel, tmp_path: Path) -> None:
    np.savez(tmp_path / "rows.npz", inputs=np.ones((2, 4), np.float32))
    ended = _load(tiny, "--rows", tmp_path / "rows.npz", "--json")
    assert ended.returncode == 0, ended.stderr
    assert {one.row.shape for one in tiny.received} == {(1, 4)}
    assert not tiny.labels


def _locust(tiny: TinyModel) -> subprocess.CompletedProcess[str]:
    how = ("--headless", "--users", "3", "--spawn-rate", "3", "--run-time", "3s", "--only-summary")
    return _run(LOCUST, "--locustfile", "loadtests/users.py", "--host", tiny.url, *how)


def test_locust_keeps_books_and_sends_labels(tiny: TinyModel) -> None:
    ended = _locust(tiny)
    assert ended.returncode == 0, ended.stderr[-2000:]
    books = re.search(r"(\d+) sent = (\d+) answered \+ 0 failed(?: \+ (\d+) withdrawn)?", ended.stdout)
    assert books is not None, ended.stdout
    sent, answered, withdrawn = (int(number or 0) for number in books.groups())
    assert sent == answered + withdrawn
    assert answered <= len(tiny.received) <= sent
    assert {one.is_binary for one in tiny.received} == {True, False}
    assert tiny.labels


@pytest.mark.parametrize(
    ("reply", "reason"),
    [
        (Reply(500, text="broken"), "500 broken"),
        (Reply(0), "x 0 "),
        (Reply(text="<html>"), "an answer that is not one"),
    ],
)
def test_locust_fails_when_requests_fail(tiny: TinyModel, reply: Reply, reason: str) -> None:
    tiny.answer = lambda _: reply
    ended = _locust(tiny)
    assert ended.returncode == 1
    assert "0 answered" in ended.stdout
    assert reason in ended.stdout
