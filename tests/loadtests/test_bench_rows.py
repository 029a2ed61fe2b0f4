"""What a benchmark says of given figures: medians, ratios of the same round, bars and the exit code."""

import json

import pytest

from loadtests.bench.client import quantile
from loadtests.bench.rows import Measured, Row, document, exit_code, rows_of, unmeasured
from loadtests.errors import BenchError


def _measured(cpu_us: float | None, p99_us: float = 100.0) -> Measured:
    return Measured(requests_per_s=1000.0, p50_us=50.0, p99_us=p99_us, cpu_us=cpu_us)


ROUNDS = {
    "direct": [_measured(None), _measured(None), _measured(None)],
    "ours": [_measured(20.0), _measured(40.0), _measured(30.0)],
    "theirs": [_measured(100.0, 400.0), _measured(400.0, 200.0), _measured(100.0, 100.0)],
}


def _by_name(bars: dict[str, float] | None = None) -> dict[str, Row]:
    return {row.what: row for row in rows_of("small", ROUNDS, "ours", bars or {})}


def test_figures_are_medians_with_their_spread() -> None:
    row = _by_name()["small.cpu_us.ours"]
    assert (row.value, row.spread, row.unit, row.better) == (30.0, 20.0, "us", "lower")


def test_ratios_are_taken_round_by_round() -> None:
    row = _by_name()["small.cpu_ratio_to_theirs"]
    assert (row.value, round(row.spread, 9)) == (0.2, 0.2)  # Of 0.2, 0.1 and 0.3.


def test_what_has_no_proxy_has_no_cpu_row() -> None:
    rows = _by_name()
    assert "small.cpu_us.direct" not in rows
    assert "small.cpu_ratio_to_direct" not in rows
    assert rows["small.p99_ratio_to_direct"].value == 1.0


def test_nothing_is_compared_with_itself() -> None:
    assert not [what for what in _by_name() if what.endswith("_to_ours")]


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
        assert exit_code(list(_by_name(bars).values()), bars) == code


def test_a_bar_that_was_not_measured_does_not_hold() -> None:
    bars = {"small.cpu_ratio_to_envoy": 1.0}
    rows = list(_by_name(bars).values())
    assert unmeasured(rows, bars) == ["small.cpu_ratio_to_envoy"]
    assert exit_code(rows, bars) == 1


def test_the_file_has_the_shape_that_the_design_gives() -> None:
    rows = list(_by_name({"small.cpu_ratio_to_theirs": 0.25}).values())
    said = json.loads(json.dumps(document("gateway", "now", "2 cores", 3, rows, {"ours": "1", "nginx": None})))
    row = next(row for row in said["rows"] if row["what"] == "small.cpu_ratio_to_theirs")
    assert {"benchmark", "when", "machine", "rounds", "rows"} <= set(said)
    assert set(row) == {"what", "value", "spread", "unit", "bar", "better", "holds"}
    assert (row["bar"], row["holds"]) == (0.25, True)


def test_quantiles_are_by_nearest_rank() -> None:
    assert [quantile(range(1, 101), p) for p in (0.0, 0.5, 0.99, 1.0)] == [1, 50, 99, 100]
    with pytest.raises(BenchError):
        quantile([], 0.5)
