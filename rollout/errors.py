"""What the control plane refuses or cannot do.

ControlError                 base; `status` is the HTTP status it becomes
├── NotFoundError            404: no such model, release or rollout
├── ConflictError            409: not now (a rollout is under way, the rollout has ended)
├── RefusedError             422: the request can never be carried out as it is (plan, signature, name)
├── DatabaseError            503: the database cannot be opened or is of another version
├── NotLeaderError           503: another control plane leads
└── StoppingError            503: the control plane stops; what was under way is taken up by the next one
"""


class ControlError(Exception):
    """Base; the text says what to do."""

    status = 500


class NotFoundError(ControlError):
    status = 404


class ConflictError(ControlError):
    status = 409


class RefusedError(ControlError):
    status = 422


class DatabaseError(ControlError):
    status = 503


class NotLeaderError(ControlError):
    """`address` is where the leader takes requests, empty when nobody leads."""

    status = 503

    def __init__(self, address: str) -> None:
        super().__init__(
            f"another control plane leads: ask {address}" if address else "no control plane leads yet: try again soon"
        )
        self.address = address


class StoppingError(ControlError):
    status = 503
