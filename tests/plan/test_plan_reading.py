"""Plans as people write them: what is accepted, what is refused and with which words."""

import json
import tomllib
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rollout.decision.rules import Guard, Inconclusive, Plan
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
        ('inconclusive = "promote"', "inconclusive: Input should be 'hold' or 'roll_back'"),
        ("stages = []", "stages: List should have at least 1 item"),
        ("[[stages]]\nsoak_s = 1", "stages.1: needs a 'weight' or a 'shadow_share' above 0"),
        ("[[stages]]\nweight = 1.0", "stages.1.weight: Input should be less than 1"),
        ("[[stages]]\nshadow_share = 1.0", "at least one needs a weight above 0"),
        ("[[stages]]\nweight = 0.5\nshadow_share = 1.0\n[[stages]]\nweight = 0.2", "weights must grow"),
        ("[[stages]]\nweight = 0.2\nshadow_share = 1.0\n[[stages]]\nweight = 0.2", "weights must grow"),
        ("[[stages]]\nweight = 0.96\nshadow_share = 1.0", "hold_back: 0.05 leaves baking no more traffic"),
        ('[[stages]]\nweight = 0.5\nshadow_share = 1.0\nclear = ["agreement"]', "only enabled guards can be cleared"),
        ("[[stages]]\nweight = 0.5", "agreement and quality are read from mirrored requests"),
        (
            '[[stages]]\nweight = 0.1\nshadow_share = 1.0\nclear = ["latency"]\n[[stages]]\nweight = 0.5',
            "stages.1.clear: latency clears only from half the last weight on (0.25)",
        ),
        (
            '[[stages]]\nshadow_share = 1.0\nclear = ["errors"]\n[[stages]]\nweight = 0.5',
            "stages.1.clear: errors are read from live traffic",
        ),
        ("[guards.errors]\nalpha_share = 0.7", "alpha_share of all enabled guards together must be at most 1, not 1.2"),
        ("[guards.quality]\nharm = 0.02", "guards.quality: harm must be below clear"),
        ("[guards.latency]\nharm_buckets = 8", "guards.latency: harm_buckets must be below clear_buckets"),
        ("[guards.errors]\nharm_ratio = 2.0", "guards.errors: harm_ratio must not be above clear_ratio"),
        ("longest_s = 60.0", "longest_s: it must not be shorter than all stages' soak_s and bake_s"),
    ],
)
def test_a_plan_that_cannot_work_is_refused_with_the_key_and_the_reason(text, complaint):
    with pytest.raises(PlanError) as refusal:
        plan_from_json(tomllib.loads(text))
    assert complaint in str(refusal.value)


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


KEYS = ("stages", "guards", "weight", "shadow_share", "errors", "quality", "alpha", "clear", "harm", "bake_s", "other")
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
