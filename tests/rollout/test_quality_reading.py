"""Predictions out of answers' bytes."""

import json
import struct
import zlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.samples import Answer, Sample
from rollout.quality import DECODED_BYTES_MOST, predicted, prediction_of

LABELS = {"name": "label", "datatype": "INT64", "shape": [2, 1]}
SCORES = {"name": "probabilities", "datatype": "FP32", "shape": [2, 1]}


def json_answer(outputs: object) -> Answer:
    return Answer(2, json.dumps({"outputs": outputs}).encode())


def binary_answer() -> Answer:
    scores, labels = struct.pack("<2f", 0.5, 0.5), struct.pack("<2q", 3, 7)
    outputs = [
        {**SCORES, "parameters": {"binary_data_size": len(scores)}},
        {**LABELS, "parameters": {"binary_data_size": len(labels)}},
    ]
    head = json.dumps({"outputs": outputs}).encode()
    return Answer(2, head + scores + labels, len(head))


@pytest.mark.parametrize("data", [[3, 7], [[3], [7]], [3.0, 7.0]])
def test_reads_json_tensors(data: list[object]) -> None:
    assert predicted(json_answer([{**SCORES, "data": [0.5, 0.5]}, {**LABELS, "data": data}]), "label") == (3, 7)


def test_reads_binary_tensors_behind_others() -> None:
    assert predicted(binary_answer(), "label") == (3, 7)


@pytest.mark.parametrize("encoding", ["gzip", "deflate"])
def test_reads_compressed_answers(encoding: str) -> None:
    plain = json_answer([{**LABELS, "data": [3, 7]}])
    packer = zlib.compressobj(wbits=31 if encoding == "gzip" else 15)
    body = packer.compress(plain.body) + packer.flush()
    assert predicted(Answer(2, body, None, encoding), "label") == (3, 7)


def test_compressed_answer_is_unpacked_up_to_a_bound() -> None:
    body = zlib.compress(b'{"outputs": [' + b" " * (DECODED_BYTES_MOST * 4))
    assert predicted(Answer(2, body, None, "deflate"), "label") is None


@pytest.mark.parametrize(
    "body",
    [
        b"", b"{", b"[]", b'{"outputs": 3}', b'{"outputs": [3]}', b'{"outputs": []}', b'{"error": "no"}',
        b'{"outputs": [{"name": "label", "datatype": "FP32", "data": [1]}]}',
        b'{"outputs": [{"name": "label", "datatype": "INT64", "data": ["x"]}]}',
        b'{"outputs": [{"name": "label", "datatype": "INT64"}]}', b"[" * 100_000,
    ],
)  # fmt: skip
def test_what_cannot_be_read_is_no_prediction(body: bytes) -> None:
    assert predicted(Answer(1, body), "label") is None


@given(st.binary(max_size=200), st.one_of(st.none(), st.integers(0, 300)), st.sampled_from(["", "gzip", "br"]))
def test_garbage_is_no_prediction(body: bytes, length: int | None, encoding: str) -> None:
    assert predicted(Answer(1, body, length, encoding), "label") is None


def test_sample_without_a_readable_mirror_keeps_stables_prediction() -> None:
    answered = json_answer([{**LABELS, "data": [3, 7]}])
    found = prediction_of(Sample("r", "digits", 1.0, answered, Answer(3, b"{")), "label")
    assert found is not None
    assert (found.predicted, found.mirrored_release, found.mirrored_predicted) == ((3, 7), None, None)
