"""Which paths and methods a client may use, and what they ask for. Everything else never reaches a server."""

from dataclasses import dataclass
from enum import Enum

from gateway.routes import NAME


class Kind(Enum):
    """What a path asks for."""

    INFER = "infer"
    GENERATE = "generate"
    READ = "read"
    """Metadata, readiness, config or statistics of a model: answered by one of its servers."""
    LIVE = "live"
    READY = "ready"
    SERVER = "server"
    FEEDBACK = "feedback"


@dataclass(frozen=True, slots=True)
class Asked:
    """A path, understood. `action` is what follows the version on the server's side, for example b"/infer"."""

    kind: Kind
    model: str = ""
    version: int | None = None
    action: bytes = b""


class NotServedError(Exception):
    """What a request asks for is not served; carries the status, the text and header lines for the client."""

    def __init__(self, status: int, text: str, headers: bytes = b"") -> None:
        super().__init__(text)
        self.status = status
        self.text = text
        self.headers = headers


_OWN = {
    b"/v2": (b"GET", Asked(Kind.SERVER)),
    b"/v2/health/live": (b"GET", Asked(Kind.LIVE)),
    b"/v2/health/ready": (b"GET", Asked(Kind.READY)),
    b"/v1/feedback": (b"POST", Asked(Kind.FEEDBACK)),
}
_ACTIONS = {
    b"infer": (b"POST", Kind.INFER),
    b"generate": (b"POST", Kind.GENERATE),
    b"generate_stream": (b"POST", Kind.GENERATE),
    b"": (b"GET", Kind.READ),
    b"ready": (b"GET", Kind.READ),
    b"config": (b"GET", Kind.READ),
    b"stats": (b"GET", Kind.READ),
}
_REFUSED = {b"repository", b"systemsharedmemory", b"cudasharedmemory", b"logging", b"trace"}


def understand(method: bytes, target: bytes) -> Asked:
    """What a request's method and target ask for; a query is ignored, as Triton does.

    Raises:
        NotServedError: 404 for a path that is not served, 405 for another method than the path's.
    """
    path = target.partition(b"?")[0]
    own = _OWN.get(path)
    if own is not None:
        _check_method(method, own[0], path)
        return own[1]
    parts = path.split(b"/")
    if len(parts) < 4 or parts[:3] != [b"", b"v2", b"models"]:
        raise _not_served(path, parts)
    name = parts[3].decode("latin-1")
    rest, version = parts[4:], None
    if rest[:1] == [b"versions"]:
        if len(rest) < 2 or not rest[1].isdigit() or len(rest[1]) > 18:
            raise NotServedError(404, "a version is a whole number: /v2/models/NAME/versions/NUMBER/...")
        version, rest = int(rest[1]), rest[2:]
    word = rest[0] if rest else b""
    if len(rest) > 1 or (rest and not word) or word not in _ACTIONS or not NAME.fullmatch(name):
        raise _not_served(path, parts)
    needed, kind = _ACTIONS[word]
    _check_method(method, needed, path)
    return Asked(kind, name, version, b"/" + word if word else b"")


def _check_method(method: bytes, needed: bytes, path: bytes) -> None:
    if method != needed and not (method == b"HEAD" and needed == b"GET"):
        allow = b"GET, HEAD" if needed == b"GET" else needed
        raise NotServedError(
            405, f"{path.decode('latin-1')[:128]} takes {needed.decode()} only", b"allow: %s\r\n" % allow
        )


def _not_served(path: bytes, parts: list[bytes]) -> NotServedError:
    shown = path[:128].decode("latin-1")
    if len(parts) > 2 and parts[1] == b"v2" and (parts[2] in _REFUSED or b"trace" in parts[4:]):
        return NotServedError(403, f"{shown} is not open to clients: releases are managed by the control plane")
    return NotServedError(404, f"{shown} is not served here: try /v2/models/NAME/infer or /v2/health/ready")
