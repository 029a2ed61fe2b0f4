"""Our backend inside the real server: right answers in batches, and every mistake answered as the client's."""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

from exporter.release import Release
from exporter.verify import answer, open_session
from rollout.pools.errors import PoolStartError
from rollout.pools.process import TritonHost
from rollout.pools.records import PoolProcess
from rollout.pools.server import LOG
from tests.pools.clients import ask, call, changed, image, labels, wide_release
from trainer.data import live_split

pytestmark = pytest.mark.triton


@pytest.fixture(scope="module")
def pool(exported: tuple[Release, Path], tmp_path_factory: pytest.TempPathFactory) -> Iterator[PoolProcess]:
    host = TritonHost(tmp_path_factory.mktemp("home"))
    pool = host.start(*exported)
    yield pool
    host.stop(pool, timeout_s=0)


def test_requests_at_once_are_batched_and_each_gets_its_own(pool: PoolProcess, exported: tuple[Release, Path]) -> None:
    inputs, _ = live_split()
    graph = exported[1] / "triton/digits/1/model.onnx"
    expected = answer(open_session(graph.read_bytes()), {"image": inputs})["label"].ravel()
    parts = np.array_split(np.arange(len(inputs)), 180)
    with ThreadPoolExecutor(16) as clients:
        answers = list(clients.map(lambda part: ask(pool, [image(inputs[part])]), parts))
    assert {status for status, _ in answers} == {200}
    assert np.concatenate([labels(body) for _, body in answers]).tolist() == expected.tolist()
    _, stats = call(pool, "GET", "/v2/models/digits/versions/1/stats")
    sizes = {int(batch["batch_size"]) for batch in stats["model_stats"][0]["batch_stats"]}
    assert max(sizes - {exported[0].max_batch_size}) > 3, "requests of at most three rows were put together"


@pytest.mark.parametrize(
    ("tensor", "message"),
    [
        (image(np.zeros((1, 8, 7))), "unexpected shape"),
        (image(np.zeros((8, 8))), "unexpected shape"),
        (image(np.zeros((1, 8, 8), int), dtype="INT64"), "data-type"),
        (image(np.zeros((1, 8, 8)), name="picture"), "picture"),
        (image(np.zeros((17, 8, 8))), "batch-size must be <= 16"),
    ],
    ids=["shape", "rank", "type", "name", "too many rows"],
)
def test_mistake_gets_400_and_the_server_lives_on(pool: PoolProcess, tensor: dict[str, object], message: str) -> None:
    status, body = ask(pool, [tensor])
    assert status == 400
    assert message in body["error"]
    assert ask(pool, [image(np.zeros((1, 8, 8)))])[0] == 200


def test_only_the_outputs_asked_for_are_sent(pool: PoolProcess) -> None:
    _, body = ask(pool, [image(np.zeros((2, 8, 8)))], outputs=["label"])
    assert [(output["name"], output["shape"]) for output in body["outputs"]] == [("label", [2, 1])]
    status, body = ask(pool, [image(np.zeros((2, 8, 8)))], outputs=["nothing"])
    assert status == 400
    assert "nothing" in body["error"]


def test_log_does_not_grow_with_requests(pool: PoolProcess) -> None:
    before = (pool.folder / LOG).stat().st_size
    for _ in range(50):
        ask(pool, [image(np.zeros((1, 8, 8)))])
    assert (pool.folder / LOG).stat().st_size == before


@pytest.mark.parametrize(("width", "refused"), [(4, 400), ("width", 500)], ids=["before it runs", "while it runs"])
def test_what_only_onnx_runtime_refuses_fails_alone(
    host: TritonHost, tmp_path: Path, width: int | str, refused: int
) -> None:
    pool = host.start(wide_release(tmp_path / "wide", width), tmp_path / "wide")
    good, bad = image(np.ones((1, 4))), image(np.ones((1, 5)))
    with ThreadPoolExecutor(8) as clients:
        answers = list(clients.map(lambda number: ask(pool, [bad if number % 4 == 0 else good]), range(80)))
    for number, (status, body) in enumerate(answers):
        if number % 4 == 0:
            assert status == refused
            assert "the model cannot take this request" in body["error"]
        else:
            assert (status, labels(body)) == (200, [4.0])


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("dims: [ 10 ]", "dims: [ 11 ]", 'output "probabilities" has dims [11] in config.pbtxt, [10] in the ONNX file'),
        ('{ name: "image"', '{ name: "picture"', 'input "picture" of config.pbtxt is not in the ONNX file'),
        ("TYPE_INT64", "TYPE_INT32", 'output "label" is TYPE_INT32 in config.pbtxt, tensor(int64) in the file'),
    ],
    ids=["dims", "name", "type"],
)
def test_config_that_does_not_fit_the_file_is_refused(
    exported: tuple[Release, Path], tmp_path: Path, host: TritonHost, old: str, new: str, message: str
) -> None:
    release, folder = changed(*exported, tmp_path / "changed", "triton/digits/config.pbtxt", old, new)
    with pytest.raises(PoolStartError) as caught:
        host.start(release, folder)
    assert message in str(caught.value)
    assert host.found() == []
