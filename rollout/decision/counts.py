"""What was counted: the numbers that facts carry and that evidence is made of.

Knows what a sound count is. Knows nothing of gateways, windows' delivery or evidence. A count that cannot be true is
refused when it is made, so a gateway that lies can never clear a candidate.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field

from gateway.windows import LAST_BUCKET


@dataclass(frozen=True, slots=True)
class ArmCounts:
    """One release's requests: successes and charged failures.

    `histogram` maps latency bucket to count, for successes only: a failure's latency is infinite.

    Raises:
        ValueError: a count is negative, there are more failures or latencies than requests, or no such bucket.
    """

    requests: int = 0
    failures: int = 0
    histogram: Mapping[int, int] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if not 0 <= self.failures <= self.requests:
            raise ValueError(f"impossible counts: {self.failures} failures in {self.requests} requests")
        if any(count < 0 for count in self.histogram.values()):
            raise ValueError("impossible counts: a latency bucket holds less than nothing")
        if not all(0 <= bucket <= LAST_BUCKET for bucket in self.histogram):
            raise ValueError(f"impossible counts: latency buckets go from 0 to {LAST_BUCKET}")
        if self.measured > self.successes:
            raise ValueError(f"impossible counts: {self.measured} latencies of {self.successes} successes")

    @property
    def successes(self) -> int:
        return self.requests - self.failures

    @property
    def measured(self) -> int:
        """How many successes have a latency in the histogram."""
        return sum(self.histogram.values())


@dataclass(frozen=True, slots=True)
class Comparison:
    """Both arms in one interval under one weight: `weight` is the probability with which a request went to candidate.

    Raises:
        ValueError: the weight is not in [0, 1], or a success has no latency (it would pass for a fast one).
    """

    weight: float
    stable: ArmCounts
    candidate: ArmCounts

    def __post_init__(self) -> None:
        if not 0.0 <= self.weight <= 1.0:
            raise ValueError(f"impossible counts: weight {self.weight} is not in [0, 1]")
        for arm in (self.stable, self.candidate):
            if arm.measured != arm.successes:
                raise ValueError(f"impossible counts: {arm.successes} successes but {arm.measured} latencies")

    @property
    def is_randomised(self) -> bool:
        """Did chance decide between two arms? Only then is there anything to compare."""
        return 0.0 < self.weight < 1.0


@dataclass(frozen=True, slots=True)
class Agreement:
    """Mirrored requests on which both releases gave the same answer, and on which they did not."""

    agreed: int = 0
    disagreed: int = 0

    def __post_init__(self) -> None:
        if min(self.agreed, self.disagreed) < 0:
            raise ValueError("impossible counts: agreement below zero")

    @property
    def total(self) -> int:
        return self.agreed + self.disagreed


@dataclass(frozen=True, slots=True)
class PairedLabels:
    """Labelled mirrored requests: `better` where only the candidate was right, `worse` where only stable was."""

    better: int = 0
    equal: int = 0
    worse: int = 0

    def __post_init__(self) -> None:
        if min(self.better, self.equal, self.worse) < 0:
            raise ValueError("impossible counts: labels below zero")

    @property
    def total(self) -> int:
        return self.better + self.equal + self.worse
