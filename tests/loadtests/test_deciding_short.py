"""The benchmark of decisions in short: some hundred simulated rollouts by the real engine."""

import io
import math
from collections.abc import Sequence
from pathlib import Path

import pytest
from rich.console import Console
from rich.table import Table

from gateway.lanes import OPENS_UNPROVEN_AFTER
from loadtests.bench.rows import exit_code
from loadtests.deciding.cells import CELLS, GOOD
from loadtests.deciding.others import METHODS
from loadtests.deciding.ours import OURS
from loadtests.deciding.outage import outage
from loadtests.deciding.plots import plot
from loadtests.deciding.report import (
    allowed,
    bars_of,
    outage_rows,
    quantile_of,
    rows_of,
    share,
    table_of,
    table_of_bars,
    taken,
    tick_rows,
)
from loadtests.deciding.running import PROMOTED, ROLLED_BACK, Ended, on_all_cores, rollouts

RUNS = 60


def said(table: Table) -> str:
    console = Console(width=110, record=True, file=io.StringIO())
    console.print(table)
    return console.export_text()


@pytest.fixture(scope="module")
def found() -> dict[str, dict[str, list[Ended]]]:
    names = ("aa", "arm_bursts_3", "errors_2pct", "slower_1.5", "accuracy_paired", "beyond_clear.errors")
    return dict(on_all_cores(dict.fromkeys(names, RUNS), lambda _name, _done: None))


@pytest.mark.parametrize("cell", ["aa", "arm_bursts_3"])
def test_a_good_candidate_is_hardly_ever_taken_back(found: dict[str, dict[str, list[Ended]]], cell: str) -> None:
    assert share(found[cell][OURS], ROLLED_BACK) <= allowed(0.01, RUNS)


@pytest.mark.parametrize(("cell", "most"), [("errors_2pct", 3400), ("slower_1.5", 400), ("accuracy_paired", 1300)])
def test_a_bad_one_is_taken_back_in_time(found: dict[str, dict[str, list[Ended]]], cell: str, most: int) -> None:
    ended = found[cell][OURS]
    assert share(ended, ROLLED_BACK) >= 0.95
    assert quantile_of(taken(cell, ended, "requests"), 0.5) <= 1.25 * most  # Of few runs; the benchmark is exact.


def test_one_beyond_a_clear_margin_is_not_promoted(found: dict[str, dict[str, list[Ended]]]) -> None:
    assert share(found["beyond_clear.errors"][OURS], PROMOTED) == 0


def test_methods_differ_as_they_should(found: dict[str, dict[str, list[Ended]]]) -> None:
    assert set(found["aa"]) == {OURS, *METHODS}
    assert share(found["aa"]["z peeking"], ROLLED_BACK) > 0.15
    assert share(found["aa"]["flagger 1"], ROLLED_BACK) > 0.9
    waited = quantile_of(taken("errors_2pct", found["errors_2pct"]["z at the end"], "seconds"), 0.5)
    assert waited == 2400 > quantile_of(taken("errors_2pct", found["errors_2pct"][OURS], "seconds"), 0.5)


def test_runs_are_the_same_again() -> None:
    assert rollouts("errors_2pct", range(3)) == rollouts("errors_2pct", range(3))


def test_an_outage_ends_soon_and_few_requests_meet_it() -> None:
    rows = {row.what.split(".")[1]: row for row in outage_rows([outage(seed) for seed in range(50)])}
    assert all(row.holds for row in rows.values()), rows
    assert OPENS_UNPROVEN_AFTER <= rows["most_attempts"].value <= OPENS_UNPROVEN_AFTER + 3
    assert 0 < rows["opened_s_p50"].value < rows["most_rolled_back_s"].value


def test_rows_have_bars_for_ours_alone(found: dict[str, dict[str, list[Ended]]]) -> None:
    barred = {row.what for row in rows_of(found) if row.bar is not None}
    assert "aa.rolled_back.sluice" in barred
    assert "errors_2pct.requests_p50.sluice" in barred
    assert all(what.endswith(OURS) for what in barred)


def test_undecided_runs_count_as_never() -> None:
    ended = [Ended(ROLLED_BACK, 10.0, 5, 0.0), Ended("", 2400.0, 900, 0.0), Ended("", 2400.0, 900, 0.0)]
    assert math.isinf(quantile_of(taken("errors_2pct", ended, "requests"), 0.5))
    assert not any("requests_p50" in row.what for row in rows_of({"errors_2pct": {OURS: ended}}))
    assert taken("aa", ended, "requests") == [5]


@pytest.mark.parametrize("cell", ["slower_1.5", "slower_1.1", "accuracy_paired", "accuracy_unpaired"])
def test_a_median_that_is_never_reached_misses_its_bar(cell: str) -> None:
    found = {cell: {OURS: [Ended("", 2400.0, 900, 0.0)] * 3}}
    rows, bars = rows_of(found), bars_of(found)
    assert exit_code(rows, bars) == 1
    assert said(table_of_bars(rows, bars)).count("MISSED") == 1


def test_the_table_says_what_was_left_undecided() -> None:
    ended = [Ended(ROLLED_BACK, 10.0, 5, 0.0), Ended(ROLLED_BACK, 20.0, 9, 0.0), Ended("held", 2400.0, 900, 30.0)]
    text = said(table_of({"errors_2pct": {OURS: ended}}))
    assert "66.67%" in text and "33.33%" in text and "9 / never" in text
    assert {row.what: row.value for row in rows_of({"errors_2pct": {OURS: ended}})}[
        f"errors_2pct.undecided.{OURS}"
    ] == pytest.approx(1 / 3)
    assert math.isinf(quantile_of([], 0.5))


def test_plots_are_written(found: dict[str, dict[str, list[Ended]]], tmp_path: Path) -> None:
    written = plot(found, tmp_path)
    assert sorted(path.name for path in written) == ["bad_requests.svg", "delay.svg", "false_rollbacks.svg"]
    assert all(path.read_text().startswith("<?xml") for path in written)


def test_a_tick_is_set_beside_a_straight_line() -> None:
    timed: dict[int, Sequence[float]] = {10: [5.0, 6.0, 7.0], 100: [50.0, 66.0, 70.0]}
    rows = {row.what: row for row in tick_rows(timed)}
    assert rows["tick.cpu_ms.models_100"].bar == 100
    assert rows["tick.cpu_ratio_to_linear"].value == pytest.approx(1.1)


def test_a_good_model_is_promoted() -> None:
    ended = rollouts(GOOD.name, range(8))[OURS]
    assert share(ended, PROMOTED) >= 0.7
    assert CELLS[GOOD.name].windows * 10 == 2400
