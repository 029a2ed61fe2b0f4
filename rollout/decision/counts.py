"""What was counted: the numbers that facts carry and that evidence is made of.

Knows what a sound count is. Knows nothing of gateways, windows' delivery or evidence. A count that cannot be true is
refused when it is made, so a gateway that lies can never clear a candidate.
"""

from bisect import bisect_right
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import accumulate

from gateway.windows import LAST_BUCKET


@dataclass(frozen=True, slots=True)
class ArmCounts:
    """One release's requests: successes and charged failures.

    `histogram` maps latency bucket to count, for successes only: a failure's latency is infinite. `uncharged` are those
    that were assigned to it too and say nothing of it: the client's own mistakes, and those whose client went away.

    Raises:
        ValueError: a count is negative, there are more failures or latencies than requests, or no such bucket.
    """

    requests: int = 0
    failures: int = 0
    histogram: Mapping[int, int] = field(default_factory=dict)
    uncharged: int = 0
    _buckets: Sequence[int] = field(init=False, repr=False, compare=False, default=())
    _up_to: Sequence[int] = field(init=False, repr=False, compare=False, default=(0,))
    """The buckets in order, and how many latencies lie below each and in all: they are asked for many times."""

    def __post_init__(self) -> None:
        if not 0 <= self.failures <= self.requests:
            raise ValueError(f"impossible counts: {self.failures} failures in {self.requests} requests")
        if self.uncharged < 0:
            raise ValueError("impossible counts: less than no request is nobody's fault")
        if not self.histogram:
            return
        buckets = sorted(self.histogram)
        if min(self.histogram.values()) < 0:
            raise ValueError("impossible counts: a latency bucket holds less than nothing")
        if not 0 <= buckets[0] <= buckets[-1] <= LAST_BUCKET:
            raise ValueError(f"impossible counts: latency buckets go from 0 to {LAST_BUCKET}")
        object.__setattr__(self, "_buckets", buckets)
        object.__setattr__(self, "_up_to", tuple(accumulate(map(self.histogram.__getitem__, buckets), initial=0)))
        if self.measured > self.successes:
            raise ValueError(f"impossible counts: {self.measured} latencies of {self.successes} successes")

    @property
    def successes(self) -> int:
        return self.requests - self.failures

    @property
    def assigned(self) -> int:
        """All that chance gave it."""
        return self.requests + self.uncharged

    @property
    def measured(self) -> int:
        """How many successes have a latency in the histogram."""
        return self._up_to[-1]

    def slower_than(self, bucket: int) -> int:
        """How many requests took longer than this bucket's upper edge; a failure took for ever."""
        return self._up_to[-1] + self.failures - self._up_to[bisect_right(self._buckets, bucket)]

    def slower_than_each(self, buckets: Iterable[int]) -> list[int]:
        """The same for several buckets."""
        known, up_to = self._buckets, self._up_to
        most = up_to[-1] + self.failures
        return [most - up_to[bisect_right(known, bucket)] for bucket in buckets]


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


DIFFERENCE_EDGES = (0.0, 0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0)
"""Bin b holds differences from edge b to edge b + 1, as shares of the largest that counts; the last one larger too."""


@dataclass(frozen=True, slots=True)
class Differences:
    """How far the two answers to mirrored requests lay apart: requests by bin.

    Raises:
        ValueError: there is no such bin, or it holds less than nothing.
    """

    bins: Mapping[int, int] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if not all(0 <= one < len(DIFFERENCE_EDGES) - 1 for one in self.bins):
            raise ValueError(f"impossible counts: differences have the bins 0 to {len(DIFFERENCE_EDGES) - 2}")
        if any(count < 0 for count in self.bins.values()):
            raise ValueError("impossible counts: differences below zero")

    @property
    def total(self) -> int:
        return sum(self.bins.values())

    def plus(self, other: "Differences") -> "Differences":
        return Differences({b: self.bins.get(b, 0) + other.bins.get(b, 0) for b in self.bins.keys() | other.bins})

    def mean(self, upper: bool) -> float:
        """Each bin's lower or upper edge, on average over at least one request."""
        return sum(n * DIFFERENCE_EDGES[b + upper] for b, n in self.bins.items()) / self.total


@dataclass(frozen=True, slots=True)
class Tally:
    """Requests of one arm, and how many of them were events.

    Raises:
        ValueError: there are more events than requests, or fewer than none.
    """

    requests: int = 0
    events: int = 0

    def __post_init__(self) -> None:
        if not 0 <= self.events <= self.requests:
            raise ValueError(f"impossible counts: {self.events} events in {self.requests} requests")


@dataclass(frozen=True, slots=True)
class LabelComparison:
    """Labelled answers of both arms and how many of them were wrong, under one weight (see Comparison).

    Raises:
        ValueError: the weight is not in [0, 1].
    """

    weight: float
    stable: Tally
    candidate: Tally

    def __post_init__(self) -> None:
        if not 0.0 <= self.weight <= 1.0:
            raise ValueError(f"impossible counts: weight {self.weight} is not in [0, 1]")


ANSWER_BINS_MOST = 20


@dataclass(frozen=True, slots=True)
class AnswerComparison:
    """What both arms answered, sorted into the same bins, under one weight (see Comparison).

    Raises:
        ValueError: the weight is not in [0, 1], a count is negative, or the arms' bins are not the same, at most 20.
    """

    weight: float
    stable: tuple[int, ...]
    candidate: tuple[int, ...]

    def __post_init__(self) -> None:
        if not 0.0 <= self.weight <= 1.0:
            raise ValueError(f"impossible counts: weight {self.weight} is not in [0, 1]")
        if not 0 < len(self.stable) == len(self.candidate) <= ANSWER_BINS_MOST:
            raise ValueError(f"impossible counts: answers of {len(self.stable)} and {len(self.candidate)} bins")
        if min(*self.stable, *self.candidate) < 0:
            raise ValueError("impossible counts: answers below zero")
