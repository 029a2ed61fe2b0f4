"""What gateways would count of two releases, window by window, at count level.

A window's counts depend only on the run's seed, the window's number and the candidate's weight: every method that is
at the same weight sees the same. Latency is lognormal, in the gateway's own buckets.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from statistics import NormalDist
from typing import TypeVar

import numpy as np
import numpy.typing as npt

from gateway.windows import BUCKETS_PER_OCTAVE, FIRST_EDGE_US, LAST_BUCKET
from rollout.decision.counts import ArmCounts

WINDOW_S = 10.0
MEDIAN_US, SPREAD = 4000.0, 0.5
"""Of the latency; the spread is that of its logarithm."""

Counts = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float64]
Buckets = TypeVar("Buckets", Counts, Floats)


@dataclass(frozen=True, slots=True)
class Release:
    """How a release behaves when nothing happens: the share that fails, and its latency as a multiple of the usual."""

    failing: float = 0.01
    slower: float = 1.0


@dataclass(frozen=True, slots=True)
class Happening:
    """What happens on top in each window of a run: points of failures, buckets of latency, a factor of the traffic."""

    stable_failing: Floats
    candidate_failing: Floats
    stable_shift: Counts
    candidate_shift: Counts
    rate: Floats

    @staticmethod
    def nothing(windows: int) -> "Happening":
        none, still = np.zeros(windows), np.zeros(windows, np.int64)
        return Happening(none, none, still, still, np.ones(windows))


Happen = Callable[[np.random.Generator, int], Happening]
"""What happens in a run of so many windows."""


@dataclass(frozen=True, slots=True)
class Arm:
    """One release's window: requests, failures, and successes by latency bucket."""

    requests: int
    failures: int
    latencies: Counts

    def counts(self) -> ArmCounts:
        """As the engine is told."""
        buckets = np.nonzero(self.latencies)[0]
        histogram = dict(zip(buckets.tolist(), self.latencies[buckets].tolist(), strict=True))
        return ArmCounts(self.requests, self.failures, histogram)

    def slower_than(self, bucket: int) -> int:
        """Requests beyond this bucket; failures take for ever."""
        return int(self.latencies[bucket + 1 :].sum()) + self.failures


@dataclass(frozen=True, slots=True)
class Seen:
    """One window of both releases under one weight."""

    number: int
    weight: float
    stable: Arm
    candidate: Arm


@dataclass(frozen=True, slots=True)
class Usual:
    """Of stable's requests in one window: the share that fails, and the share that is slower than SLOW_BUCKET."""

    failing: float
    slow: float


@dataclass(frozen=True, slots=True)
class LongRun:
    """Stable's share of failures and the bucket of its p99 over a whole run."""

    failing: float
    p99: int


class World:
    """The traffic of one run."""

    def __init__(self, seed: int, rate_per_s: float, stable: Release, candidate: Release, happening: Happening) -> None:
        self._seed, self._rate = seed, rate_per_s * WINDOW_S
        self._stable, self._candidate, self._happening = stable, candidate, happening

    def window(self, number: int, weight: float) -> Seen:
        happening = self._happening
        dice = np.random.Generator(np.random.Philox(key=self._seed, counter=[0, 0, 0, number]))
        requests = int(dice.poisson(self._rate * happening.rate[number]))
        taken = int(dice.binomial(requests, weight))
        stable = _arm(dice, requests - taken, self._stable, happening.stable_failing[number],
                      int(happening.stable_shift[number]))  # fmt: skip
        candidate = _arm(dice, taken, self._candidate, happening.candidate_failing[number],
                         int(happening.candidate_shift[number]))  # fmt: skip
        return Seen(number, weight, stable, candidate)

    def usual(self, number: int) -> "Usual":
        """What stable's requests do in this window, in truth."""
        failing = min(1.0, self._stable.failing + float(self._happening.stable_failing[number]))
        return Usual(failing, (1 - failing) * slower_share(SLOW_BUCKET - int(self._happening.stable_shift[number])))

    def long_run(self) -> "LongRun":
        """What an engineer who knew all of this run would call stable's usual share of failures and usual p99."""
        happening = self._happening
        rates = happening.rate / happening.rate.sum()
        failing = float(np.minimum(1.0, self._stable.failing + happening.stable_failing) @ rates)
        mixed = np.zeros(LAST_BUCKET + 1)
        for shift in np.unique(happening.stable_shift):
            mixed += shifted(shares(self._stable.slower), int(shift)) * rates[happening.stable_shift == shift].sum()
        return LongRun(failing, int(np.searchsorted(np.cumsum(mixed), 0.99)))


def _arm(dice: np.random.Generator, requests: int, release: Release, more: float, shift: int) -> Arm:
    failures = int(dice.binomial(requests, min(1.0, release.failing + more)))
    latencies = dice.multinomial(requests - failures, shares(release.slower))
    return Arm(requests, failures, shifted(latencies, shift))


def shifted(latencies: Buckets, shift: int) -> Buckets:
    """The same latencies, so many buckets slower or faster; what leaves the scale stays at its end."""
    if not shift:
        return latencies
    moved = np.zeros_like(latencies)
    if shift > 0:
        moved[shift:] = latencies[:-shift]
        moved[-1] += latencies[-shift:].sum()
    else:
        moved[:shift] = latencies[-shift:]
        moved[0] += latencies[:-shift].sum()
    return moved


@lru_cache(maxsize=64)
def shares(slower: float) -> Floats:
    """The share of a lognormal latency in each bucket, `slower` times the usual."""
    edges_us = [FIRST_EDGE_US * 2 ** (bucket / BUCKETS_PER_OCTAVE) for bucket in range(LAST_BUCKET)]
    normal = NormalDist(math.log(MEDIAN_US * slower), SPREAD)
    up_to = np.array([0.0, *(normal.cdf(math.log(edge)) for edge in edges_us), 1.0])
    found: Floats = np.diff(up_to)
    found /= found.sum()
    return found


def quantile_bucket(p: float) -> int:
    """The bucket of the usual latency's p-quantile."""
    return int(np.searchsorted(np.cumsum(shares(1.0)), p))


SLOW_BUCKETS = 8
SLOW_BUCKET = quantile_bucket(0.99) + SLOW_BUCKETS
"""A request beyond it is slow: it took more than 1.19 times the usual p99."""


@lru_cache(maxsize=1024)
def slower_share(bucket: int) -> float:
    """The share of the usual latencies beyond this bucket."""
    return float(shares(1.0)[max(0, bucket + 1) :].sum())


# What may happen


def nothing(_dice: np.random.Generator, windows: int) -> Happening:
    return Happening.nothing(windows)


def diurnal(phase: float) -> Happen:
    """One slow wave within the rollout, of traffic, failures and latency alike for both."""

    def happen(_dice: np.random.Generator, windows: int) -> Happening:
        wave = np.array(np.sin(2 * np.pi * np.arange(windows) / windows + phase), np.float64)
        failing: Floats = 0.008 * wave
        shift = np.rint(8 * wave).astype(np.int64)
        return Happening(failing, failing, shift, shift, 1 + 0.5 * wave)

    return happen


BURST_FAILING, BURST_SHIFT = 0.2, 96
"""In a burst a fifth of the requests fails, and the rest takes eight times as long."""


def bursts(mean_windows: float, every_windows: float, is_common: bool) -> Happen:
    """Bursts of geometric length, on average one in `every_windows`: on both alike, or on each for itself."""

    def happen(dice: np.random.Generator, windows: int) -> Happening:
        stable = _in_burst(dice, windows, mean_windows, every_windows)
        candidate = stable if is_common else _in_burst(dice, windows, mean_windows, every_windows)
        stable_failing, candidate_failing = (np.array(BURST_FAILING * one, np.float64) for one in (stable, candidate))
        return Happening(
            stable_failing, candidate_failing, BURST_SHIFT * stable, BURST_SHIFT * candidate, np.ones(windows)
        )

    return happen


def _in_burst(dice: np.random.Generator, windows: int, mean_windows: float, every_windows: float) -> Counts:
    found, place = np.zeros(windows, np.int64), 0
    while (place := place + int(dice.geometric(1 / every_windows))) < windows:
        length = int(dice.geometric(1 / mean_windows))
        found[place : place + length] = 1
        place += length
    return found


def autocorrelated(_dice: np.random.Generator, windows: int) -> Happening:
    """Each release's latency wanders for itself: AR(1), 0.7 from window to window, 4 % either way."""
    still = Happening.nothing(windows)
    return Happening(
        still.stable_failing, still.candidate_failing, _wandering(_dice, windows, 2.0), _wandering(_dice, windows, 2.0),
        still.rate,
    )  # fmt: skip


def shared_host(dice: np.random.Generator, windows: int) -> Happening:
    """Both share a machine that slows down and recovers, 24 % either way, and fails now and then."""
    shift = _wandering(dice, windows, 10.0)
    failing = np.array(0.05 * _in_burst(dice, windows, 3.0, 30.0), np.float64)
    return Happening(failing, failing, shift, shift, np.ones(windows))


def _wandering(dice: np.random.Generator, windows: int, deviation: float, memory: float = 0.7) -> Counts:
    steps, found, value = dice.normal(0.0, deviation * math.sqrt(1 - memory**2), windows), [], 0.0
    for step in steps:
        value = memory * value + float(step)
        found.append(round(value))
    return np.array(found, np.int64)


COLD_WINDOWS = 6


def cold_start(_dice: np.random.Generator, windows: int) -> Happening:
    """The candidate takes five times as long in its first minute."""
    still = Happening.nothing(windows)
    shift = np.where(np.arange(windows) < COLD_WINDOWS, round(BUCKETS_PER_OCTAVE * math.log2(5)), 0)
    return Happening(still.stable_failing, still.candidate_failing, still.stable_shift, shift, still.rate)


def worse_later(_dice: np.random.Generator, windows: int) -> Happening:
    """From the middle on both fail five times as often: just when the candidate gets half of the traffic (Simpson)."""
    failing: Floats = np.where(np.arange(windows) < windows // 2, 0.0, 0.04)
    still = Happening.nothing(windows)
    return Happening(failing, failing, still.stable_shift, still.candidate_shift, still.rate)
