"""The absolute breaker: a candidate that fails most of its requests is taken back at once.

Knows the candidate's requests and failures only. Knows nothing of stable, guards or the evidence cap, which it stands
outside of: with the cap alone even a total failure would take as long as the plan's blocks.

`facts/statistics.md` 1.7: one sample, H0 pC <= 30 %, alternative 90 %, alarm at 1000 (alpha 1e-3), which seven failures
in a row reach. Each observation gives a factor, L = (0.9/0.3)^failures * (0.1/0.7)^successes, of expectation at most 1
under H0. The CUSUM form M = max(M, 1) * L of an e-detector (Shin, Ramdas & Rinaldo 2024, ibid. 1.6) keeps an hour of
success from hiding a crash. Its guarantee is the mean number of observations to a false alarm: at least 1000 for a
candidate that fails 30 % all the time, and more than 1e7 requests at 5 %. It is meant for absolute failure, not for
degrees of it.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

TOLERATED = 0.3
BROKEN = 0.9
NEEDED = math.log(1e3)

_FAILURE = math.log(BROKEN / TOLERATED)
_SUCCESS = math.log((1 - BROKEN) / (1 - TOLERATED))


@dataclass(frozen=True, slots=True)
class Breaker:
    """ln of the detector's value, and the requests and failures since it last began anew."""

    log_e: float = 0.0
    requests: int = 0
    failures: int = 0

    def add(self, requests: int, failures: int) -> "Breaker":
        """The detector after one more observation; one without requests changes nothing."""
        if requests == 0:
            return self
        before = self if self.log_e > 0 else Breaker()
        factor = failures * _FAILURE + (requests - failures) * _SUCCESS
        return Breaker(before.log_e + factor, before.requests + requests, before.failures + failures)

    @property
    def is_tripped(self) -> bool:
        return self.log_e >= NEEDED

    def to_json(self) -> list[float]:
        return [self.log_e, self.requests, self.failures]

    @staticmethod
    def from_json(data: Sequence[float]) -> "Breaker":
        log_e, requests, failures = data
        return Breaker(float(log_e), int(requests), int(failures))
