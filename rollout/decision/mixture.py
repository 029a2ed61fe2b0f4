"""Mixtures of likelihood ratios: one e-value out of many alternatives.

Knows logarithms and grids. Knows nothing of requests, guards or margins.

An average of e-processes is an e-process, so a test need not know how much worse a candidate is: it bets a little on
each alternative of a grid, and the one nearest to the truth soon outweighs the rest, at a price of ln(grid size).
"""

import math
from collections.abc import Sequence


def log_mean_exp(logs: Sequence[float]) -> float:
    """ln of the mean of exp(logs), without overflow. `logs` are finite, at least one."""
    top, exp = max(logs), math.exp
    return top + math.log(sum([exp(value - top) for value in logs]) / len(logs))


def log_mix(share: float, first: float, second: float) -> float:
    """ln(share * exp(first) + (1 - share) * exp(second)), without overflow. `share` in (0, 1)."""
    return log_sum_exp(first + math.log(share), second + math.log1p(-share))


def log_sum_exp(first: float, second: float) -> float:
    """ln(exp(first) + exp(second)), without overflow."""
    return max(first, second) + math.log1p(math.exp(-abs(first - second)))


def log_spaced(first: float, last: float, count: int) -> tuple[float, ...]:
    """`count` values from `first` to `last` with a constant ratio."""
    step = math.log(last / first) / (count - 1)
    return tuple(first * math.exp(step * index) for index in range(count))
