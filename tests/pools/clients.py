"""Asking a pool in the V2 protocol, as tests need it."""

import http.client
import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from onnx import TensorProto, helper

from exporter.release import Golden, Release, Signature, Tensor, sha256
from exporter.triton_config import config_text
from rollout.pools.seam import Pool


def ask(pool: Pool, inputs: list[dict[str, Any]], outputs: list[str] | None = None) -> tuple[int, dict[str, Any]]:
    """Status and JSON body of one inference."""
    request: dict[str, Any] = {"inputs": inputs}
    if outputs is not None:
        request["outputs"] = [{"name": name} for name in outputs]
    return call(pool, "POST", f"/v2/models/{pool.model}/versions/{pool.release}/infer", json.dumps(request))


def call(pool: Pool, method: str, path: str, body: str | None = None) -> tuple[int, dict[str, Any]]:
    """Asks the first of its servers."""
    host, _, port = pool.addresses[0].rpartition(":")
    connection = http.client.HTTPConnection(host, int(port), timeout=30)
    try:
        connection.request(method, path, body)
        response = connection.getresponse()
        return response.status, json.loads(response.read() or b"{}")
    finally:
        connection.close()


def image(rows: Any, dtype: str = "FP32", name: str = "image") -> dict[str, Any]:
    array = np.asarray(rows)
    return {"name": name, "datatype": dtype, "shape": list(array.shape), "data": array.ravel().tolist()}


def labels(answer: dict[str, Any]) -> list[int]:
    return next(list(output["data"]) for output in answer["outputs"] if output["name"] == "label")


def changed(release: Release, folder: Path, copy: Path, path: str, old: str, new: str) -> tuple[Release, Path]:
    """A copy of a release in which one file was written otherwise from the start, so its digest is right."""
    shutil.copytree(folder, copy)
    text = (copy / path).read_bytes()
    assert old.encode() in text
    (copy / path).write_bytes(text.replace(old.encode(), new.encode()))
    return replace(release, files={**release.files, path: sha256(copy / path)}), copy


def wide_release(folder: Path, width: int | str) -> Release:
    """`wide/1`: takes rows of any width in its config, of `width` in its graph, and of four in its matrix."""
    info = [
        helper.make_tensor_value_info("image", TensorProto.FLOAT, ["batch", width]),
        helper.make_tensor_value_info("label", TensorProto.FLOAT, ["batch", 1]),
    ]
    ones = helper.make_tensor("ones", TensorProto.FLOAT, [4, 1], [1.0] * 4)
    graph = helper.make_graph(
        [helper.make_node("MatMul", ["image", "ones"], ["label"])], "wide", info[:1], info[1:], [ones]
    )
    model = helper.make_model(graph, ir_version=10, opset_imports=[helper.make_opsetid("", 20)])
    signature = Signature((Tensor("image", "FP32", (-1,)),), (Tensor("label", "FP32", (1,)),))
    served = folder / "triton" / "wide"
    (served / "1").mkdir(parents=True)
    (served / "1" / "model.onnx").write_bytes(model.SerializeToString())
    (served / "config.pbtxt").write_text(config_text("wide", 1, signature, 8, "a-run"))
    files = {str(path.relative_to(folder)): sha256(path) for path in folder.rglob("*") if path.is_file()}
    golden = Golden({"image": [[1.0, 2.0, 3.0, 4.0]]}, {"label": [[10.0]]}, 1e-6)
    return Release("wide", 1, "a-run", "now", "fp32", 8, signature, "label", files, {}, golden, {})
