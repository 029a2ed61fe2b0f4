"""What a benchmark says: its rows, their bars and the file. Pure: takes measured figures, starts and times nothing."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from statistics import median
from typing import Any, Literal

Better = Literal["lower", "higher"]

FIGURES: Mapping[str, tuple[str, Better]] = {
    "requests_per_s": ("1/s", "higher"),
    "p50_us": ("us", "lower"),
    "p99_us": ("us", "lower"),
    "cpu_us": ("us", "lower"),
    "client_cpu_us": ("us", "lower"),
    "upstream_cpu_us": ("us", "lower"),
    "answered": ("requests", "higher"),
    "peak_mb": ("MB", "lower"),
    "copied_share": ("share", "higher"),
    "active_ms": ("ms", "lower"),
    "spike_ms": ("ms", "lower"),
    "quiet_ms": ("ms", "lower"),
    "idle_kb": ("KB", "lower"),
    "connected": ("connections", "higher"),
    "cut_early_s": ("s", "lower"),
    "cut_late_s": ("s", "lower"),
    "uncut": ("connections", "lower"),
    "ledger_ratio": ("ratio", "lower"),
    "refused": ("requests", "lower"),
    "badly_ended": ("requests", "lower"),
    "left_bytes": ("bytes", "lower"),
}
"""Every figure that is measured, with its unit and which way is better. `*cpu_us` is CPU time for a request."""

Figures = Mapping[str, float]
"""Figure to value: one subject under one load in one round."""
Rounds = Mapping[str, Sequence[Figures]]
"""Subject to its rounds, in order; every subject has the same number of them."""
Measured = Mapping[str, Rounds]
"""Load to what was measured under it."""


@dataclass(frozen=True, slots=True)
class Row:
    """One figure: the median over the rounds, their spread (largest less smallest), and the bar if there is one."""

    what: str
    value: float
    spread: float
    unit: str
    bar: float | None
    better: Better

    @property
    def holds(self) -> bool:
        if self.bar is None:
            return True
        return self.value <= self.bar if self.better == "lower" else self.value >= self.bar


@dataclass(frozen=True, slots=True)
class Comparison:
    """A row that sets one subject beside another, round by round: a ratio, or a difference in the figure's unit."""

    load: str
    name: str
    figure: str
    of: str
    to: str
    is_difference: bool = False

    @property
    def what(self) -> str:
        return f"{self.load}.{self.name}"

    def values(self, rounds: Rounds) -> list[float]:
        """One value a round; none where a subject or the figure is missing, or where there is nothing to divide by."""
        pairs = [
            (of[self.figure], to[self.figure])
            for of, to in zip(rounds.get(self.of, ()), rounds.get(self.to, ()), strict=False)
            if self.figure in of and self.figure in to
        ]
        if self.is_difference:
            return [of - to for of, to in pairs]
        return [of / to for of, to in pairs] if all(to > 0 for _, to in pairs) else []


_RATIOS = (("cpu_ratio", "cpu_us"), ("p99_ratio", "p99_us"), ("requests_ratio", "requests_per_s"))


def beside(ours: str, load: str, subjects: Sequence[str]) -> list[Comparison]:
    """Our CPU time, p99 and requests/s as ratios to each other subject's."""
    return [
        Comparison(load, f"{ratio}_to_{other}", figure, ours, other)
        for other in subjects
        for ratio, figure in _RATIOS
        if other != ours
    ]


def rows_of(measured: Measured, comparisons: Sequence[Comparison], bars: Mapping[str, float]) -> list[Row]:
    """A row for each figure of each subject, then one for each comparison. `bars` maps a row's `what` to its bar."""
    rows = []
    for load, rounds in measured.items():
        for subject, figures in rounds.items():
            for figure in figures[0] if figures else ():
                unit, better = FIGURES[figure]
                rows += _row(f"{load}.{figure}.{subject}", [one[figure] for one in figures], unit, better, bars)
    for one in comparisons:
        unit, better = FIGURES[one.figure]
        unit = unit if one.is_difference else "ratio"
        rows += _row(one.what, one.values(measured.get(one.load, {})), unit, better, bars)
    return rows


def _row(what: str, values: Sequence[float], unit: str, better: Better, bars: Mapping[str, float]) -> list[Row]:
    """A row of these values; none without values."""
    if not values:
        return []
    return [Row(what, median(values), max(values) - min(values), unit, bars.get(what), better)]


def unmeasured(rows: Sequence[Row], bars: Mapping[str, float]) -> list[str]:
    """Bars that no row stands for: what was not measured does not hold."""
    found = {row.what for row in rows}
    return [what for what in bars if what not in found]


def exit_code(rows: Sequence[Row], bars: Mapping[str, float]) -> int:
    """0 when every bar was measured and holds, else 1."""
    return 0 if all(row.holds for row in rows) and not unmeasured(rows, bars) else 1


@dataclass(frozen=True, slots=True)
class Circumstances:
    """What the figures hold for. `peers` maps each to its version, or None where it was not installed."""

    when: str
    machine: str
    rounds: int
    peers: Mapping[str, str | None]
    failed: Mapping[str, str]
    """Works that could not be measured, with the reason."""


def document(benchmark: str, under: Circumstances, rows: Sequence[Row], bars: Mapping[str, float]) -> dict[str, Any]:
    """The file's content."""
    return {
        "benchmark": benchmark,
        **asdict(under),
        "unmeasured": unmeasured(rows, bars),
        "rows": [{**asdict(row), "holds": row.holds} for row in rows],
    }
