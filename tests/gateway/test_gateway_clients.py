"""Unmodified clients against the gateway, in front of a server that answers as Triton does."""

import asyncio
import gzip
import json
import re
import shutil
import subprocess
import zlib
from collections.abc import Iterator
from pathlib import Path

import httpx
import numpy as np
import pytest
import tritonclient.http as triton
import tritonclient.http.aio as triton_aio

from tests.gateway.fakes import FakeServer, LoopThread, Received, Stream, http_answer
from tests.gateway.harness import Gateway, route, running, table

METADATA = {
    "name": "digits", "versions": ["1"], "platform": "onnxruntime_onnx",
    "inputs": [{"name": "x", "datatype": "FP32", "shape": [-1, 4]}],
    "outputs": [{"name": "y", "datatype": "FP32", "shape": [-1, 4]}],
}  # fmt: skip


async def answers_like_triton(received: Received, stream: Stream) -> None:
    """Doubles its input `x` to `y`, in binary or JSON as it was asked."""
    path = received.line.split(b" ")[1]
    if path.endswith(b"/ready"):
        await stream.send(http_answer(b"", headers=b""))
    elif not path.endswith(b"/infer"):
        await stream.send(http_answer(json.dumps(METADATA).encode()))
    else:
        await stream.send(_doubled(received))


def _doubled(received: Received) -> bytes:
    length, packed = received.header(b"inference-header-content-length"), received.body
    unpack = {b"gzip": gzip.decompress, b"deflate": zlib.decompress}.get(received.header(b"content-encoding") or b"")
    body = unpack(packed) if unpack else packed
    asked = json.loads(body[: int(length)] if length else body)
    tensor = asked["inputs"][0]
    output = {"name": "y", "datatype": "FP32", "shape": tensor["shape"]}
    answer = {"model_name": "digits", "model_version": "1", "outputs": [output]}
    if length is None:
        output["data"] = [2 * value for value in np.ravel(tensor["data"]).tolist()]
        return http_answer(json.dumps(answer).encode())
    values = np.frombuffer(body[int(length) :], np.float32) * 2
    output["parameters"] = {"binary_data_size": values.nbytes}
    head = json.dumps(answer).encode()
    kinds = b"Content-Type: application/octet-stream\r\nInference-Header-Content-Length: %d\r\n" % len(head)
    return http_answer(head + values.tobytes(), headers=kinds)


@pytest.fixture(scope="module")
def gateway(loop_thread: LoopThread, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Gateway]:
    server = FakeServer(loop_thread, answers_like_triton)
    routes = table(route("digits", {1: [server.address]}))
    with running(tmp_path_factory.mktemp("clients"), routes) as gateway:
        yield gateway
    server.stop()


@pytest.fixture
def client(gateway: Gateway) -> Iterator[triton.InferenceServerClient]:
    with triton.InferenceServerClient(f"127.0.0.1:{gateway.port}", concurrency=4) as client:
        yield client


def inputs(binary: bool) -> list[triton.InferInput]:
    tensor = triton.InferInput("x", [2, 4], "FP32")
    tensor.set_data_from_numpy(np.arange(8, dtype=np.float32).reshape(2, 4), binary_data=binary)
    return [tensor]


def test_triton_client_asks_about_server_and_model(client: triton.InferenceServerClient) -> None:
    assert client.is_server_live() and client.is_server_ready()
    assert client.is_model_ready("digits") and client.is_model_ready("digits", "1")
    assert not client.is_model_ready("nothing")
    assert "binary_tensor_data" in client.get_server_metadata()["extensions"]
    assert client.get_model_metadata("digits") == METADATA


@pytest.mark.parametrize("binary", [True, False])
def test_triton_client_infers(client: triton.InferenceServerClient, binary: bool) -> None:
    outputs = [triton.InferRequestedOutput("y", binary_data=binary)]
    result = client.infer("digits", inputs(binary), outputs=outputs)
    assert result.as_numpy("y").tolist() == [[0, 2, 4, 6], [8, 10, 12, 14]]
    assert result.get_response()["model_name"] == "digits"


def test_triton_client_infers_asynchronously_and_compressed(client: triton.InferenceServerClient) -> None:
    waiting = [client.async_infer("digits", inputs(True)) for _ in range(20)]
    assert all(one.get_result().as_numpy("y")[1, 3] == 14 for one in waiting)


def test_triton_client_sees_errors_as_tritons(client: triton.InferenceServerClient) -> None:
    with pytest.raises(triton.InferenceServerException, match="unknown model"):
        client.infer("nothing", inputs(True))
    with pytest.raises(triton.InferenceServerException, match="not open to clients"):
        client.get_model_repository_index()


def test_curl_is_served(gateway: Gateway) -> None:
    curl = shutil.which("curl")
    if curl is None:
        pytest.skip("curl is not installed")
    body = json.dumps({"inputs": [{"name": "x", "datatype": "FP32", "shape": [4], "data": [1, 2, 3, 4]}]})
    url = f"{gateway.url}/v2/models/digits"
    for extra in ([], ["-H", "Expect: 100-continue"], ["-H", "Transfer-Encoding: chunked"], ["--http2"], ["-0"]):
        said = subprocess.check_output([curl, "-sS", "--fail", *extra, f"{url}/infer", "-d", body], timeout=20)
        assert json.loads(said)["outputs"][0]["data"] == [2, 4, 6, 8]
    said = subprocess.check_output([curl, "-sS", "-I", f"{gateway.url}/v2/health/ready"], timeout=20)
    assert b"200 OK" in said


BODY = json.dumps({"inputs": [{"name": "x", "datatype": "FP32", "shape": [4], "data": [1, 2, 3, 4]}]})


@pytest.mark.parametrize("compression", [None, "gzip", "deflate"])
def test_triton_client_compresses_what_it_sends(client: triton.InferenceServerClient, compression: str | None) -> None:
    result = client.infer("digits", inputs(True), request_compression_algorithm=compression)
    assert result.as_numpy("y")[1, 3] == 14


def test_tritons_asyncio_client_infers_many_at_once(gateway: Gateway) -> None:
    async def infer_many() -> list[float]:
        async with triton_aio.InferenceServerClient(f"127.0.0.1:{gateway.port}") as client:
            tensor = triton_aio.InferInput("x", [2, 4], "FP32")
            tensor.set_data_from_numpy(np.arange(8, dtype=np.float32).reshape(2, 4))
            results = await asyncio.gather(*(client.infer("digits", [tensor]) for _ in range(50)))
            return [float(result.as_numpy("y")[1, 3]) for result in results]

    assert asyncio.run(infer_many()) == [14.0] * 50


def test_httpx_is_served_and_its_chunked_uploads_too(gateway: Gateway) -> None:
    url = f"{gateway.url}/v2/models/digits/infer"
    with httpx.Client(trust_env=False) as client:
        for content in (BODY, iter([BODY[:10].encode(), BODY[10:].encode()])):
            assert client.post(url, content=content).json()["outputs"][0]["data"] == [2, 4, 6, 8]
        assert client.head(f"{gateway.url}/v2/health/ready").status_code == 200


def _installed(program: str) -> str:
    found = shutil.which(program)
    if found is None:
        pytest.skip(f"{program} is not installed")
    return found


def test_wrk_is_served_without_an_error(gateway: Gateway, tmp_path: Path) -> None:
    script = tmp_path / "post.lua"
    script.write_text(f"wrk.method = 'POST'\nwrk.body = '{BODY}'\n")
    url = f"{gateway.url}/v2/models/digits/infer"
    said = subprocess.check_output(
        [_installed("wrk"), "-t1", "-c8", "-d1s", "-s", str(script), url], timeout=30
    ).decode()
    assert "Socket errors" not in said and "Non-2xx" not in said, said
    assert int(re.findall(r"(\d+) requests in", said)[0]) > 100


def test_h2load_speaks_http_1_1_to_it(gateway: Gateway, tmp_path: Path) -> None:
    body = tmp_path / "body.json"
    body.write_text(BODY)
    url = f"{gateway.url}/v2/models/digits/infer"
    said = subprocess.check_output(
        [_installed("h2load"), "--h1", "-n", "500", "-c", "8", "-m", "4", "-d", str(body), url], timeout=30
    ).decode()
    assert "500 succeeded, 0 failed, 0 errored, 0 timeout" in said, said
