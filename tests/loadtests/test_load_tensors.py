"""Rows become requests and answers become classes, in both forms."""

import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays

from loadtests.tensors import LENGTH_HEADER, binary_body, classes_in, json_body

ROWS = arrays(np.float32, array_shapes(min_dims=2, max_dims=3, max_side=4), elements=st.floats(-1e6, 1e6, width=32))


@given(ROWS)
def test_json_carries_the_very_floats(rows: np.ndarray) -> None:
    body = json_body("image", rows)
    tensor = json.loads(body.data)["inputs"][0]
    assert (tensor["name"], tensor["datatype"]) == ("image", "FP32")
    assert np.array_equal(np.array(tensor["data"], np.float32).reshape(tensor["shape"]), rows)


@given(ROWS)
def test_binary_carries_the_very_floats_behind_its_head(rows: np.ndarray) -> None:
    body = binary_body("image", rows)
    length = int(body.headers[LENGTH_HEADER])
    tensor = json.loads(body.data[:length])["inputs"][0]
    assert tensor["parameters"]["binary_data_size"] == len(body.data) - length
    assert np.array_equal(np.frombuffer(body.data[length:], "<f4").reshape(tensor["shape"]), rows)


def test_classes_are_read_from_the_output_of_that_name() -> None:
    scores = {"name": "scores", "data": [[0.1, 0.9]]}
    answer = json.dumps({"outputs": [scores, {"name": "label", "data": [[3], [7]]}]}).encode()
    assert classes_in(answer) == [3, 7]
    assert classes_in(json.dumps({"outputs": [scores]}).encode()) == []
    assert classes_in(b"{}") == []


@pytest.mark.parametrize("garbage", [b"", b"<html>", b'{"outputs":', b"\xff\xfe", b"[]", b"3", b'{"outputs": [4]}'])
def test_garbage_is_a_value_error(garbage: bytes) -> None:
    with pytest.raises(ValueError):
        classes_in(garbage)
