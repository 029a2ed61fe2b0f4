"""Plans as people write them: what is accepted, what is refused and with which words."""

import json
import tomllib
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rollout.decision.guards import Guard
from rollout.decision.rules import Approvals, Checks, Drift, Hours, Inconclusive, Labels, Plan
from rollout.plan import PlanError, load_plan, plan_from_json, plan_to_json

EXAMPLES = Path(__file__).parents[2] / "rollout/examples"


def test_an_empty_plan_is_the_default_plan(tmp_path):
    (tmp_path / "plan.toml").write_text("")
    (tmp_path / "plan.json").write_text("{}")
    assert load_plan(tmp_path / "plan.toml") == load_plan(tmp_path / "plan.json") == Plan()


def test_the_written_out_default_is_the_default():
    path = EXAMPLES / "default.toml"
    assert load_plan(path) == Plan()
    assert tomllib.loads(path.read_text()) == plan_to_json(Plan())


def test_a_plan_says_only_what_differs(tmp_path):
    path = tmp_path / "plan.toml"
    path.write_text('inconclusive = "roll_back"\n[guards.quality]\nrequired = false\n[[stages]]\nweight = 0.2\n')
    plan = load_plan(path)
    assert plan.inconclusive is Inconclusive.ROLL_BACK
    assert plan.guards.required == {Guard.ERRORS, Guard.LATENCY}
    assert [stage.weight for stage in plan.stages] == [0.2]
    assert plan.alpha_of(Guard.ERRORS) == pytest.approx(0.02)


@pytest.mark.parametrize("path", sorted(EXAMPLES.glob("*.toml")), ids=lambda path: path.name)
def test_the_examples_are_plans_and_survive_storage(path):
    plan = load_plan(path)
    assert plan_from_json(json.loads(json.dumps(plan_to_json(plan)))) == plan
    assert Plan.from_json(json.loads(json.dumps(plan.to_json()))) == plan


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("alhpa = 0.1", "unknown key 'alhpa': did you mean 'alpha'?"),
        ("[guards.latency]\nharm_bucket = 2", "'guards.latency.harm_bucket': did you mean 'harm_buckets'?"),
        ("[guards.qualty]", "unknown key 'guards.qualty': did you mean 'quality'?"),
        ("[[stages]]\nweigth = 0.1", "unknown key 'stages.1.weigth': did you mean 'weight'?"),
        ("alpha = 0.9", "alpha: Input should be less than or equal to 0.5"),
        ("alpha = nan", "alpha: Input should be a finite number"),
        ('alpha = "a lot"', "alpha: Input should be a valid number"),
        ("warmup_s = -1", "warmup_s: Input should be greater than or equal to 0"),
        ('inconclusive = "promote"', "inconclusive: Input should be 'hold', 'extend', 'roll_back'"),
        ("stages = []", "stages: List should have at least 1 item"),
        ("[[stages]]\nsoak_s = 1", "stages.1: needs a 'weight' or a 'shadow_share' above 0"),
        ("[[stages]]\nweight = 1.0", "stages.1.weight: Input should be less than 1"),
        ("[[stages]]\nshadow_share = 1.0", "at least one needs a weight above 0"),
        ("[[stages]]\nweight = 0.5\nshadow_share = 1.0\n[[stages]]\nweight = 0.2", "weights must grow"),
        ("[[stages]]\nweight = 0.2\nshadow_share = 1.0\n[[stages]]\nweight = 0.2", "weights must grow"),
        ("[[stages]]\nweight = 0.96\nshadow_share = 1.0", "hold_back: 0.05 leaves baking no more traffic"),
        ('[[stages]]\nweight = 0.5\nshadow_share = 1.0\nclear = ["agreement"]', "only enabled guards can be cleared"),
        ("[[stages]]\nweight = 0.5", "agreement, difference and quality are read from copies: give a stage"),
        (
            '[[stages]]\nweight = 0.1\nshadow_share = 1.0\nclear = ["latency"]\n[[stages]]\nweight = 0.5',
            "stages.1.clear: latency clears only from half the last weight on (0.25)",
        ),
        (
            '[[stages]]\nshadow_share = 1.0\nclear = ["errors"]\n[[stages]]\nweight = 0.5',
            "stages.1.clear: errors and mistakes are read from live traffic: the stage needs a weight",
        ),
        ("[guards.errors]\nalpha_share = 0.7", "alpha_share of all enabled guards together must be at most 1, not 1.2"),
        ("[guards.quality]\nharm = 0.02", "guards.quality: harm must be below clear"),
        ("[guards.latency]\nharm_buckets = 8", "guards.latency: harm_buckets must be below clear_buckets"),
        ("[guards.errors]\nharm_ratio = 2.0", "guards.errors: harm_ratio must not be above clear_ratio"),
        ("longest_s = 60.0", "longest_s: it must not be shorter than all stages' soak_s and bake_s"),
        ("extra_bad_requests = -1", "extra_bad_requests: Input should be greater than or equal to 0"),
        ("extra_bad_requests = 1.5", "extra_bad_requests: Input should be a valid integer"),
        ("alarm_free_s = 60.0", "alarm_free_s: Input should be greater than or equal to 3600"),
        ("[checks]\nshare_tolerence = 0.1", "unknown key 'checks.share_tolerence': did you mean 'share_tolerance'?"),
        ("[checks]\nshare_tolerance = 0", "checks.share_tolerance: Input should be greater than 0"),
        ("[checks]\nshare_alpha = 0.6", "checks.share_alpha: Input should be less than or equal to 0.5"),
        ('[checks]\ndrift = "maybe"', "checks.drift: Input should be 'off', 'warn' or 'hold'"),
        ("[checks]\ndrift = true", "checks.drift: Input should be 'off', 'warn' or 'hold'"),
        ("[approvals]\ncanry = 1", "unknown key 'approvals.canry': did you mean 'canary'?"),
        ("[approvals]\ncanary = 3", "approvals.canary: Input should be less than or equal to 2"),
        ("[approvals]\npromotion = 3", "approvals.promotion: Input should be less than or equal to 2"),
        ("[approvals]\npromotion = -1", "approvals.promotion: Input should be greater than or equal to 0"),
        ("[approvals]\ncanary = true", "approvals.canary: Input should be a valid integer"),
        ("[labels]\nshare = 0.5", "unknown key 'labels.share': did you mean 'expected_share'?"),
        ("[labels]\nexpected_share = 0", "labels.expected_share: Input should be greater than 0"),
        ("[labels]\ndelay_s = -1", "labels.delay_s: Input should be greater than or equal to 0"),
        ('[[hours]]\nday = ["mon"]', "unknown key 'hours.1.day': did you mean 'days'? Known here: days, begin, end"),
        ('[[hours]]\ndays = ["monday"]', "hours.1.days.1: "),
        ("[[hours]]\ndays = []", "hours.1.days: List should have at least 1 item"),
        ('[[hours]]\nbegin = "9:00"', "hours.1.begin: "),
        ('[[hours]]\nbegin = "25:00"', "hours.1.begin: "),
        ('[[hours]]\nend = "09:60"', "hours.1.end: "),
        ('[[hours]]\nend = "24:01"', "hours.1.end: "),
        ("[[hours]]\nbegin = 900", "hours.1.begin: Input should be a valid string"),
        (
            '[[hours]]\nbegin = "16:00"\nend = "09:00"',
            "hours.1: 'begin' must be before 'end'; write hours over midnight as",
        ),
        ('[[hours]]\nbegin = "09:00"\nend = "09:00"', "hours.1: 'begin' must be before 'end'"),
        ('[hours]\nbegin = "09:00"', "hours: Input should be a valid list"),
        ("[guards.mistakes]\nenabled = true", "alpha_share of all enabled guards together must be at most 1, not 1.1"),
        (
            "[guards.mistakes]\nharm_floor = 0.02",
            "guards.mistakes: harm_ratio and _floor must be below clear_ratio and",
        ),
        ("[guards.mistakes]\nharm_ratio = 1.1", "guards.mistakes: harm_ratio must not be above clear_ratio"),
        (
            'guards.mistakes.enabled = true\nstages = [{ shadow_share = 1.0, clear = ["mistakes"] }, { weight = 0.5 }]',
            "stages.1.clear: errors and mistakes are read from live traffic: the stage needs a weight",
        ),
        ("[guards.difference]\nharm = 0.5", "guards.difference: harm must be below clear"),
        (
            "[guards.difference]\nenabled = true\n[guards.quality]\nenabled = false\n[[stages]]\nweight = 0.5",
            "stages: agreement, difference and quality are read from copies: give a stage up to here a shadow_share",
        ),
        ('[guards.latency]\nwhole = "yes"', "guards.latency.whole: Input should be a valid boolean"),
    ],
)
def test_a_plan_that_cannot_work_is_refused_with_the_key_and_the_reason(text, complaint):
    with pytest.raises(PlanError) as refusal:
        plan_from_json(tomllib.loads(text))
    assert complaint in str(refusal.value)


EVERY_KEY = """
alpha = 0.02
extra_bad_requests = 40
alarm_free_s = 86400.0
inconclusive = "promote_if_unharmed"
guards.quality.enabled = false

[guards.mistakes]
enabled = true
alpha_share = 0.15
clear_floor = 0.03
[guards.difference]
enabled = true
required = false
harm = 0.03
[checks]
share_tolerance = 0.1
share_alpha = 0.001
drift = "hold"
drift_alpha = 0.01
[approvals]
canary = 1
promotion = 2
[labels]
expected_share = 0.2
delay_s = 3600.0
[[hours]]
days = ["mon", "tue"]
begin = "09:00"
end = "16:00"
[[hours]]
days = ["sun"]
end = "24:00"
[[stages]]
weight = 0.1
shadow_share = 1.0
clear = ["mistakes", "difference"]
[[stages]]
weight = 0.5
"""


def test_every_key_is_read_and_survives_storage():
    plan = plan_from_json(tomllib.loads(EVERY_KEY))
    assert plan.checks == Checks(0.1, 0.001, Drift.HOLD, 0.01)
    assert plan.approvals == Approvals(canary=1, promotion=2)
    assert plan.labels == Labels(expected_share=0.2, delay_s=3600.0)
    assert plan.hours == (Hours(("mon", "tue"), "09:00", "16:00"), Hours(("sun",)))
    assert (plan.extra_bad_requests, plan.alarm_free_s) == (40, 86400.0)
    assert plan.inconclusive is Inconclusive.PROMOTE_IF_UNHARMED
    assert plan.guards.enabled == (Guard.ERRORS, Guard.LATENCY, Guard.DIFFERENCE, Guard.MISTAKES)
    assert plan.guards.required == {Guard.ERRORS, Guard.LATENCY, Guard.MISTAKES}
    assert (plan.guards.mistakes.clear_floor, plan.guards.difference.harm) == (0.03, 0.03)
    assert plan.stages[0].clear == {Guard.MISTAKES, Guard.DIFFERENCE}
    assert plan_from_json(json.loads(json.dumps(plan_to_json(plan)))) == plan


@pytest.mark.parametrize("what", Inconclusive)
@pytest.mark.parametrize("drift", Drift)
def test_every_way_out_and_every_watch_can_be_written(what, drift):
    plan = plan_from_json({"inconclusive": what.value, "checks": {"drift": drift.value}})
    assert (plan.inconclusive, plan.checks.drift) == (what, drift)


def test_three_lines_make_a_plan(tmp_path):
    path = tmp_path / "plan.toml"
    path.write_text(
        "guards.quality.enabled = false\nstages = [{ weight = 0.1 }, { weight = 0.5 }]\nlongest_s = 3600.0\n"
    )
    plan = load_plan(path)
    assert [stage.weight for stage in plan.stages] == [0.1, 0.5]
    assert plan.must_clear(1) == plan.guards.required == {Guard.ERRORS, Guard.LATENCY}
    assert replace(plan, stages=Plan().stages, guards=Plan().guards, longest_s=Plan().longest_s) == Plan()


def test_only_whole_times_of_a_day_are_hours():
    for begin, end in (("00:00", "24:00"), ("23:59", "24:00"), ("00:00", "00:01"), ("09:05", "19:50")):
        assert plan_from_json({"hours": [{"begin": begin, "end": end}]}).hours == (Hours(begin=begin, end=end),)


def test_a_plan_without_anything_to_clear_is_refused():
    guards = {name: {"enabled": False} for name in ("errors", "latency", "quality")}
    with pytest.raises(PlanError, match="at least one must be enabled and required"):
        plan_from_json({"guards": guards})


def test_files_that_are_no_plans_are_named(tmp_path):
    with pytest.raises(PlanError, match=r"absent\.toml: No such file"):
        load_plan(tmp_path / "absent.toml")
    (tmp_path / "broken.toml").write_text("alpha = ")
    with pytest.raises(PlanError, match=r"broken\.toml is not TOML"):
        load_plan(tmp_path / "broken.toml")
    (tmp_path / "list.json").write_text("[]")
    with pytest.raises(PlanError, match=r"list\.json: the plan: Input should be"):
        load_plan(tmp_path / "list.json")


KEYS = (
    "stages", "guards", "weight", "shadow_share", "errors", "quality", "alpha", "clear", "harm", "bake_s", "other",
    "hours", "days", "begin", "end", "checks", "drift", "approvals", "canary", "labels", "delay_s", "mistakes",
)  # fmt: skip
json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(KEYS), inner, max_size=3),
    max_leaves=12,
)


@given(json_values)
def test_whatever_is_read_becomes_a_plan_or_a_plan_error(data):
    try:
        plan = plan_from_json(data)
    except PlanError as refusal:
        assert str(refusal)
    else:
        assert plan_from_json(plan_to_json(plan)) == plan
