"""The few words of the V2 protocol that it takes to see whether a server is ready and answers as it should.

Knows HTTP, JSON and golden rows. Must not know processes.
"""

import http.client
import json
import math
from collections.abc import Iterator
from typing import Any

from exporter.release import Golden, Release, Tensor
from rollout.pools.errors import WrongAnswerError

REQUEST_TIMEOUT_S = 10.0


def is_ready(address: str, model: str, number: int) -> bool:
    """Is that version of the model ready? A server that cannot be reached is not."""
    return readiness(address, model, number, REQUEST_TIMEOUT_S) is True


def readiness(address: str, model: str, number: int, timeout_s: float) -> bool | None:
    """Whether that version is ready, by the server at HOST:PORT; None when it does not say so in time. Never asks
    about the whole server, whose readiness says other things (shared/facts/triton.md section 2)."""
    try:
        status, _ = _ask(address, "GET", f"/v2/models/{model}/versions/{number}/ready", timeout_s=timeout_s)
    except (OSError, http.client.HTTPException):
        return None
    return status == 200


def is_live(address: str, timeout_s: float) -> bool:
    """Is there a server that speaks the protocol?"""
    try:
        status, _ = _ask(address, "GET", "/v2/health/live", timeout_s=timeout_s)
    except (OSError, http.client.HTTPException):
        return False
    return status == 200


def check_golden(address: str, release: Release) -> None:
    """Ask the golden rows. Raises WrongAnswerError where the answer is not the one in the manifest."""
    request = {
        "inputs": [_tensor(tensor, release.golden.inputs[tensor.name]) for tensor in release.signature.inputs],
        "outputs": [{"name": tensor.name} for tensor in release.signature.outputs],
    }
    path = f"/v2/models/{release.model}/versions/{release.number}/infer"
    try:
        status, body = _ask(address, "POST", path, json.dumps(request))
        answer = json.loads(body)
    except (OSError, http.client.HTTPException, ValueError) as exc:
        raise WrongAnswerError(f"{release.name} did not answer its golden rows: {exc!r}") from exc
    if status != 200:
        raise WrongAnswerError(f"{release.name} answered its golden rows with {status}: {answer.get('error', answer)}")
    found = {output["name"]: output["data"] for output in answer["outputs"]}
    for name in release.golden.outputs:
        _compare(release, name, found.get(name, []))


def _tensor(tensor: Tensor, rows: Any) -> dict[str, Any]:
    return {"name": tensor.name, "datatype": tensor.dtype, "shape": _shape(rows), "data": rows}


def _shape(nested: Any) -> list[int]:
    """The sizes of nested lists; the signature's dims may leave some open."""
    return [len(nested), *_shape(nested[0])] if isinstance(nested, list) else []


def _compare(release: Release, name: str, found: list[Any]) -> None:
    golden: Golden = release.golden
    expected = list(_flat(golden.outputs[name]))
    if len(found) != len(expected):
        raise WrongAnswerError(f'{release.name} gave {len(found)} values of "{name}" for its golden rows')
    for place, (got, wanted) in enumerate(zip(found, expected, strict=True)):
        allowed = golden.tolerance if isinstance(wanted, float) else 0
        if not math.isclose(got, wanted, rel_tol=0, abs_tol=allowed):
            raise WrongAnswerError(
                f'{release.name} answered its golden rows with {got} where "{name}" is {wanted} (value {place}): '
                "the server does not compute what the release was verified for"
            )


def _flat(nested: Any) -> Iterator[Any]:
    if isinstance(nested, list):
        for item in nested:
            yield from _flat(item)
    else:
        yield nested


def _ask(
    address: str, method: str, path: str, body: str | None = None, timeout_s: float = REQUEST_TIMEOUT_S
) -> tuple[int, bytes]:
    """One request on a connection of its own: one left open would hold up the server's exit."""
    host, _, port = address.rpartition(":")
    connection = http.client.HTTPConnection(host, int(port), timeout=timeout_s)
    try:
        connection.request(method, path, body)
        response = connection.getresponse()
        return response.status, response.read()
    finally:
        connection.close()
