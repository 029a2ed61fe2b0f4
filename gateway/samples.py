"""Samples and labels: recorded predictions, and the truth that clients send later. Contract, like `windows`.

A sample carries the answers' bytes as they were; what they mean is read by the control plane (`rollout/quality`).
"""

import base64
import binascii
import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from gateway.routes import NAME

REQUEST_ID = re.compile(r"[!-~]{1,128}")
"""What a request id may look like: visible ASCII, so that it can stand in a header and in any store."""


@dataclass(frozen=True, slots=True)
class Answer:
    """One release's answer: the body as received, and the length of its JSON part when binary tensors follow it."""

    release: int
    body: bytes
    json_length: int | None = None
    encoding: str = ""

    def to_json(self) -> dict[str, Any]:
        return {
            "release": self.release,
            "body": base64.b64encode(self.body).decode(),
            "json_length": self.json_length,
            "encoding": self.encoding,
        }

    @staticmethod
    def from_json(data: Mapping[str, Any]) -> "Answer":
        length = data.get("json_length")
        if length is not None and (type(length) is not int or length < 0):
            raise ValueError(f"not an answer: json_length is {length!r}")
        try:
            body = base64.b64decode(data["body"], validate=True)
        except binascii.Error as exc:
            raise ValueError("not an answer: the body is not base64") from exc
        return Answer(int(data["release"]), body, length, str(data.get("encoding", "")))


@dataclass(frozen=True, slots=True)
class Sample:
    """What `release` answered to a request, and what the shadow answered to the same request when it was mirrored."""

    request_id: str
    model: str
    at: float
    answered: Answer
    mirrored: Answer | None = None

    def to_json(self) -> dict[str, Any]:
        return {
            "request_id": self.request_id,
            "model": self.model,
            "at": self.at,
            "answered": self.answered.to_json(),
            "mirrored": self.mirrored and self.mirrored.to_json(),
        }

    @staticmethod
    def from_json(data: Mapping[str, Any]) -> "Sample":
        """Read a sample. Raises ValueError when it is not one."""
        try:
            mirrored = data.get("mirrored")
            sample = Sample(
                request_id=str(data["request_id"]),
                model=str(data["model"]),
                at=float(data["at"]),
                answered=Answer.from_json(data["answered"]),
                mirrored=None if mirrored is None else Answer.from_json(mirrored),
            )
        except (KeyError, TypeError, AttributeError, OverflowError) as exc:
            raise ValueError(f"not a sample: {exc!r}") from exc
        if not math.isfinite(sample.at):
            raise ValueError("not a sample: 'at' is not a time")
        return sample


@dataclass(frozen=True, slots=True)
class Label:
    """The truth for a request: a class index, or for a batch one per row, in the order of the rows."""

    request_id: str
    model: str
    labels: tuple[int, ...]

    def to_json(self) -> dict[str, Any]:
        return {"request_id": self.request_id, "model": self.model, "label": list(self.labels)}

    @staticmethod
    def from_json(data: Any) -> "Label":
        """Read a label as clients send it: `{"request_id": "...", "model": "...", "label": 3 or [3, 7]}`.

        Raises:
            ValueError: it is not a label; the text says what is wrong.
        """
        if not isinstance(data, dict):
            raise ValueError("a label must be an object with request_id, model and label")
        request_id, model, label = data.get("request_id"), data.get("model"), data.get("label")
        if not isinstance(request_id, str) or not REQUEST_ID.fullmatch(request_id):
            raise ValueError(
                "a label needs 'request_id', the answer's x-request-id (1 to 128 visible ASCII characters)"
            )
        if not isinstance(model, str) or not NAME.fullmatch(model):
            raise ValueError("a label needs 'model', the model's name")
        rows: list[Any] = label if isinstance(label, list) else [label]
        if not 0 < len(rows) <= 4096 or not all(type(row) is int and 0 <= row < 2**31 for row in rows):
            raise ValueError("a label needs 'label', a class index or a list of them, one a row of the request")
        return Label(request_id, model, tuple(rows))
