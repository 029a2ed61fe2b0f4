"""Evidence in plain words: the estimate of each guard with its interval, and how far the evidence has come.

Knows how people read numbers. Knows nothing of plans, stages or decisions.
"""

import math

from rollout.decision.evidence import GuardEvidence
from rollout.decision.guards import Guard
from rollout.decision.interval import WIDEST, Interval, accuracy_lost, share_of
from rollout.decision.live import LatencyEvidence, RateEvidence
from rollout.decision.paired import AgreementEvidence, DifferenceEvidence, QualityEvidence
from rollout.decision.share import DriftCheck, ShareCheck


def estimate(guard: Guard, evidence: GuardEvidence) -> str:
    """What was measured, in plain words."""
    match evidence:
        case RateEvidence() if guard is Guard.MISTAKES:
            return _rates(evidence, "wrong answers", "label")
        case RateEvidence():
            return _rates(evidence, "errors", "request")
        case LatencyEvidence():
            return _latency(evidence)
        case AgreementEvidence():
            return _agreement(evidence)
        case DifferenceEvidence():
            return _difference(evidence)
        case QualityEvidence():
            return _quality(evidence)


def intervals(evidence: GuardEvidence) -> dict[str, Interval]:
    """The estimates behind the words, by name; ratios are to stable's. Empty before anything was measured."""
    match evidence:
        case RateEvidence():
            found = {"ratio": evidence.sums.ratio()}
        case LatencyEvidence():
            found = {_level(p): sums.ratio() for p, sums in zip(evidence.quantiles, evidence.sums, strict=True)}
        case AgreementEvidence():
            found = {"differing": share_of(evidence.seen)}
        case DifferenceEvidence():
            found = {}
        case QualityEvidence():
            found = {"accuracy_lost": accuracy_lost(evidence.seen)}
    return {name: interval for name, interval in found.items() if interval is not None}


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


def _times(interval: Interval) -> str:
    """A ratio to stable's: `1.31x stable's [1.18, 1.49]`; what is not bounded yet is told as such."""
    value = "far more than" if interval.value >= WIDEST else f"{interval.value:.3g}x"
    if not interval.low and interval.high is None:
        return f"{value} stable's, too few to say how surely"
    high = "no upper bound yet" if interval.high is None else f"{interval.high:.3g}"
    return f"{value} stable's [{interval.low:.3g}, {high}]"


def _rates(evidence: RateEvidence, what: str, unit: str) -> str:
    if evidence.size == 0:
        return f"no {unit} was compared yet"
    ours, theirs = evidence.events / evidence.size, evidence.expected / evidence.size
    ratio = evidence.sums.ratio()
    times = "" if ratio is None else f", {_times(ratio)}"
    return f"{what} {percent(ours)} against stable's {percent(theirs)} over {evidence.size:,} {unit}s{times}"


def _level(p: float) -> str:
    return f"p{100 * p:g}"


def _latency(evidence: LatencyEvidence) -> str:
    if evidence.size == 0:
        return "no request was compared yet"
    found = intervals(evidence)
    levels = (
        f"{level} is {_times(found[level])}" if level in found else f"{level} is unknown"
        for level in map(_level, evidence.quantiles)
    )
    return f"{', '.join(levels)}, over {evidence.requests:,} requests"


def _agreement(evidence: AgreementEvidence) -> str:
    found = share_of(evidence.seen)
    if found is None:
        return "no mirrored answer was compared yet"
    bounds = f"[{percent(found.low)}, {percent(found.high or 1.0)}]"
    return f"different answers to {percent(found.value)} {bounds} of {evidence.size:,} mirrored requests"


def _difference(evidence: DifferenceEvidence) -> str:
    seen = evidence.seen
    if not seen.total:
        return "no mirrored answer was compared yet"
    low, high = percent(seen.mean(False)), percent(seen.mean(True))
    return f"mirrored answers lie {low} to {high} apart on average, over {evidence.size:,} requests"


def _quality(evidence: QualityEvidence) -> str:
    labels, lost = evidence.seen, accuracy_lost(evidence.seen)
    if lost is None:
        return "no label of a mirrored request arrived yet"
    points = -100 * lost.value
    change = f"{abs(points):.3g} points {'higher' if points > 0 else 'lower'} than" if points else "the same as"
    assert lost.high is not None, "accuracy lost lies between -1 and 1"
    bounds = f"[{-100 * lost.high:+.3g}, {-100 * lost.low:+.3g}]"
    counts = f"only stable right {labels.worse:,} times, only the candidate {labels.better:,} times"
    return f"accuracy {change} stable's {bounds} over {labels.total:,} labels ({counts})"


def divided(check: ShareCheck) -> str:
    """How the requests were divided, beside how they should have been."""
    if not check.all_requests:
        return "no request was compared yet"
    ours, wanted = check.requests / check.all_requests, check.expected / check.all_requests
    return f"the candidate got {percent(ours)} of {check.all_requests:,} requests where its weight is {percent(wanted)}"


def drifted(check: DriftCheck) -> str:
    """Where the answers differ most."""
    if not check.requests:
        return "no answer was compared yet"
    widest, stable, candidate = check.widest
    shares = f"{percent(candidate)} of the candidate's answers against {percent(stable)} of stable's"
    return f"{shares} fall into bin {widest}, over {check.requests:,} answers"
