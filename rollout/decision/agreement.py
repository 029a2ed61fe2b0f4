"""Agreement of mirrored answers: do candidate and stable differ on more than a tolerated share of requests?

Knows how many pairs agreed. Knows nothing of what the answers say.

One-sided beta-binomial mixture (Robbins; Howard, Ramdas, McAuliffe & Sekhon 2021, `beta_binomial_log_mixture` of
confseq); `facts/statistics.md` 1.3. The likelihood ratio of p against the boundary d, averaged over a uniform prior on
the alternative's side, for D differing of n pairs:

    harm   H0 P(D) <= d   E = B(1+D, 1+n-D) (1 - I_d(1+D, 1+n-D)) / ( (1-d) d^D (1-d)^(n-D) )
    clear  H0 P(D) >= d   E = B(1+D, 1+n-D)      I_d(1+D, 1+n-D)  / (   d   d^D (1-d)^(n-D) )

with I the regularised incomplete beta function. Valid while P(D) drifts inside the null. The boundary must lie above
what stable differs from itself (half precision, batching).
"""

import math
from dataclasses import dataclass, field, replace

from rollout.decision.betting import Side
from rollout.decision.counts import Agreement

_TINY = 1e-300
_PRECISION = 1e-15
_MOST_TERMS = 100_000


@dataclass(frozen=True, slots=True)
class AgreementProcess:
    """The running evidence: counts are enough. `margin` in (0, 1) is the boundary d."""

    side: Side
    margin: float
    seen: Agreement = field(default_factory=Agreement)

    def add(self, counts: Agreement) -> "AgreementProcess":
        return replace(self, seen=Agreement(self.seen.agreed + counts.agreed, self.seen.disagreed + counts.disagreed))

    @property
    def log_e(self) -> float:
        differing, agreeing, margin = self.seen.disagreed, self.seen.agreed, self.margin
        a, b = 1.0 + differing, 1.0 + agreeing
        null = differing * math.log(margin) + agreeing * math.log1p(-margin)
        match self.side:
            case Side.HARM:
                return log_beta(a, b) + log_incomplete_beta(b, a, 1 - margin) - math.log1p(-margin) - null
            case Side.CLEAR:
                return log_beta(a, b) + log_incomplete_beta(a, b, margin) - math.log(margin) - null


def log_beta(a: float, b: float) -> float:
    """ln B(a, b)."""
    return math.lgamma(a) + math.lgamma(b) - math.lgamma(a + b)


def log_incomplete_beta(a: float, b: float, x: float) -> float:
    """ln I_x(a, b), the regularised incomplete beta function, for x in (0, 1).

    The continued fraction converges fast below the distribution's mean; above it, the other tail is taken from 1
    (Numerical Recipes, 3rd ed., 6.4). Both stay exact in logs: the small tail is never a difference.
    """
    if x <= (a + 1) / (a + b + 2):
        return _log_tail(a, b, x)
    return math.log1p(-math.exp(_log_tail(b, a, 1 - x)))


def _log_tail(a: float, b: float, x: float) -> float:
    front = a * math.log(x) + b * math.log1p(-x) - log_beta(a, b) - math.log(a)
    return front + math.log(_continued_fraction(a, b, x))


def _continued_fraction(a: float, b: float, x: float) -> float:
    """Lentz's method for the continued fraction of I_x(a, b); takes about sqrt(max(a, b)) terms."""
    c, d = 1.0, 1.0 / _away_from_zero(1 - (a + b) * x / (a + 1))
    value = d
    for m in range(1, _MOST_TERMS):
        even = m * (b - m) * x / ((a + 2 * m - 1) * (a + 2 * m))
        odd = -(a + m) * (a + b + m) * x / ((a + 2 * m) * (a + 2 * m + 1))
        step = 1.0
        for term in (even, odd):
            d = 1.0 / _away_from_zero(1 + term * d)
            c = _away_from_zero(1 + term / c)
            step = c * d
            value *= step
        if abs(step - 1) < _PRECISION:
            return value
    raise AssertionError(f"the incomplete beta function did not converge at a={a}, b={b}, x={x}")


def _away_from_zero(value: float) -> float:
    return value if abs(value) > _TINY else _TINY
