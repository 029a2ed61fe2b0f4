"""What came of the simulated rollouts: rows with their bars, and tables with every method beside ours."""

import math
from collections.abc import Iterable, Mapping, Sequence
from statistics import median

from rich import box
from rich.table import Table

from loadtests.bench.rows import Better, Row, unmeasured
from loadtests.deciding.cells import CELLS, GOOD, NULLS, Truth
from loadtests.deciding.ours import OURS
from loadtests.deciding.outage import Outage
from loadtests.deciding.pairs import PAIR_CELLS
from loadtests.deciding.running import PROMOTED, ROLLED_BACK, Ended

Found = Mapping[str, Mapping[str, Sequence[Ended]]]
"""Cell to method to its rollouts."""

ERROR = 0.01
"""Alpha of the null cells, beta of those beyond a clear margin."""
MEDIANS = {"errors_2pct": 3400, "slower_1.5": 400, "slower_1.1": 3500, "accuracy_paired": 1300,
           "accuracy_unpaired": 5500}  # fmt: skip
"""Cell to the most requests of the candidate (or labels) that the median rollback may take."""
LEAST_ROLLED_BACK, LEAST_PROMOTED = 0.99, 0.95
ATTEMPTS_MOST, OPENED_MOST_S, OUTAGE_MOST_S = 20, 1.0, 15.0
TICK_MOST_MS = 100.0


def share(ended: Sequence[Ended], end: str) -> float:
    return sum(one.end == end for one in ended) / len(ended)


def allowed(error: float, runs: int) -> float:
    """The error and two standard errors of its estimate from so many runs."""
    return error + 2 * math.sqrt(error * (1 - error) / runs)


def rows_of(found: Found) -> list[Row]:
    """A row for each figure of each method in each cell; bars are ours alone."""
    rows: list[Row] = []
    for cell, by_method in found.items():
        for method, ended in by_method.items():
            rows += _figures(cell, method, ended)
    return rows


def bars_of(found: Found) -> dict[str, float]:
    """Row's `what` to its bar, for each that these cells have: a median that is never reached has no row."""
    return {
        f"{cell}.{figure}.{OURS}": bar
        for cell, by_method in found.items()
        for figure, bar in _bars(cell, len(by_method[OURS])).items()
    }


def _figures(cell: str, method: str, ended: Sequence[Ended]) -> Iterable[Row]:
    bars = _bars(cell, len(ended)) if method == OURS else {}
    name = f"{cell}.{{}}.{method.replace(' ', '_')}"

    def row(figure: str, value: float, spread: float, unit: str, better: Better) -> Row:
        return Row(name.format(figure), value, spread, unit, bars.get(figure), better)

    is_good = _truth(cell) is Truth.GOOD
    for figure, end in (("rolled_back", ROLLED_BACK), ("promoted", PROMOTED)):
        value = share(ended, end)
        spread = 2 * math.sqrt(value * (1 - value) / len(ended))
        is_wanted = (end == PROMOTED) is is_good
        yield row(figure, value, spread, "share", "higher" if is_wanted else "lower")
    undecided = sum(one.end not in (ROLLED_BACK, PROMOTED) for one in ended) / len(ended)
    yield row("undecided", undecided, 2 * math.sqrt(undecided * (1 - undecided) / len(ended)), "share", "lower")
    yield row("bad_requests", sum(one.bad for one in ended) / len(ended), 0.0, "requests", "lower")
    for figure, unit in (("requests", "requests"), ("seconds", "s")):
        took = taken(cell, ended, figure)
        for name_of, quantile in (("p50", 0.5), ("p90", 0.9)):
            if (value := quantile_of(took, quantile)) < math.inf:
                yield row(f"{figure}_{name_of}", value, 0.0, unit, "lower")


def _bars(cell: str, runs: int) -> dict[str, float]:
    if cell in {one.name for one in NULLS}:
        return {"rolled_back": allowed(ERROR, runs)}
    if cell.startswith("beyond_clear."):
        return {"promoted": allowed(ERROR, runs)}
    if cell == GOOD.name:
        return {"promoted": LEAST_PROMOTED}
    bars = {"requests_p50": float(MEDIANS[cell])} if cell in MEDIANS else {}
    return {**bars, "rolled_back": LEAST_ROLLED_BACK} if cell == "errors_2pct" else bars


def _truth(cell: str) -> Truth:
    return PAIR_CELLS[cell].truth if cell in PAIR_CELLS else CELLS[cell].truth


def taken(cell: str, ended: Sequence[Ended], figure: str) -> list[float]:
    """What the right decision took (of good candidates that were not promoted, the wrong one); infinite without it."""
    end = PROMOTED if cell == GOOD.name else ROLLED_BACK
    found = [getattr(one, figure) if one.end == end else math.inf for one in ended]
    return found if _truth(cell) is Truth.BAD or cell == GOOD.name else [one for one in found if one < math.inf]


def quantile_of(values: Sequence[float], p: float) -> float:
    """Nearest rank; infinite without a value."""
    return sorted(values)[math.ceil(p * len(values)) - 1] if values else math.inf


def outage_rows(found: Sequence[Outage]) -> list[Row]:
    """The worst of all runs, but of how soon breakers open the median: the time between a few requests is chance."""
    opened = [math.inf if one.opened_s is None else one.opened_s for one in found]
    rows: Sequence[tuple[str, float, str, float]] = (
        ("most_attempts", max(one.attempts for one in found), "requests", ATTEMPTS_MOST),
        ("opened_s_p50", median(opened), "s", OPENED_MOST_S),
        ("most_rolled_back_s", max(one.seconds for one in found), "s", OUTAGE_MOST_S),
    )
    return [Row(f"fails_everything.{what}.{OURS}", value, 0.0, unit, bar, "lower")
            for what, value, unit, bar in rows]  # fmt: skip


def tick_rows(found: Mapping[int, Sequence[float]]) -> list[Row]:
    """CPU of one tick by the number of models, in ms; a hundred has the bar, and ten times ten is beside it."""
    rows = [
        Row(f"tick.cpu_ms.models_{models}", median(values), max(values) - min(values), "ms",
            TICK_MOST_MS if models == 100 else None, "lower")
        for models, values in found.items()
    ]  # fmt: skip
    if {10, 100} <= found.keys():
        linear = median(found[100]) / median(found[10]) / 10
        rows.append(Row("tick.cpu_ratio_to_linear", linear, 0.0, "ratio", None, "lower"))
    return rows


# For people


def table_of(found: Found) -> Table:
    """Every method beside ours: wrong decisions, what a decision took, and bad requests more than with stable."""
    table = Table("cell", "method", box=box.SIMPLE, title="simulated rollouts; p50 / p90 of what the decision took")
    for column in ("rolled back", "promoted", "undecided", "requests", "seconds", "bad requests"):
        table.add_column(column, justify="right", no_wrap=True)
    for cell, by_method in found.items():
        for place, (method, ended) in enumerate(by_method.items()):
            ends = [share(ended, end) for end in (ROLLED_BACK, PROMOTED)]
            table.add_row(
                "" if place else cell, method, *(f"{one:.2%}" for one in (*ends, max(0.0, 1 - sum(ends)))),
                *(_quantiles(taken(cell, ended, figure)) for figure in ("requests", "seconds")),
                f"{sum(one.bad for one in ended) / len(ended):,.0f}", end_section=place == len(by_method) - 1,
            )  # fmt: skip
    return table


def _quantiles(took: Sequence[float]) -> str:
    found = [quantile_of(took, p) for p in (0.5, 0.9)]
    return " / ".join("never" if math.isinf(one) else f"{one:,.0f}" for one in found) if took else ""


def table_of_bars(rows: Sequence[Row], bars: Mapping[str, float]) -> Table:
    table = Table("bar", "value", "at", "", title="bars", box=box.SIMPLE)
    for row in rows:
        if row.bar is not None:
            verdict = "[green]holds[/]" if row.holds else "[bold red]MISSED[/]"
            sign = "<=" if row.better == "lower" else ">="
            table.add_row(row.what, f"{row.value:,.4g}", f"{sign} {row.bar:,.4g}", verdict)
    for what in unmeasured(rows, bars):
        table.add_row(what, "never", f"{bars[what]:,.4g}", "[bold red]MISSED[/]")
    return table
