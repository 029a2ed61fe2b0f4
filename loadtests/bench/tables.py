"""A benchmark's rows as tables for people, 80 columns wide at most. CPU is a request's, spent by the peer alone."""

from collections import defaultdict
from collections.abc import Mapping, Sequence

from rich import box
from rich.table import Table

from loadtests.bench.rows import RATIOS, Row

_COLUMNS = (("requests_per_s", "requests/s", 1.0, 0), ("p50_us", "p50 ms", 1e-3, 2), ("p99_us", "p99 ms", 1e-3, 2),
            ("cpu_us", "CPU us", 1.0, 0))  # fmt: skip
"""Figure, its column's title, the factor from the row's unit to the column's, digits."""


def tables_of(rows: Sequence[Row]) -> list[Table]:
    """One table of figures a load, one of our ratios to the peers, one of the bars. Cells: median ± half the spread."""
    figures: dict[str, dict[str, dict[str, Row]]] = defaultdict(lambda: defaultdict(dict))
    ratios: dict[tuple[str, str], dict[str, Row]] = defaultdict(dict)
    for row in rows:
        load, _, rest = row.what.partition(".")
        if row.unit == "ratio":
            ratio, _, peer = rest.partition("_to_")
            ratios[load, peer][ratio] = row
        else:
            figure, _, peer = rest.partition(".")
            figures[load][peer][figure] = row
    return [*(_figures(load, peers) for load, peers in figures.items()), _ratios(ratios), _bars(rows)]


def _figures(load: str, peers: Mapping[str, Mapping[str, Row]]) -> Table:
    table = Table("", title=load, box=box.SIMPLE)
    for _, title, _, _ in _COLUMNS:
        table.add_column(title, justify="right")
    for peer, found in peers.items():
        table.add_row(peer, *(_cell(found.get(name), digits, factor) for name, _, factor, digits in _COLUMNS))
    return table


def _ratios(ratios: Mapping[tuple[str, str], Mapping[str, Row]]) -> Table:
    table = Table("load", "beside", title="ours, as a ratio to the peer's", box=box.SIMPLE)
    for name, *_ in RATIOS:
        table.add_column(name.removesuffix("_ratio"), justify="right")
    for (load, peer), found in ratios.items():
        table.add_row(load, peer, *(_cell(found.get(name), 2) for name, *_ in RATIOS))
    return table


def _bars(rows: Sequence[Row]) -> Table:
    table = Table("bar", "value", "at", "", title="bars", box=box.SIMPLE)
    for row in rows:
        if row.bar is not None:
            verdict = "[green]holds[/]" if row.holds else "[bold red]MISSED[/]"
            sign = "<=" if row.better == "lower" else ">="
            table.add_row(row.what, _cell(row, 2), f"{sign} {row.bar:g}", verdict)
    return table


def _cell(row: Row | None, digits: int, factor: float = 1.0) -> str:
    return "" if row is None else f"{row.value * factor:,.{digits}f} ± {row.spread / 2 * factor:,.{digits}f}"
