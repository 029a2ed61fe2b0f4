"""Triton's backend "onnxruntime", for servers that come without NVIDIA's: runs inside Triton's Python stub.

Knows Triton's Python backend and ONNX Runtime, and nothing else of ours: the file is copied into a backend directory
and loaded from there. A repository that works with it works unchanged with the native backend of that name, which
Triton prefers where it is installed.

Tensors are exchanged through DLPack, because this Triton's `Tensor(name, array)` does not work with numpy 2.
"""

import ctypes
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnxruntime
import triton_python_backend_utils as pb
from onnxruntime.capi.onnxruntime_pybind11_state import InvalidArgument

Array = npt.NDArray[Any]

# https://github.com/triton-inference-server/onnxruntime_backend, "optimization": the native backend's levels.
GRAPH_LEVELS = {
    "-1": onnxruntime.GraphOptimizationLevel.ORT_ENABLE_BASIC,
    "1": onnxruntime.GraphOptimizationLevel.ORT_ENABLE_EXTENDED,
    "2": onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL,
}
# What ONNX Runtime calls Triton's data types. Types that DLPack does not carry are not here, and refused at load.
ORT_TYPES = {
    "TYPE_BOOL": "tensor(bool)",
    "TYPE_UINT8": "tensor(uint8)",
    "TYPE_UINT16": "tensor(uint16)",
    "TYPE_UINT32": "tensor(uint32)",
    "TYPE_UINT64": "tensor(uint64)",
    "TYPE_INT8": "tensor(int8)",
    "TYPE_INT16": "tensor(int16)",
    "TYPE_INT32": "tensor(int32)",
    "TYPE_INT64": "tensor(int64)",
    "TYPE_FP16": "tensor(float16)",
    "TYPE_FP32": "tensor(float)",
    "TYPE_FP64": "tensor(double)",
}
# https://dmlc.github.io/dlpack/latest/python_spec.html: the name of a capsule whose tensor has a new owner.
USED = ctypes.c_char_p(b"used_dltensor")


class TritonPythonModel:
    """One instance of one version; Triton calls `initialize` once and `execute` with one batch at a time."""

    def initialize(self, args: Mapping[str, str]) -> None:
        """Load `model.onnx` from the version's folder. Whatever is raised here fails the load with its message."""
        config = json.loads(args["model_config"])
        name = config.get("default_model_filename") or "model.onnx"
        path = Path(pb.get_model_dir()) / name
        self._is_batched = config["max_batch_size"] > 0
        self._session = _open_session(path, config, args)
        self._inputs = [tensor["name"] for tensor in config["input"]]
        self._outputs = [tensor["name"] for tensor in config["output"]]
        _check_tensors("input", config["input"], self._session.get_inputs(), self._is_batched)
        _check_tensors("output", config["output"], self._session.get_outputs(), self._is_batched)

    def execute(self, requests: Sequence[Any]) -> list[Any]:
        """Answer every request; all rows go through one run. A request that cannot be answered gets its own error."""
        feeds = [self._feed(request) for request in requests]
        try:
            answers: list[list[Array] | Any] = self._run_together(feeds)
        except Exception:
            # One of them is at fault; each alone shows which.
            answers = [self._run_alone(feed) for feed in feeds]
        return [self._response(request, answer) for request, answer in zip(requests, answers, strict=True)]

    def _feed(self, request: Any) -> dict[str, Array]:
        tensors = {name: pb.get_input_tensor_by_name(request, name) for name in self._inputs}
        return {name: np.from_dlpack(tensor) for name, tensor in tensors.items() if tensor is not None}

    def _run_together(self, feeds: Sequence[Mapping[str, Array]]) -> list[list[Array]]:
        if len(feeds) == 1:
            return [self._session.run(self._outputs, feeds[0])]
        if not self._is_batched:
            return [self._session.run(self._outputs, feed) for feed in feeds]
        together = {name: np.concatenate([feed[name] for feed in feeds]) for name in self._inputs}
        ends = np.cumsum([len(feed[self._inputs[0]]) for feed in feeds])[:-1]
        split = [np.split(output, ends) for output in self._session.run(self._outputs, together)]
        return [list(of_request) for of_request in zip(*split, strict=True)]

    def _run_alone(self, feed: Mapping[str, Array]) -> Any:
        try:
            return self._session.run(self._outputs, feed)
        except Exception as exc:
            return pb.TritonError(f"the model cannot take this request: {exc}", _error_code(exc))

    def _response(self, request: Any, answer: Any) -> Any:
        if isinstance(answer, pb.TritonError):
            return pb.InferenceResponse(error=answer)
        wanted = set(request.requested_output_names())
        tensors = [_to_triton(name, array) for name, array in zip(self._outputs, answer, strict=True) if name in wanted]
        return pb.InferenceResponse(output_tensors=tensors)


def _to_triton(name: str, array: Array) -> Any:
    """Hand an array over without a copy.

    Triton marks a taken capsule as "used_dlpack" where the protocol says "used_dltensor"; numpy would then print a
    traceback for every tensor when it lets go of the capsule, so the mark is put right.
    """
    capsule = np.ascontiguousarray(array).__dlpack__()
    tensor = pb.Tensor.from_dlpack(name, capsule)
    ctypes.pythonapi.PyCapsule_SetName(ctypes.py_object(capsule), USED)
    return tensor


def _error_code(exc: Exception) -> Any:
    """What ONNX Runtime refuses before it runs is the client's fault. What fails while it runs may be the model's,
    and a candidate must not be able to blame its clients."""
    return pb.TritonError.INVALID_ARG if isinstance(exc, InvalidArgument) else pb.TritonError.INTERNAL


def _open_session(path: Path, config: Mapping[str, Any], args: Mapping[str, str]) -> Any:
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    options.intra_op_num_threads = int(_parameter(config, "intra_op_thread_count", "0"))
    options.inter_op_num_threads = int(_parameter(config, "inter_op_thread_count", "0"))
    if _parameter(config, "execution_mode", "0") == "1":
        options.execution_mode = onnxruntime.ExecutionMode.ORT_PARALLEL
    level = str(config.get("optimization", {}).get("graph", {}).get("level", 0))
    options.graph_optimization_level = GRAPH_LEVELS.get(level, onnxruntime.GraphOptimizationLevel.ORT_ENABLE_ALL)
    try:
        session = onnxruntime.InferenceSession(path, options, providers=_providers(args))
    except Exception as exc:
        raise pb.TritonModelException(f"ONNX Runtime cannot load {path}: {exc}") from exc
    pb.Logger.log_info(f"{args['model_name']}/{args['model_version']} runs on {session.get_providers()[0]}")
    return session


def _providers(args: Mapping[str, str]) -> list[Any]:
    is_gpu = args["model_instance_kind"] == "GPU" and "CUDAExecutionProvider" in onnxruntime.get_available_providers()
    if not is_gpu:
        return ["CPUExecutionProvider"]
    onnxruntime.preload_dlls()
    return [("CUDAExecutionProvider", {"device_id": int(args["model_instance_device_id"])}), "CPUExecutionProvider"]


def _parameter(config: Mapping[str, Any], key: str, default: str) -> str:
    return str(config.get("parameters", {}).get(key, {}).get("string_value", default))


def _check_tensors(what: str, configured: Sequence[Any], loaded: Sequence[Any], is_batched: bool) -> None:
    """config.pbtxt must fit the ONNX file, as with the native backend. It may name fewer outputs, but every input."""
    of_file = {tensor.name: tensor for tensor in loaded}
    for tensor in configured:
        if tensor["name"] not in of_file:
            raise pb.TritonModelException(
                f'{what} "{tensor["name"]}" of config.pbtxt is not in the ONNX file, which has {sorted(of_file)}'
            )
        _check_tensor(what, tensor, of_file[tensor["name"]], is_batched)
    missing = set(of_file) - {tensor["name"] for tensor in configured}
    if what == "input" and missing:
        raise pb.TritonModelException(f"config.pbtxt lacks the input {sorted(missing)} of the ONNX file")


def _check_tensor(what: str, tensor: Mapping[str, Any], of_file: Any, is_batched: bool) -> None:
    where = f'{what} "{tensor["name"]}"'
    if ORT_TYPES.get(tensor["data_type"]) != of_file.type:
        raise pb.TritonModelException(f"{where} is {tensor['data_type']} in config.pbtxt, {of_file.type} in the file")
    shape = [dim if isinstance(dim, int) else -1 for dim in of_file.shape]
    if is_batched and (not shape or shape[0] != -1):
        raise pb.TritonModelException(f"{where} has no batch dimension in the ONNX file: set max_batch_size to 0")
    dims = [int(dim) for dim in tensor["dims"]]
    of_rows = shape[1:] if is_batched else shape
    if len(dims) != len(of_rows) or any(a != b for a, b in zip(dims, of_rows, strict=True) if -1 not in (a, b)):
        raise pb.TritonModelException(f"{where} has dims {dims} in config.pbtxt, {of_rows} in the ONNX file")
