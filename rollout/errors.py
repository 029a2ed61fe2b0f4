"""What the control plane refuses or cannot do.

ControlError                 base; `status` is the HTTP status it becomes, `code` the word that programs may rely on
├── NotFoundError            404: no such model, release or rollout
├── ConflictError            409: not now (a rollout is under way, the rollout has ended)
│   ├── StageChangedError    409: it is at another stage than the one that was looked at
│   ├── KeyReusedError       409: the idempotency key belongs to another request
│   └── RevisionChangedError 412: it changed since the revision that the request names
├── RefusedError             422: the request can never be carried out as it is (plan, signature, name)
│   └── InvalidError         422: the request is not well formed
├── DatabaseError            503: the database cannot be opened or is of another version
├── NotLeaderError           503: another control plane leads
└── StoppingError            503: the control plane stops; what was under way is taken up by the next one
"""

from enum import StrEnum


class Code(StrEnum):
    """Every `code` of an error answer. A code never changes its meaning; new ones may be added."""

    INVALID = "invalid"
    NOT_FOUND = "not_found"
    METHOD_NOT_ALLOWED = "method_not_allowed"
    CONFLICT = "conflict"
    STAGE_CHANGED = "stage_changed"
    IDEMPOTENCY_REUSED = "idempotency_reused"
    REVISION_CHANGED = "revision_changed"
    TOO_LARGE = "too_large"
    REFUSED = "refused"
    INTERNAL = "internal"
    UNAVAILABLE = "unavailable"
    NOT_LEADER = "not_leader"


class ControlError(Exception):
    """Base. The text says what is wrong; `hint`, where it is given, what to do next."""

    status = 500
    code = Code.INTERNAL

    def __init__(self, text: str = "", hint: str = "") -> None:
        super().__init__(text)
        self.hint = hint


class NotFoundError(ControlError):
    status = 404
    code = Code.NOT_FOUND


class ConflictError(ControlError):
    status = 409
    code = Code.CONFLICT


class StageChangedError(ConflictError):
    code = Code.STAGE_CHANGED


class KeyReusedError(ConflictError):
    code = Code.IDEMPOTENCY_REUSED


class RevisionChangedError(ConflictError):
    status = 412
    code = Code.REVISION_CHANGED


class RefusedError(ControlError):
    status = 422
    code = Code.REFUSED


class InvalidError(RefusedError):
    code = Code.INVALID


class DatabaseError(ControlError):
    status = 503
    code = Code.UNAVAILABLE


class NotLeaderError(ControlError):
    """`address` is where the leader takes requests, empty when nobody leads."""

    status = 503
    code = Code.NOT_LEADER

    def __init__(self, address: str) -> None:
        if address:
            super().__init__(f"another control plane leads: {address}", "ask that one")
        else:
            super().__init__("no control plane leads yet", "try again soon")
        self.address = address


class StoppingError(ControlError):
    status = 503
    code = Code.UNAVAILABLE
