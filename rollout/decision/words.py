"""Evidence in plain words: the estimate of each guard with its numbers, and how far the evidence has come.

Knows how people read numbers. Knows nothing of plans, stages or decisions.
"""

import math

from gateway.windows import upper_edge_us
from rollout.decision.evidence import GuardEvidence
from rollout.decision.exceedance import RecentLatency
from rollout.decision.live import ErrorEvidence, LatencyEvidence
from rollout.decision.paired import AgreementEvidence, QualityEvidence


def estimate(evidence: GuardEvidence) -> str:
    """What was measured, in plain words."""
    match evidence:
        case ErrorEvidence():
            return _errors(evidence)
        case LatencyEvidence():
            return _latency(evidence)
        case AgreementEvidence():
            return _agreement(evidence)
        case QualityEvidence():
            return _quality(evidence)


def percent(share: float) -> str:
    """A share for people: three digits, `1.92 %`."""
    return f"{100 * share:.3g} %"


def against(log_e: float, needed: float) -> str:
    """Evidence beside what is needed, as e-values: `12.1 of 50.0 needed`."""
    return f"{_e_value(log_e)} of {_e_value(needed)} needed"


def _e_value(log_e: float) -> str:
    value = math.exp(min(log_e, 20.0))
    if value >= 1e6:
        return "over 1,000,000"
    return f"{value:,.0f}" if value >= 99.95 else f"{value:.1f}"


def _errors(evidence: ErrorEvidence) -> str:
    if evidence.size == 0:
        return "no request was compared yet"
    ours, theirs = evidence.failures / evidence.requests, evidence.expected / evidence.requests
    return f"errors {percent(ours)} against stable's {percent(theirs)} over {evidence.requests:,} requests"


def _latency(evidence: LatencyEvidence) -> str:
    if evidence.size == 0:
        return "no request was compared yet"
    levels = (
        f"p{100 * p:g} {_milliseconds(evidence.candidate, p)} against {_milliseconds(evidence.stable, p)}"
        for p in evidence.quantiles
    )
    return f"{', '.join(levels)} of stable, over {evidence.requests:,} requests"


def _milliseconds(recent: RecentLatency, p: float) -> str:
    bucket = recent.quantile_bucket(p)
    if bucket is None:
        return "unknown"
    latency_us = upper_edge_us(bucket)
    return "a failure" if math.isinf(latency_us) else f"{latency_us / 1000:.3g} ms"


def _agreement(evidence: AgreementEvidence) -> str:
    if evidence.size == 0:
        return "no mirrored answer was compared yet"
    differing = percent(evidence.seen.disagreed / evidence.size)
    return f"different answers to {differing} of {evidence.size:,} mirrored requests"


def _quality(evidence: QualityEvidence) -> str:
    labels = evidence.seen
    if labels.total == 0:
        return "no label of a mirrored request arrived yet"
    points = 100 * (labels.better - labels.worse) / labels.total
    change = f"{abs(points):.3g} points {'higher' if points > 0 else 'lower'}" if points else "the same"
    counts = f"only stable right {labels.worse:,} times, only the candidate {labels.better:,} times"
    return f"accuracy {change} than stable's over {labels.total:,} labels ({counts})".replace("same than", "same as")
