"""The graph: portable, batched, and compared with PyTorch on real rows."""

import numpy as np
import onnx
import pytest
import torch
from onnx import TensorProto, helper

from exporter.convert import NEWEST_IR, check_graph, convert, parse, read_signature
from exporter.errors import ConversionError, ParityError
from exporter.release import ReleaseError, Signature, Tensor
from exporter.verify import choose_golden, compare, open_session
from trainer.config import DataConfig, ModelConfig
from trainer.data import Inputs, load_dataset
from trainer.models import Classifier, build_model


@pytest.fixture(scope="module")
def rows() -> Inputs:
    return load_dataset(DataConfig()).validation.inputs


def _model(kind: str, seed: int = 0) -> Classifier:
    torch.manual_seed(seed)
    model = build_model(ModelConfig(kind=kind, hidden=(4,), dropout=0.5), (8, 8), 10)
    model.learn_statistics(torch.rand(20, 8, 8) * 16)
    return model.eval()


@pytest.mark.parametrize("kind", ["mlp", "conv"])
def test_graph_answers_as_pytorch_does(kind: str, rows: Inputs) -> None:
    model = _model(kind)
    graph = convert(model, (8, 8))
    assert parse(graph).ir_version <= NEWEST_IR
    assert read_signature(graph) == Signature(
        (Tensor("image", "FP32", (8, 8)),), (Tensor("label", "INT64", (1,)), Tensor("probabilities", "FP32", (10,)))
    )
    parity = compare(model, open_session(graph), rows, largest=300, tolerance=1e-4)
    assert sorted(parity) == ["1", "2", "300", "7"]
    assert max(parity.values()) < 1e-5


def test_another_model_is_refused(rows: Inputs) -> None:
    session = open_session(convert(_model("mlp", seed=1), (8, 8)))
    with pytest.raises(ParityError, match="at batch size 1 a probability from ONNX Runtime differs by"):
        compare(_model("mlp"), session, rows, largest=16, tolerance=1e-4)


def test_other_labels_are_refused_even_where_any_probability_is_allowed(rows: Inputs) -> None:
    session = open_session(convert(_model("mlp", seed=1), (8, 8)))
    model = _model("mlp")
    model.body[-1].weight.data *= 100
    with pytest.raises(ParityError, match="ONNX Runtime"):
        compare(model, session, rows, largest=64, tolerance=0.9)


def test_golden_rows_are_real_and_decided(rows: Inputs) -> None:
    model = _model("mlp")
    golden = choose_golden(open_session(convert(model, (8, 8))), rows)
    inputs = np.asarray(golden.inputs["image"], np.float32)
    assert inputs.shape == (4, 8, 8)
    assert {row.tobytes() for row in inputs} <= {row.tobytes() for row in rows}
    label, _ = model(torch.from_numpy(inputs))
    assert label.tolist() == golden.outputs["label"]


def test_model_without_an_opinion_has_no_golden_rows(rows: Inputs) -> None:
    model = _model("mlp")
    for parameter in model.parameters():
        parameter.data.zero_()
    with pytest.raises(ParityError, match="undecided about every validation row"):
        choose_golden(open_session(convert(model, (8, 8))), rows)


def _identity(first_dim: int | str, ir_version: int = 10, kind: int = TensorProto.FLOAT) -> bytes:
    info = [helper.make_tensor_value_info(name, kind, [first_dim, 2]) for name in ("image", "label")]
    graph = helper.make_graph([helper.make_node("Identity", ["image"], ["label"])], "it", info[:1], info[1:])
    model = helper.make_model(graph, ir_version=ir_version, opset_imports=[helper.make_opsetid("", 20)])
    return bytes(model.SerializeToString())


@pytest.mark.parametrize(
    ("graph", "message"),
    [
        (_identity(1), '"image" has a fixed first dimension'),
        (_identity("batch", ir_version=onnx.IR_VERSION), "IR version"),
        (b"garbage", "not an ONNX file"),
        (b"", "not valid"),
    ],
)
def test_graph_that_is_not_portable_is_refused(graph: bytes, message: str) -> None:
    with pytest.raises(ConversionError, match=message):
        check_graph(graph)


def test_type_that_no_release_can_have_is_refused() -> None:
    with pytest.raises(ConversionError, match='"image" is of type COMPLEX64'):
        read_signature(_identity("batch", kind=TensorProto.COMPLEX64))


def test_session_says_what_it_cannot_load() -> None:
    with pytest.raises(ReleaseError, match="ONNX Runtime cannot load the model"):
        open_session(b"garbage")
