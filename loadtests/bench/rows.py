"""What a benchmark says: its rows, their bars and the file. Pure: takes measured figures, starts and times nothing."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from statistics import median
from typing import Any, Literal

Better = Literal["lower", "higher"]


@dataclass(frozen=True, slots=True)
class Measured:
    """One peer under one load in one round. `cpu_us` is the peer's own CPU time for a request; None without a proxy."""

    requests_per_s: float
    p50_us: float
    p99_us: float
    cpu_us: float | None


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


Rounds = Mapping[str, Sequence[Measured]]
"""Peer to its rounds, in order; every peer has the same number of them."""
_Figure = Callable[[Measured], float]

FIGURES: tuple[tuple[str, str, Better, Callable[[Measured], float | None]], ...] = (
    ("requests_per_s", "1/s", "higher", lambda one: one.requests_per_s),
    ("p50_us", "us", "lower", lambda one: one.p50_us),
    ("p99_us", "us", "lower", lambda one: one.p99_us),
    ("cpu_us", "us", "lower", lambda one: one.cpu_us),
)
RATIOS: tuple[tuple[str, Better, Callable[[Measured], float | None]], ...] = (
    ("cpu_ratio", "lower", lambda one: one.cpu_us),
    ("p99_ratio", "lower", lambda one: one.p99_us),
    ("requests_ratio", "higher", lambda one: one.requests_per_s),
)


def rows_of(load: str, rounds: Rounds, ours: str, bars: Mapping[str, float]) -> list[Row]:
    """All rows of one load: every peer's figures, then ours in relation to each other peer's, round by round.

    `bars` maps a row's `what` to its bar.
    """
    rows = []
    for peer, measured in rounds.items():
        for figure, unit, better, take in FIGURES:
            values = [value for one in measured if (value := take(one)) is not None]
            rows += _row(f"{load}.{figure}.{peer}", values, unit, better, bars)
    for peer, measured in rounds.items():
        for ratio, better, take in RATIOS:
            pairs = [(take(mine), take(its)) for mine, its in zip(rounds[ours], measured, strict=True)]
            values = [mine / its for mine, its in pairs if mine is not None and its]
            if peer != ours:
                rows += _row(f"{load}.{ratio}_to_{peer}", values, "ratio", better, bars)
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


def document(
    benchmark: str, when: str, machine: str, rounds: int, rows: Sequence[Row], peers: Mapping[str, str | None]
) -> dict[str, Any]:
    """The file's content. `peers` maps each to its version, or None where it was not installed."""
    return {
        "benchmark": benchmark,
        "when": when,
        "machine": machine,
        "rounds": rounds,
        "peers": dict(peers),
        "rows": [{**asdict(row), "holds": row.holds} for row in rows],
    }
