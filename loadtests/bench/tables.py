"""A benchmark's rows as tables for people, 80 columns wide at most. CPU is a request's, spent by the peer alone."""

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence

from rich import box
from rich.table import Table

from loadtests.bench.rows import Row, unmeasured

_COLUMNS = (("requests_per_s", "requests/s", 1.0, 0), ("p50_us", "p50 ms", 1e-3, 2), ("p99_us", "p99 ms", 1e-3, 2),
            ("cpu_us", "CPU us", 1.0, 0))  # fmt: skip
"""Figure, its column's title, the factor from the row's unit to the column's, digits."""
_RATIOS = ("cpu_ratio", "p99_ratio", "requests_ratio")
_UNSHOWN = ("answered", "client_cpu_us", "upstream_cpu_us")
"""Only in the file: they tell how far the load and the upstream were what limited requests/s."""


def tables_of(rows: Sequence[Row], bars: Mapping[str, float]) -> list[Table]:
    """A table of figures for each load, one of ratios, of other figures, of bars. Cells: median ± half the spread."""
    figures: dict[str, dict[str, dict[str, Row]]] = defaultdict(lambda: defaultdict(dict))
    ratios: dict[tuple[str, str], dict[str, Row]] = defaultdict(dict)
    others = []
    for row in rows:
        load, _, rest = row.what.partition(".")
        ratio, _, other = rest.partition("_to_")
        figure, _, subject = rest.partition(".")
        if ratio in _RATIOS:
            ratios[load, other][ratio] = row
        elif figure in (name for name, *_ in _COLUMNS):
            figures[load][subject][figure] = row
        elif figure not in _UNSHOWN:
            others.append(row)
    tables = [_figures(load, subjects) for load, subjects in figures.items()]
    return [*tables, _ratios(ratios), *([_others(others)] if others else []), _bars(rows, unmeasured(rows, bars))]


def _figures(load: str, subjects: Mapping[str, Mapping[str, Row]]) -> Table:
    table = Table("", title=load, box=box.SIMPLE)
    for _, title, _, _ in _COLUMNS:
        table.add_column(title, justify="right")
    for subject, found in subjects.items():
        table.add_row(subject, *(_cell(found.get(name), digits, factor) for name, _, factor, digits in _COLUMNS))
    return table


def _ratios(ratios: Mapping[tuple[str, str], Mapping[str, Row]]) -> Table:
    table = Table("load", "beside", title="as ratios to the other's", box=box.SIMPLE)
    for name in _RATIOS:
        table.add_column(name.removesuffix("_ratio"), justify="right")
    for (load, other), found in ratios.items():
        table.add_row(load, other, *(_cell(found.get(name), 2) for name in _RATIOS))
    return table


def _others(rows: Iterable[Row]) -> Table:
    table = Table("", "value", "", title="other figures", box=box.SIMPLE)
    for row in rows:
        table.add_row(row.what, _short(row), row.unit)
    return table


def _bars(rows: Iterable[Row], unmeasured: Iterable[str]) -> Table:
    table = Table("bar", "value", "at", "", title="bars", box=box.SIMPLE)
    for row in rows:
        if row.bar is not None:
            verdict = "[green]holds[/]" if row.holds else "[bold red]MISSED[/]"
            sign = "<=" if row.better == "lower" else ">="
            table.add_row(row.what, _short(row), f"{sign} {row.bar:g}", verdict)
    for what in unmeasured:
        table.add_row(what, "not measured", "", "[bold red]MISSED[/]")
    return table


def _cell(row: Row | None, digits: int, factor: float = 1.0) -> str:
    return "" if row is None else f"{row.value * factor:,.{digits}f} ± {row.spread / 2 * factor:,.{digits}f}"


def _short(row: Row) -> str:
    """For a column of all kinds of values."""
    return _cell(row, 0 if abs(row.value) >= 100 else 2)
