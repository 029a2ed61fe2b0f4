"""The fake keeps the promises of `PoolHost`, so that tests of the controller mean something."""

import json
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from exporter.release import Golden, Release, Signature, Tensor
from rollout.pools import v2
from rollout.pools.errors import PoolStartError, WrongAnswerError
from rollout.pools.fake import FakeHost
from rollout.pools.fake_server import Behaviour
from rollout.pools.records import PoolProcess
from rollout.pools.seam import PoolHost
from tests.pools.clients import ask, call, image, labels

SIGNATURE = Signature((Tensor("image", "FP32", (2, 2)),), (Tensor("label", "INT64", (1,)),))
GOLDEN = Golden({"image": [[[3.0, 0.0], [0.0, 0.0]]]}, {"label": [[3]]}, 0.0)


def _release(number: int) -> Release:
    return Release("digits", number, "a-run", "now", "fp32", 8, SIGNATURE, "label", {}, {}, GOLDEN, {})


@pytest.fixture
def host(tmp_path: Path) -> Iterator[FakeHost]:
    host = FakeHost(
        tmp_path,
        {
            "digits/2": Behaviour(fail_every=2),
            "digits/3": Behaviour(wrong_every=2),
            "digits/4": Behaviour(start_error="no memory"),
        },
    )
    yield host
    host.close()


def _start(host: PoolHost[PoolProcess], number: int) -> PoolProcess:
    return host.start(_release(number), Path("nowhere"))


def test_life_of_a_pool(host: FakeHost) -> None:
    pool = _start(host, 1)
    assert host.is_alive(pool)
    assert _start(host, 1) == pool
    assert host.found() == [pool]
    assert v2.is_ready(pool.address, "digits", 1)
    assert not v2.is_ready(pool.address, "digits", 2)
    v2.check_golden(pool.address, _release(1))
    host.crash(pool)
    assert not host.is_alive(pool)
    assert not v2.is_ready(pool.address, "digits", 1)
    assert host.found() == []
    host.stop(pool, timeout_s=1)
    assert _start(host, 1) != pool


def test_request_chooses_its_answer(host: FakeHost) -> None:
    pool = _start(host, 1)
    rows = np.zeros((3, 2, 2))
    rows[:, 0, 0] = [7, 0, 9]
    assert labels(ask(pool, [image(rows)])[1]) == [7, 0, 9]
    nested = {"name": "image", "datatype": "FP32", "shape": [3, 2, 2], "data": rows.tolist()}
    assert labels(ask(pool, [nested])[1]) == [7, 0, 9]
    assert ask(pool, [])[0] == 400
    assert call(pool, "GET", "/v2/models/digits")[1]["inputs"][0]["shape"] == [-1, 2, 2]
    assert host.requests(pool) == 3


def test_binary_tensors_are_read(host: FakeHost) -> None:
    from tritonclient.http import InferenceServerClient, InferInput

    tensor = InferInput("image", [2, 2, 2], "FP32")
    tensor.set_data_from_numpy(np.full((2, 2, 2), 5, np.float32))
    with InferenceServerClient(_start(host, 1).address) as client:
        answer = client.infer("digits", [tensor], model_version="1")
    assert answer.as_numpy("label").tolist() == [[5], [5]]


def test_failures_come_when_they_are_told_to(host: FakeHost) -> None:
    row = image(np.full((1, 2, 2), 4))
    failing, wrong = _start(host, 2), _start(host, 3)
    assert [ask(failing, [row])[0] for _ in range(4)] == [200, 500, 200, 500]
    assert [labels(ask(wrong, [row])[1]) for _ in range(4)] == [[4], [5], [4], [5]]
    with pytest.raises(PoolStartError, match="no memory"):
        _start(host, 4)
    assert len(host.found()) == 2


def test_golden_rows_are_compared(host: FakeHost) -> None:
    failing, wrong = _start(host, 2), _start(host, 3)
    for pool, message in ((failing, "with 500: the fake was told to fail"), (wrong, 'with 4 where "label" is 3')):
        v2.check_golden(pool.address, _release(pool.release))
        with pytest.raises(WrongAnswerError, match=message):
            v2.check_golden(pool.address, _release(pool.release))


def test_record_is_read_back_as_it_was_written(host: FakeHost) -> None:
    pool = _start(host, 1)
    data = json.loads(json.dumps({**pool.to_json(), "of a later version": 1}))
    assert PoolProcess.from_json(data) == pool
