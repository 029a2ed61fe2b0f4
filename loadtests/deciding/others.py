"""Other rules that people let decide, as their sources have them (`facts/statistics.md` 3).

All of them follow one ramp by time, and promote what they have not rolled back by its end; each is asked when in that
ramp it would have rolled back. What an engineer has to set is set by the truth, in their favour: Flagger's and Argo's
limits lie a fixed distance above stable's own figures over the whole run, so a good release is not beyond them on
average, whatever happens to both.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from statistics import NormalDist

import numpy as np
import numpy.typing as npt

from loadtests.deciding.traffic import SLOW_BUCKETS, Arm, Floats, LongRun, Seen, quantile_bucket

WINDOWS_A_MINUTE = 6
P95 = quantile_bucket(0.95)
FAILING_MOST, P99_MOST_BUCKETS = 0.01, SLOW_BUCKETS
"""Limits above stable's: one point of failures, 1.19 times the p99."""


@dataclass(frozen=True, slots=True)
class Minutes:
    """One release by the minute: requests, the share that failed, and the bucket of the p99 of the others."""

    requests: Floats
    failing: Floats
    p99: Floats

    @staticmethod
    def of(arms: Sequence[Arm]) -> "Minutes":
        requests = _by_minute([arm.requests for arm in arms])
        failures = _by_minute([arm.failures for arm in arms])
        latencies = np.array([arm.latencies for arm in arms]).reshape(-1, WINDOWS_A_MINUTE, len(arms[0].latencies))
        up_to = np.cumsum(latencies.sum(axis=1), axis=1)
        p99 = (up_to < np.ceil(0.99 * up_to[:, -1:])).sum(axis=1)
        return Minutes(requests, failures / np.maximum(requests, 1), p99.astype(np.float64))


def _by_minute(counts: Sequence[int]) -> Floats:
    found: Floats = np.array(counts, np.float64).reshape(-1, WINDOWS_A_MINUTE).sum(axis=1)
    return found


@dataclass(frozen=True, slots=True)
class Ramp:
    """What came of a whole ramp: minutes of both releases, and sums up to each window.

    The sums' columns are requests, failures, and requests slower than stable's long-run p95, failures among them.
    """

    stable: Minutes
    candidate: Minutes
    stable_sums: Floats
    candidate_sums: Floats

    @staticmethod
    def of(seen: Sequence[Seen]) -> "Ramp":
        stable, candidate = [one.stable for one in seen], [one.candidate for one in seen]
        return Ramp(Minutes.of(stable), Minutes.of(candidate), _sums(stable), _sums(candidate))


def _sums(arms: Sequence[Arm]) -> Floats:
    return np.cumsum([(arm.requests, arm.failures, arm.slower_than(P95)) for arm in arms], axis=0, dtype=np.float64)


Method = Callable[[Ramp, LongRun, float], int | None]
"""For a ramp, stable's figures over all of it, and alpha: the window in which it rolls back; None when it does not."""


def flagger(threshold: int) -> Method:
    """`threshold` failed checks in all, one a minute, roll back; a success never sets them back (scheduler.go).

    A minute without requests fails: a query that finds nothing counts as a failed check.
    """

    def rolls_back(ramp: Ramp, usual: LongRun, _alpha: float) -> int | None:
        failed = _are_beyond(ramp.candidate, usual) | (ramp.candidate.requests == 0)
        return _end_of_minute(_first(np.cumsum(failed) >= threshold))

    return rolls_back


def _are_beyond(minutes: Minutes, usual: LongRun) -> npt.NDArray[np.bool_]:
    """Which minutes with requests are beyond a limit."""
    beyond = (minutes.failing > usual.failing + FAILING_MOST) | (minutes.p99 > usual.p99 + P99_MOST_BUCKETS)
    found: npt.NDArray[np.bool_] = beyond & (minutes.requests > 0)
    return found


CONSECUTIVE_ERROR_LIMIT = 4


def argo(limit: int) -> Method:
    """An analysis fails when more than `limit` of its measurements, one a minute, failed (analysis.go).

    A minute without requests is an error, not a failure: more than `consecutiveErrorLimit` in a row, 4 unless set,
    end the analysis too. Either takes the candidate back.
    """

    def rolls_back(ramp: Ramp, usual: LongRun, _alpha: float) -> int | None:
        failed = np.cumsum(_are_beyond(ramp.candidate, usual)) > limit
        return _end_of_minute(_first(failed | (_run_lengths(ramp.candidate.requests == 0) > CONSECUTIVE_ERROR_LIMIT)))

    return rolls_back


def _run_lengths(found: npt.NDArray[np.bool_]) -> npt.NDArray[np.int64]:
    """At each place, how many in a row up to it."""
    so_far = np.cumsum(found)
    lengths: npt.NDArray[np.int64] = so_far - np.maximum.accumulate(np.where(found, 0, so_far))
    return lengths


def kayenta(every: int | None) -> Method:
    """NetflixACAJudge on the minutes of both, for failures and for the p99; one of the two beyond scores below 75.

    At the end, or `every` so many minutes too.
    """

    def rolls_back(ramp: Ramp, _usual: LongRun, _alpha: float) -> int | None:
        length = len(ramp.stable.requests)
        looks = range(every, length + 1, every) if every else [length]
        return _end_of_minute(next((look - 1 for look in looks if _is_beyond(ramp, look)), None))

    return rolls_back


def _is_beyond(ramp: Ramp, minutes: int) -> bool:
    stable, candidate = ramp.stable, ramp.candidate
    has = (candidate.requests[:minutes] > 0) & (stable.requests[:minutes] > 0)
    failing = is_high(stable.failing[:minutes][has], candidate.failing[:minutes][has])
    return failing or is_high(2 ** (stable.p99[:minutes][has] / 32), 2 ** (candidate.p99[:minutes][has] / 32))


TOLERANCE, KAYENTA_Z = 0.25, NormalDist().inv_cdf(0.99)
_LEAST_POINTS = 4


def is_high(stable: Floats, candidate: Floats) -> bool:
    """Kayenta's verdict on one metric of which more is worse: Mann-Whitney with its 98 % interval.

    High where the interval of the Hodges-Lehmann shift lies above a quarter of it, and the mean grew.
    """
    if min(len(stable), len(candidate)) < _LEAST_POINTS:
        return False
    differences = np.sort(np.subtract.outer(candidate, stable), axis=None)
    size, points = len(differences), len(stable) + len(candidate) + 1
    rank = int(size / 2 - KAYENTA_Z * math.sqrt(size * points / 12))
    low, estimate = float(differences[max(0, rank)]), float(np.median(differences))
    return low > TOLERANCE * abs(estimate) and float(candidate.mean()) > float(stable.mean())


def z_test(is_peeking: bool) -> Method:
    """Two-proportion z, one-sided, pooled over the ramp, on failures and on slow requests, half of alpha each."""

    def rolls_back(ramp: Ramp, _usual: LongRun, alpha: float) -> int | None:
        needed = NormalDist().inv_cdf(1 - alpha / 2)
        beyond = (_z(ramp, 1) > needed) | (_z(ramp, 2) > needed)
        if is_peeking:
            return _first(beyond)
        return len(beyond) - 1 if beyond[-1] else None

    return rolls_back


def _z(ramp: Ramp, event: int) -> Floats:
    n, e, m, f = _columns(ramp, event)
    pooled = (e + f) / np.maximum(n + m, 1)
    error = np.sqrt(pooled * (1 - pooled) * (1 / np.maximum(n, 1) + 1 / np.maximum(m, 1)))
    found: Floats = np.where((error > 0) & (n > 0), (e / np.maximum(n, 1) - f / np.maximum(m, 1)) / (error + _TINY), 0)
    return found


TAU2 = 1e-4
"""Variance of the mixed differences of rates: a point is usual."""
_TINY = 1e-300


def mixture_sprt(ramp: Ramp, _usual: LongRun, alpha: float) -> int | None:
    """mSPRT of Johari et al., normal mixture, on the pooled difference of rates (`facts/statistics.md` 1.8).

    The variance is that of the rate of both together: of its own, one failed request of one has none.
    """
    logs = np.maximum(_mixture_log_e(ramp, 1), _mixture_log_e(ramp, 2))
    return _first(logs >= math.log(2 / alpha))


def _mixture_log_e(ramp: Ramp, event: int) -> Floats:
    n, e, m, f = _columns(ramp, event)
    ours, theirs, rate = e / np.maximum(n, 1), f / np.maximum(m, 1), (e + f) / np.maximum(n + m, 1)
    variance = rate * (1 - rate) * (1 / np.maximum(n, 1) + 1 / np.maximum(m, 1))
    wide = variance + TAU2
    logs = 0.5 * np.log((variance + _TINY) / wide) + TAU2 * (ours - theirs) ** 2 / (2 * variance * wide + _TINY)
    found: Floats = np.where((variance > 0) & (ours > theirs), logs, 0.0)
    return found


def _columns(ramp: Ramp, event: int) -> tuple[Floats, Floats, Floats, Floats]:
    """The candidate's requests and events, and stable's, up to each window."""
    ours, theirs = ramp.candidate_sums, ramp.stable_sums
    return ours[:, 0], ours[:, event], theirs[:, 0], theirs[:, event]


def _first(found: npt.NDArray[np.bool_]) -> int | None:
    return int(found.argmax()) if found.any() else None


def _end_of_minute(minute: int | None) -> int | None:
    return None if minute is None else (minute + 1) * WINDOWS_A_MINUTE - 1


METHODS: Mapping[str, Method] = {
    "flagger 1": flagger(1),
    "flagger 5": flagger(5),
    "flagger 10": flagger(10),
    "argo 0": argo(0),
    "argo 3": argo(3),
    "kayenta": kayenta(None),
    "kayenta 10 min": kayenta(10),
    "z at the end": z_test(is_peeking=False),
    "z peeking": z_test(is_peeking=True),
    "mSPRT": mixture_sprt,
}
