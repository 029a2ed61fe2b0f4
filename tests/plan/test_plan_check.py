"""`sluice plan check`: the words, the forecast, and what is refused."""

import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from statistics import NormalDist

import pytest
from typer.testing import CliRunner, Result

from rollout.decision.forecast import GOOD, Candidate, Traffic, clearly_bad, forecast
from rollout.decision.guards import Guard, Guards, QualityRules
from rollout.decision.rules import Approvals, Hours, Inconclusive, Plan, Stage
from rollout.decision.state import Status
from rollout.plain import told
from rollout.plan import load_plan
from rollout.plan_cli import _lognormal, plan

PLAN = Plan(
    stages=(Stage(0.05, soak_s=60.0), Stage(0.5, soak_s=60.0)),
    guards=Guards(quality=QualityRules(enabled=False)),
    bake_s=60.0,
    longest_s=3600.0,
)
BUCKETS = NormalDist(190.0, 20.0)
TRAFFIC = Traffic(50.0, 0.001, {bucket: BUCKETS.pdf(bucket) for bucket in range(110, 270)})


def check(*arguments: str) -> Result:
    return CliRunner().invoke(plan, ["check", *arguments])


@pytest.fixture
def three_lines(tmp_path: Path) -> Iterator[str]:
    path = tmp_path / "plan.toml"
    path.write_text(
        "guards.quality.enabled = false\nstages = [{ weight = 0.05 }, { weight = 0.5 }]\nlongest_s = 7200.0\n"
    )
    yield str(path)


def test_a_good_candidate_is_promoted_and_each_bad_one_is_taken_back_for_what_it_is() -> None:
    good = forecast(PLAN, TRAFFIC)
    assert (good.status, good.by, good.bad) == (Status.PROMOTED, "cleared", 0.0)
    for guard in PLAN.guards.enabled:
        bad = clearly_bad(PLAN, guard, TRAFFIC)
        assert bad is not None
        taken_back = forecast(PLAN, TRAFFIC, bad)
        assert (taken_back.status, taken_back.by) == (Status.ROLLED_BACK, guard.value)
        assert taken_back.seconds < good.seconds


@pytest.mark.parametrize("rate", [8.0, 20.0, 50.0])
def test_a_forecast_of_little_traffic_is_as_good_as_one_of_much(rate: float, three_lines: str) -> None:
    """Simulated by chance, four of four at each of these rates are promoted, after 3,300 s at most."""
    good = forecast(load_plan(Path(three_lines)), Traffic(rate, 0.001, _lognormal(5.0, 20.0)))
    assert (good.status, good.by) == (Status.PROMOTED, "cleared")
    assert good.seconds <= 5000


def test_a_tenth_of_the_traffic_takes_longer() -> None:
    assert forecast(PLAN, replace(TRAFFIC, rate=5.0)).seconds > 1.5 * forecast(PLAN, TRAFFIC).seconds


def test_too_little_traffic_is_told_with_what_it_would_wait_for() -> None:
    slow = forecast(PLAN, replace(TRAFFIC, rate=1.5))
    assert slow.status is Status.HELD
    assert any("errors to be cleared" in text for text in slow.waiting_for)


def test_people_and_hours_are_left_out_of_a_forecast() -> None:
    asked = replace(PLAN, approvals=Approvals(2, 2), hours=(Hours(("mon",), "09:00", "09:01"),))
    assert forecast(asked, TRAFFIC) == forecast(PLAN, TRAFFIC)


def test_labels_come_with_their_delay() -> None:
    shadowed = replace(PLAN, guards=Guards(), stages=(Stage(0.0, 1.0, 400.0), *PLAN.stages), longest_s=7200.0)
    late = replace(shadowed, labels=replace(PLAN.labels, delay_s=3000.0))
    bad = Candidate(mistaken=0.05)
    assert forecast(late, TRAFFIC, bad).seconds >= 3000 > forecast(shadowed, TRAFFIC, bad).seconds


def test_a_rate_of_nothing_forecasts_nothing() -> None:
    nothing = forecast(replace(PLAN, longest_s=600.0), replace(TRAFFIC, rate=0.001), GOOD)
    assert (nothing.status, nothing.requests) == (Status.HELD, 0)


def test_three_lines_make_a_plan_that_decides(three_lines: str) -> None:
    shown = check(three_lines, "--rate", "50")
    assert shown.exit_code == 0, shown.output
    assert "as good as stable" in shown.output and "promoted" in shown.output
    assert "the candidate answers 5 % of the traffic" in shown.output


def test_a_plan_that_cannot_decide_alone_is_refused_and_says_what_to_do(three_lines: str) -> None:
    refused = check(three_lines, "--rate", "0.5")
    assert refused.exit_code == 1
    assert "cannot decide by itself within 2 h" in refused.output and "approvals.promotion = 1" in refused.output


def test_people_may_decide_what_traffic_cannot(three_lines: str) -> None:
    Path(three_lines).write_text(Path(three_lines).read_text() + "approvals.promotion = 1\n")
    assert check(three_lines, "--rate", "0.5").exit_code == 0


def test_json_holds_the_plan_its_words_and_the_forecasts(three_lines: str) -> None:
    shown = json.loads(check(three_lines, "--rate", "50", "--json").output)
    assert shown["plan"]["longest_s"] == 7200.0
    assert shown["forecasts"]["as good as stable"]["status"] == "promoted"
    assert len(shown["told"]) > 5 and shown["faults"] == []


def test_mistakes_in_the_command_say_what_is_wrong(tmp_path: Path) -> None:
    broken = tmp_path / "broken.toml"
    broken.write_text("alhpa = 0.1")
    for arguments, says, code in (
        ([str(broken)], "did you mean 'alpha'", 2),
        ([str(tmp_path / "absent.toml")], "No such file", 2),
        (["--rate", "5", "--p50-ms", "9", "--p99-ms", "3"], "must not be below", 2),
        (["--model", "digits", "--url", "http://127.0.0.1:9"], "cannot be reached", 1),
    ):
        refused = check(*arguments)
        assert refused.exit_code == code, refused.output
        assert says in refused.output.replace("\n", " ")


def test_giving_up_the_beta_guarantee_is_spelled_out() -> None:
    words = " ".join(told(replace(PLAN, inconclusive=Inconclusive.PROMOTE_IF_UNHARMED)))
    assert "gives up the beta guarantee" in words


def test_every_setting_has_its_words() -> None:
    asked = replace(
        PLAN, approvals=Approvals(1, 2), hours=(Hours(("mon", "tue"), "09:00", "16:00"),), extra_bad_requests=40
    )
    words = " ".join(told(asked))
    for text in ("One person must approve before the first live traffic", "2 different people", "mon, tue from 09:00",
                 "at most 40 extra bad requests"):  # fmt: skip
        assert text in words


@pytest.mark.parametrize("guard", Guard)
def test_every_guard_has_its_words(guard: Guard) -> None:
    rules = replace(PLAN.guards.rules(guard), enabled=True)
    words = list(told(replace(PLAN, guards=replace(PLAN.guards, **{guard.value: rules}))))
    assert any(line.startswith(guard.value.capitalize()) for line in words)
