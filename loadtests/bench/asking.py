"""What the bench's load sends: bodies, and a request for each sticky client and model."""

from collections.abc import Sequence

import numpy as np

from gateway.routes import DEFAULT_STICKY_HEADER
from loadtests.tensors import Body, binary_body, json_body

KEYS = 1000
"""Sticky clients; enough for a tenth of them to be the candidate's."""
SMALL_BYTES = 16 * 1024
"""Up to here, head and body leave in one piece."""

Request = Sequence[bytes]
"""The pieces of one request, head first."""


def small_json() -> Body:
    """One digits image: 64 floats as JSON text."""
    return json_body("image", np.linspace(0, 1, 64, dtype=np.float32).round(3).reshape(1, 8, 8))


def binary_602k() -> Body:
    """One ImageNet-sized picture, 3 x 224 x 224 FP32: 602,112 bytes and their JSON head."""
    return binary_body("image", np.zeros((1, 3, 224, 224), dtype=np.float32))


BODIES = {"small_json": small_json, "binary_602k": binary_602k}


def model_names(models: int) -> list[str]:
    """`digits` alone for 0, else as many numbered ones, whose names are all of one length."""
    return [f"digits-{number:05}" for number in range(models)] or ["digits"]


def requests_for(body: Body, address: str, models: int = 0) -> list[Request]:
    """One request for each sticky client, and for each model where there are more of these. All are equally long."""
    names = model_names(models)
    fields = "".join(f"{name}: {value}\r\n" for name, value in body.headers.items())
    fields = f"host: {address}\r\n{fields}content-length: {len(body.data)}\r\n"
    heads = [
        f"POST /v2/models/{names[n % len(names)]}/infer HTTP/1.1\r\n{fields}"
        f"{DEFAULT_STICKY_HEADER}: client-{n % KEYS:03}\r\n\r\n".encode()
        for n in range(max(KEYS, len(names)))
    ]
    if len(body.data) <= SMALL_BYTES:
        return [(head + body.data,) for head in heads]
    return [(head, body.data) for head in heads]
