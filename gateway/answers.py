"""Answers that the gateway makes itself, and the protocol's form of an error. Bytes only: knows no connection."""

import json
from http import HTTPStatus

CLOSE = b"connection: close\r\n"


class RefusedError(Exception):
    """A request that is not taken: its status and why. The connection is closed after it."""

    def __init__(self, status: int, text: str) -> None:
        super().__init__(text)
        self.status = status
        self.text = text


def error_answer(status: int, text: str, headers: bytes = b"", close: bool = False) -> bytes:
    """An answer in the protocol's error form, `{"error": "..."}`. `headers` are whole lines."""
    return whole_answer(status, error_body(text), headers + (CLOSE if close else b""))


def error_body(text: str) -> bytes:
    return json.dumps({"error": text}).encode()


def whole_answer(status: int, body: bytes, headers: bytes = b"", is_head: bool = False) -> bytes:
    """`is_head`: the same head without the body, as HEAD asks for."""
    return b"".join(
        (status_line(status), b"content-type: application/json\r\n", headers,
         b"content-length: ", str(len(body)).encode(), b"\r\n\r\n", b"" if is_head else body)
    )  # fmt: skip


def status_line(status: int) -> bytes:
    line = _STATUS_LINES.get(status)
    return line if line is not None else b"HTTP/1.1 %d Status\r\n" % status


_STATUS_LINES = {status.value: f"HTTP/1.1 {status.value} {status.phrase}\r\n".encode() for status in HTTPStatus}
