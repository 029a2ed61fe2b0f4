"""What an answer says: reads the predicted classes out of an answer's bytes. Pure.

Knows the inference protocol's answers (JSON tensors, binary tensors behind a JSON head, gzip and deflate). Knows
nothing of storage, labels or evidence.
"""

import json
import struct
import zlib
from collections.abc import Mapping
from typing import Any

from gateway.samples import Answer, Sample
from rollout.store.observations import Prediction

DECODED_BYTES_MOST = 4 * 1024 * 1024
_INTEGERS = {
    "INT64": "q",
    "INT32": "i",
    "INT16": "h",
    "INT8": "b",
    "UINT64": "Q",
    "UINT32": "I",
    "UINT16": "H",
    "UINT8": "B",
}


def prediction_of(sample: Sample, output: str) -> Prediction | None:
    """A sample's predictions, taken from the integer output named `output`; None when the answer has none."""
    answered = predicted(sample.answered, output)
    if answered is None:
        return None
    mirrored = None if sample.mirrored is None else predicted(sample.mirrored, output)
    return Prediction(
        request_id=sample.request_id,
        model=sample.model,
        at=sample.at,
        release=sample.answered.release,
        predicted=answered,
        mirrored_release=None if mirrored is None or sample.mirrored is None else sample.mirrored.release,
        mirrored_predicted=mirrored,
    )


def predicted(answer: Answer, output: str) -> tuple[int, ...] | None:
    """The class indices of one answer, one a row; None when it holds no such output, or cannot be read."""
    try:
        body = _decoded(answer)
        head = body if answer.json_length is None else body[: answer.json_length]
        outputs = json.loads(head)["outputs"]
        behind = body[len(head) :]
        for tensor in outputs:
            size = int(tensor.get("parameters", {}).get("binary_data_size", 0))
            if tensor["name"] == output:
                return _classes(tensor, behind[:size] if size else None)
            behind = behind[size:]
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError, struct.error, zlib.error):
        return None
    return None


def _decoded(answer: Answer) -> bytes:
    if answer.encoding in ("gzip", "deflate"):
        decoder = zlib.decompressobj(wbits=47)  # Reads both forms by their head.
        return decoder.decompress(answer.body, DECODED_BYTES_MOST)
    return answer.body


def _classes(tensor: Mapping[str, Any], binary: bytes | None) -> tuple[int, ...]:
    code = _INTEGERS[tensor["datatype"]]
    if binary is not None:
        return struct.unpack(f"<{len(binary) // struct.calcsize('<' + code)}{code}", binary)
    return tuple(int(value) for value in _flat(tensor["data"]))


def _flat(data: Any) -> list[Any]:
    if isinstance(data, list):
        return [leaf for entry in data for leaf in _flat(entry)]
    return [data]
