"""What a benchmark says of given figures: medians, comparisons of the same round, bars and the exit code."""

import io
import json

import pytest
from rich.console import Console

from loadtests.bench.bars import BARS
from loadtests.bench.client import quantile
from loadtests.bench.gateway import WORKS
from loadtests.bench.rows import (
    FIGURES,
    Circumstances,
    Comparison,
    Figures,
    Row,
    beside,
    document,
    exit_code,
    rows_of,
    unmeasured,
)  # fmt: skip
from loadtests.bench.tables import tables_of
from loadtests.errors import BenchError
from loadtests.peers.line_up import PEERS


def _figures(cpu_us: float | None, p99_us: float = 100.0) -> Figures:
    figures = {"requests_per_s": 1000.0, "p50_us": 50.0, "p99_us": p99_us}
    return figures if cpu_us is None else {**figures, "cpu_us": cpu_us}


ROUNDS = {
    "direct": [_figures(None), _figures(None), _figures(None)],
    "ours": [_figures(20.0), _figures(40.0), _figures(30.0)],
    "theirs": [_figures(100.0, 400.0), _figures(400.0, 200.0), _figures(100.0, 100.0)],
}


def _rows(bars: dict[str, float] | None = None) -> list[Row]:
    return rows_of({"small": ROUNDS}, beside("ours", "small", list(ROUNDS)), bars or {})


def _by_name(bars: dict[str, float] | None = None) -> dict[str, Row]:
    return {row.what: row for row in _rows(bars)}


def test_figures_are_medians_with_their_spread() -> None:
    row = _by_name()["small.cpu_us.ours"]
    assert (row.value, row.spread, row.unit, row.better) == (30.0, 20.0, "us", "lower")


def test_ratios_are_taken_round_by_round() -> None:
    row = _by_name()["small.cpu_ratio_to_theirs"]
    assert (row.value, round(row.spread, 9), row.unit) == (0.2, 0.2, "ratio")  # Of 0.2, 0.1 and 0.3.


def test_a_ratio_is_better_where_its_figure_is() -> None:
    assert _by_name()["small.requests_ratio_to_theirs"].better == "higher"
    assert _by_name()["small.p99_ratio_to_theirs"].better == "lower"


def test_differences_keep_the_unit_of_their_figure() -> None:
    one = Comparison("small", "added_p99_us.theirs", "p99_us", of="theirs", to="direct", is_difference=True)
    row = rows_of({"small": ROUNDS}, [one], {"small.added_p99_us.theirs": 0.0})[-1]
    assert (row.what, row.value, row.spread, row.unit) == ("small.added_p99_us.theirs", 100.0, 300.0, "us")
    assert not row.holds


def test_what_has_no_proxy_has_no_cpu_row() -> None:
    rows = _by_name()
    assert "small.cpu_us.direct" not in rows
    assert "small.cpu_ratio_to_direct" not in rows
    assert rows["small.p99_ratio_to_direct"].value == 1.0


def test_nothing_is_divided_by_nothing() -> None:
    rounds = {"a": [{"cpu_us": 1.0}, {"cpu_us": 1.0}], "b": [{"cpu_us": 1.0}, {"cpu_us": 0.0}]}
    assert Comparison("load", "cpu_ratio", "cpu_us", of="a", to="b").values(rounds) == []
    assert Comparison("load", "cpu_ratio", "cpu_us", of="b", to="a").values(rounds) == [1.0, 0.0]


def test_nothing_is_compared_with_itself_or_with_who_is_absent() -> None:
    assert not [what for what in _by_name() if what.endswith("_to_ours")]
    assert rows_of({"small": ROUNDS}, [Comparison("small", "x", "cpu_us", of="ours", to="absent")], {})[-1].what != "x"
    assert Comparison("small", "x", "cpu_us", of="ours", to="absent").values(ROUNDS) == []


@pytest.mark.parametrize(
    ("value", "bar", "better", "holds"),
    [(0.2, 0.25, "lower", True), (0.25, 0.25, "lower", True), (0.3, 0.25, "lower", False), (9.0, None, "lower", True),
     (5.0, 4.0, "higher", True), (3.0, 4.0, "higher", False)],
)  # fmt: skip
def test_a_row_holds_on_the_right_side_of_its_bar(value: float, bar: float | None, better: str, holds: bool) -> None:
    assert Row("it", value, 0.0, "ratio", bar, better).holds == holds


def test_a_missed_bar_is_exit_code_1() -> None:
    for bar, code in ((0.25, 0), (0.15, 1)):
        bars = {"small.cpu_ratio_to_theirs": bar}
        assert exit_code(_rows(bars), bars) == code


def test_a_bar_that_was_not_measured_does_not_hold() -> None:
    bars = {"small.cpu_ratio_to_envoy": 1.0}
    rows = _rows(bars)
    assert unmeasured(rows, bars) == ["small.cpu_ratio_to_envoy"]
    assert exit_code(rows, bars) == 1


def test_the_file_has_the_shape_that_the_design_gives() -> None:
    bars = {"small.cpu_ratio_to_theirs": 0.25, "other.cpu_us.ours": 1.0}
    under = Circumstances("now", "2 cores", 3, {"ours": "1", "nginx": None}, {"other": "it did not start"})
    said = json.loads(json.dumps(document("gateway", under, _rows(bars), bars)))
    row = next(row for row in said["rows"] if row["what"] == "small.cpu_ratio_to_theirs")
    assert {"benchmark", "when", "machine", "rounds", "rows"} <= set(said)
    assert set(row) == {"what", "value", "spread", "unit", "bar", "better", "holds"}
    assert (row["bar"], row["holds"]) == (0.25, True)
    assert (said["unmeasured"], said["failed"]) == (["other.cpu_us.ours"], {"other": "it did not start"})


def test_every_bar_belongs_to_one_work_and_can_be_measured() -> None:
    loads = [load for work in WORKS for load in work.loads]
    assert len(loads) == len(set(loads))
    everyone = [*(peer.name for peer in PEERS), *(f"{peer.name}_copying" for peer in PEERS), "direct"]
    compared = {one.what: one for work in WORKS for one in work.comparisons(dict.fromkeys(work.loads, everyone))}
    for what in BARS:
        load, figure, *subject = what.split(".")
        assert load in loads
        assert what in compared or (figure in FIGURES and subject), what
    assert {one.figure for one in compared.values()} <= set(FIGURES)


def test_tables_say_every_bar_in_80_columns() -> None:
    rows = [Row(what, bar + 1.5, 18.0, "us", bar, "lower") for what, bar in BARS.items()]
    unknown = {"mirror_half.p99_ratio_to_without.all_day": 1.1}
    console = Console(file=io.StringIO(), width=80)
    console.print(*tables_of([*_rows(), *rows], {**BARS, **unknown}))
    said = console.file.getvalue()
    assert [what for what in (*BARS, *unknown) if what not in said] == []
    assert said.count("MISSED") == len(BARS) + 1
    assert said.count("not measured") == 1


def test_quantiles_are_by_nearest_rank() -> None:
    assert [quantile(range(1, 101), p) for p in (0.0, 0.5, 0.99, 1.0)] == [1, 50, 99, 100]
    with pytest.raises(BenchError):
        quantile([], 0.5)
