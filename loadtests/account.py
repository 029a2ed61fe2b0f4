"""The books: every request that was sent was answered, failed or withdrawn, and by which release."""

from collections import Counter, defaultdict
from dataclasses import dataclass, field
from typing import Any

import numpy as np

NOBODY = "-"
"""Where failures without an answer are booked: no release can be named."""


@dataclass(slots=True)
class Page:
    """One release's answers."""

    answered: int = 0
    failed: int = 0
    fallbacks: int = 0
    right: int = 0
    judged: int = 0
    latencies_ms: list[float] = field(default_factory=list)

    def quantile_ms(self, p: float) -> float | None:
        return float(np.quantile(self.latencies_ms, p)) if self.latencies_ms else None


class Account:
    """Counts of one load. `sent` is counted when a request leaves, everything else when its fate is known."""

    def __init__(self) -> None:
        self.sent = 0
        self.withdrawn = 0
        """Cut off by the sender itself, before an answer: the load's end, not the gateway's fault."""
        self.pages: dict[str, Page] = defaultdict(Page)
        self.reasons: Counter[str] = Counter()
        self.labels_sent = 0
        self.labels_failed = 0

    @property
    def answered(self) -> int:
        return sum(page.answered for page in self.pages.values())

    @property
    def failed(self) -> int:
        return sum(page.failed for page in self.pages.values())

    @property
    def is_balanced(self) -> bool:
        return self.sent == self.answered + self.failed + self.withdrawn

    def note_sent(self) -> None:
        self.sent += 1

    def note_withdrawn(self) -> None:
        self.withdrawn += 1

    def note_answered(self, release: str, latency_ms: float, fallback: bool, is_right: bool | None) -> None:
        page = self.pages[release]
        page.answered += 1
        page.fallbacks += fallback
        page.latencies_ms.append(latency_ms)
        if is_right is not None:
            page.judged += 1
            page.right += is_right

    def note_failed(self, reason: str, release: str = NOBODY) -> None:
        self.pages[release].failed += 1
        self.reasons[reason] += 1

    def to_json(self) -> dict[str, Any]:
        return {
            "sent": self.sent,
            "answered": self.answered,
            "failed": self.failed,
            "withdrawn": self.withdrawn,
            "balanced": self.is_balanced,
            "reasons": dict(self.reasons),
            "labels_sent": self.labels_sent,
            "labels_failed": self.labels_failed,
            "releases": {name: _page_json(page) for name, page in sorted(self.pages.items())},
        }


def _page_json(page: Page) -> dict[str, Any]:
    return {
        "answered": page.answered,
        "failed": page.failed,
        "fallbacks": page.fallbacks,
        "accuracy": page.right / page.judged if page.judged else None,
        "p50_ms": page.quantile_ms(0.5),
        "p99_ms": page.quantile_ms(0.99),
    }
