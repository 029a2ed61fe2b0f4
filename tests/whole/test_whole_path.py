"""The whole path, as `make demo` goes it: real training, real Triton, real sockets, the real command line."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import tritonclient.http as triton

from tests.whole.conftest import Sluice, Up
from trainer.data import live_split


@pytest.mark.triton
@pytest.mark.timeout(600)
def test_demo_keeps_every_promise(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "sluice", "demo", "--home", str(tmp_path / "demo"), "--json"]
    ended = subprocess.run(command, capture_output=True, text=True, timeout=580, check=False)
    assert ended.stdout, ended.stderr[-3000:]
    report = json.loads(ended.stdout)
    assert [one for one in report["promises"] if not one["is_kept"]] == []
    assert ended.returncode == 0
    assert report["traffic"]["failed"] == 0
    assert report["traffic"]["sent"] > 10_000


@pytest.mark.triton
def test_unmodified_triton_client_sees_a_triton(sluice: Sluice, up: Up) -> None:
    assert sluice("rollout", "start", "digits/1", "--url", up.url, "--watch").returncode == 0
    rows, labels = live_split()
    client = triton.InferenceServerClient(up.clients)
    assert client.is_server_live()
    assert client.is_server_ready()
    assert client.is_model_ready("digits")
    assert client.get_model_metadata("digits")["inputs"][0]["name"] == "image"
    assert client.get_model_config("digits")["max_batch_size"] == 16
    right = 0
    for start in range(0, 64, 8):
        image = triton.InferInput("image", [8, 8, 8], "FP32")
        image.set_data_from_numpy(rows[start : start + 8], binary_data=start % 16 == 0)
        answer = client.infer("digits", [image])
        right += int(np.sum(answer.as_numpy("label")[:, 0] == labels[start : start + 8]))
    assert right > 40
    with pytest.raises(triton.InferenceServerException, match="unknown model"):
        client.get_model_metadata("nothing")
    wrong = triton.InferInput("image", [1, 4], "FP32")
    wrong.set_data_from_numpy(np.zeros((1, 4), np.float32))
    with pytest.raises(triton.InferenceServerException, match="shape"):
        client.infer("digits", [wrong])
    client.close()


@pytest.mark.triton
def test_everything_is_there_again_after_a_restart(sluice: Sluice, up: Up) -> None:
    """Stable is started again from what was stored, and the route leads to its new address."""
    assert sluice("rollout", "start", "digits/1", "--url", up.url, "--watch").returncode == 0
    up.process.terminate()
    up.process.wait(60)
    clients = f"{up.clients}"
    command = [
        sys.executable, "-m", "sluice", "up", "--home", str(up.home), "--repository", str(up.home.parent / "models"),
        "--listen", clients, "--control-listen", up.control, "--metrics-listen", "127.0.0.1:0", "--workers", "1",
    ]  # fmt: skip
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as again:
        assert again.stderr is not None
        while "sluice is up" not in (line := again.stderr.readline()):
            assert line, "it ended before it was up"
        loaded = sluice("load", "--host", f"http://{clients}", "--rate", "50", "--seconds", "3", "--json")
        for _ in range(20):
            if loaded.returncode == 0:
                break
            loaded = sluice("load", "--host", f"http://{clients}", "--rate", "50", "--seconds", "1", "--json")
        again.terminate()
        assert again.wait(60) == 0
    assert loaded.returncode == 0, loaded
    assert json.loads(loaded.stdout)["failed"] == 0
