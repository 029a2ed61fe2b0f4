"""Windows: what one gateway counted for one release in one interval. The contract between gateway and control plane.

Knows the outcomes, the latency buckets and who is charged. Knows nothing of HTTP, shared memory or evidence.
"""

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from enum import IntEnum, StrEnum
from typing import Any

BUCKETS_PER_OCTAVE = 32
"""Latency bucket edges have the ratio 2^(1/32) = 1.0219, so margins that are powers of it fall on edges."""
FIRST_EDGE_US = 50.0
LAST_BUCKET = math.ceil(BUCKETS_PER_OCTAVE * math.log2(120e6 / FIRST_EDGE_US))
"""Bucket 0 holds latencies up to 50 us, bucket i those up to 50 us * 2^(i/32), the last one the rest (over 120 s)."""


def bucket_of(latency_us: float) -> int:
    """The bucket of a latency: the least i with latency <= 50 us * 2^(i/32), at most LAST_BUCKET."""
    if latency_us <= FIRST_EDGE_US:
        return 0
    return min(LAST_BUCKET, math.ceil(BUCKETS_PER_OCTAVE * math.log2(latency_us / FIRST_EDGE_US)))


def upper_edge_us(bucket: int) -> float:
    """The largest latency that bucket holds; infinite for the last one."""
    return math.inf if bucket >= LAST_BUCKET else FIRST_EDGE_US * 2.0 ** (bucket / BUCKETS_PER_OCTAVE)


class Outcome(IntEnum):
    """How a request ended, by the release that was assigned first. The values are positions in shared memory."""

    OK = 0
    CLIENT_ERROR = 1
    """4xx, or a 5xx for a body that is not valid: the client's fault, nobody is charged."""
    SERVER_ERROR = 2
    """5xx, or 404 "no available versions"."""
    RESET = 3
    """The connection broke, or the answer was not HTTP, before the answer was whole."""
    TIMEOUT = 4
    UNAVAILABLE = 5
    """No server of the pool took a connection."""
    CLIENT_GONE = 6
    """The client went away while we waited: nobody is charged, the latency is dropped."""
    LOST = 7
    """In flight when a gateway worker died: nobody is charged."""
    SHED = 8
    """There was no room: more requests than the release may have at once, and a full queue. Nobody is charged."""


CHARGED = (Outcome.SERVER_ERROR, Outcome.RESET, Outcome.TIMEOUT, Outcome.UNAVAILABLE)
"""The outcomes that count against the release."""


class Role(StrEnum):
    """Why the release saw the request. Only `answered` requests were assigned by chance, so only they are compared."""

    ANSWERED = "answered"
    PINNED = "pinned"
    MIRRORED = "mirrored"


@dataclass(frozen=True, slots=True)
class Window:
    """Counts of one (model, release, role) in one interval at one gateway, under one revision of the model's route.

    `weight` is the candidate's probability under that revision (0 without a candidate), whichever release this is.
    `histogram` maps latency bucket to count, for outcomes OK only: a failure has no latency, or an infinite one.
    `fallbacks` of the charged failures were answered by stable; `retries` were answered by another server.
    `dropped` counts mirrors that were not sent, by reason.
    """

    gateway: str
    boot: str
    sequence: int
    revision: int
    model: str
    release: int
    role: Role
    weight: float
    started_at: float
    length_s: float
    outcomes: Mapping[Outcome, int] = field(default_factory=dict)
    histogram: Mapping[int, int] = field(default_factory=dict)
    fallbacks: int = 0
    retries: int = 0
    dropped: Mapping[str, int] = field(default_factory=dict)

    @property
    def ok(self) -> int:
        return self.outcomes.get(Outcome.OK, 0)

    @property
    def charged(self) -> int:
        """Failures that count against the release."""
        return sum(self.outcomes.get(outcome, 0) for outcome in CHARGED)

    def to_json(self) -> dict[str, Any]:
        data = asdict(self)
        data["outcomes"] = {outcome.name.lower(): count for outcome, count in self.outcomes.items()}
        return data

    @staticmethod
    def from_json(data: Mapping[str, Any]) -> "Window":
        """Read a window; unknown fields are ignored.

        Raises:
            ValueError: a field is missing, of the wrong kind, negative or not finite.
        """
        try:
            window = Window(
                gateway=str(data["gateway"]),
                boot=str(data["boot"]),
                sequence=_count(data["sequence"]),
                revision=_count(data["revision"]),
                model=str(data["model"]),
                release=_count(data["release"]),
                role=Role(data["role"]),
                weight=float(data["weight"]),
                started_at=float(data["started_at"]),
                length_s=float(data["length_s"]),
                outcomes={Outcome[name.upper()]: _count(n) for name, n in data["outcomes"].items()},
                histogram={_bucket(bucket): _count(n) for bucket, n in data["histogram"].items()},
                fallbacks=_count(data.get("fallbacks", 0)),
                retries=_count(data.get("retries", 0)),
                dropped={str(reason): _count(n) for reason, n in data.get("dropped", {}).items()},
            )
        except (KeyError, TypeError, AttributeError, OverflowError) as exc:
            raise ValueError(f"not a window: {exc!r}") from exc
        if not (0.0 <= window.weight <= 1.0 and 0.0 <= window.length_s < math.inf and math.isfinite(window.started_at)):
            raise ValueError("not a window: weight, started_at or length_s is out of range")
        return window


def _count(value: Any) -> int:
    if not isinstance(value, int) or isinstance(value, bool) or not 0 <= value < 2**53:
        raise ValueError(f"not a window: {value!r} is not a count")
    return value


def _bucket(value: Any) -> int:
    bucket = int(value)
    if not 0 <= bucket <= LAST_BUCKET:
        raise ValueError(f"not a window: there is no latency bucket {bucket}")
    return bucket
