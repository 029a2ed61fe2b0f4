"""From a PyTorch module to the bytes of an ONNX file that servers of the last two years load.

Knows torch.onnx and the ONNX format. Must not know runs, releases or repositories.
"""

import contextlib
import logging
import warnings
from collections.abc import Iterator, Sequence

import onnx
import torch
from google.protobuf.message import DecodeError  # type: ignore[import-untyped]
from torch import nn

from exporter.errors import ConversionError
from exporter.release import Signature, Tensor

INPUTS = ("image",)
OUTPUTS = ("label", "probabilities")
OPSET = 20
# The newest that the ONNX Runtime in Triton 24.10 (1.19) is known to load; see shared/facts/triton.md section 8.
NEWEST_IR = 10
# An example of one row would be specialised to batch size 1 (pytorch#157621).
EXAMPLE_ROWS = 3

_TRITON_TYPES: dict[int, str] = {
    onnx.TensorProto.BOOL: "BOOL",
    onnx.TensorProto.UINT8: "UINT8",
    onnx.TensorProto.INT8: "INT8",
    onnx.TensorProto.INT32: "INT32",
    onnx.TensorProto.INT64: "INT64",
    onnx.TensorProto.FLOAT16: "FP16",
    onnx.TensorProto.FLOAT: "FP32",
    onnx.TensorProto.DOUBLE: "FP64",
}


def convert(model: nn.Module, dims: Sequence[int]) -> bytes:
    """Write `model`, which takes float32 [batch, *dims], as one ONNX file with a symbolic batch.

    Raises:
        ConversionError: torch cannot convert it, or the graph is not portable.
    """
    example = torch.zeros(EXAMPLE_ROWS, *dims)
    try:
        with _without_noise():
            program = torch.onnx.export(
                model.eval(),
                (example,),
                dynamo=True,
                input_names=INPUTS,
                output_names=OUTPUTS,
                dynamic_shapes=({0: torch.export.Dim("batch")},),
                opset_version=OPSET,
                external_data=False,
                verbose=False,
            )
            assert program is not None
            graph: bytes = program.model_proto.SerializeToString()
    except torch.onnx.OnnxExporterError as exc:
        raise ConversionError(f"torch cannot write this model as ONNX: {exc}") from exc
    check_graph(graph)
    return graph


def check_graph(graph: bytes) -> None:
    """Raises ConversionError unless the graph is valid, portable and has a symbolic batch everywhere."""
    proto = parse(graph)
    try:
        onnx.checker.check_model(proto, full_check=True)
    except (onnx.checker.ValidationError, onnx.shape_inference.InferenceError) as exc:
        raise ConversionError(f"the ONNX graph is not valid: {exc}") from exc
    if proto.ir_version > NEWEST_IR:
        raise ConversionError(f"the ONNX file has IR version {proto.ir_version}; Triton takes up to {NEWEST_IR}")
    for value in (*proto.graph.input, *proto.graph.output):
        dims = value.type.tensor_type.shape.dim
        if not dims or not dims[0].dim_param:
            raise ConversionError(f'"{value.name}" has a fixed first dimension: the model cannot be batched')


def read_signature(graph: bytes) -> Signature:
    """Names, types and dims without the batch, as Triton spells them. Raises ConversionError for other types."""
    proto = parse(graph)
    return Signature(tuple(map(_tensor, proto.graph.input)), tuple(map(_tensor, proto.graph.output)))


def parse(graph: bytes) -> onnx.ModelProto:
    """Raises ConversionError where the bytes are no ONNX file."""
    try:
        return onnx.load_model_from_string(graph)
    except DecodeError as exc:
        raise ConversionError(f"this is not an ONNX file: {exc}") from exc


def _tensor(value: onnx.ValueInfoProto) -> Tensor:
    tensor = value.type.tensor_type
    if tensor.elem_type not in _TRITON_TYPES:
        kind = onnx.TensorProto.DataType.Name(tensor.elem_type)
        raise ConversionError(f'"{value.name}" is of type {kind}, which a release cannot have')
    dims = tuple(dim.dim_value if dim.HasField("dim_value") else -1 for dim in tensor.shape.dim)
    return Tensor(value.name, _TRITON_TYPES[tensor.elem_type], dims[1:])


@contextlib.contextmanager
def _without_noise() -> Iterator[None]:
    """Keep torch from telling that torchvision is not there, and from warning about its own use of its own code."""
    logger = logging.getLogger("torch.onnx._internal.exporter._registration")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message=r".isinstance\(treespec, LeafSpec\)", category=FutureWarning)
            yield
    finally:
        logger.setLevel(level)
