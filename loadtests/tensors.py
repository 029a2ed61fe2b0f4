"""Inference requests and answers as bytes: JSON tensors, and binary tensors behind a JSON head."""

import json
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

LENGTH_HEADER = "inference-header-content-length"


@dataclass(frozen=True, slots=True)
class Body:
    """A request's body and the headers that describe it."""

    data: bytes
    headers: Mapping[str, str]


def json_body(name: str, rows: npt.NDArray[np.float32]) -> Body:
    """`rows` [batch, *dims] as a JSON tensor."""
    tensor = {"name": name, "shape": list(rows.shape), "datatype": "FP32", "data": rows.ravel().tolist()}
    return Body(json.dumps({"inputs": [tensor]}).encode(), {"content-type": "application/json"})


def binary_body(name: str, rows: npt.NDArray[np.float32]) -> Body:
    """`rows` [batch, *dims] as a binary tensor."""
    raw = rows.astype("<f4").tobytes()
    tensor = {
        "name": name, "shape": list(rows.shape), "datatype": "FP32", "parameters": {"binary_data_size": len(raw)},
    }  # fmt: skip
    head = json.dumps({"inputs": [tensor]}).encode()
    return Body(head + raw, {"content-type": "application/octet-stream", LENGTH_HEADER: str(len(head))})


def classes_in(body: bytes, output: str = "label") -> list[int]:
    """The class indices of a JSON answer's integer output; empty when it has none.

    Raises:
        ValueError: the answer is not one in the protocol's JSON form.
    """
    try:
        for tensor in json.loads(body).get("outputs", ()):
            if tensor["name"] == output and "data" in tensor:
                return [int(value) for value in np.ravel(tensor["data"])]
    except (AttributeError, KeyError, TypeError) as exc:
        raise ValueError(f"not an inference answer: {body[:80]!r}") from exc
    return []
