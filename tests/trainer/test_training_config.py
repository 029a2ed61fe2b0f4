"""The configuration: every mistake is named, with what to do."""

import json
from pathlib import Path

import pytest

from trainer.config import Config, config_from_table, read_config
from trainer.errors import ConfigError

EXAMPLES = sorted((Path(__file__).parents[2] / "trainer" / "examples").glob("*.toml"))


@pytest.mark.parametrize(
    ("table", "message"),
    [
        ({"training": {"epoch": 3}}, '[training] has the unknown key "epoch"; the nearest known one is "epochs"'),
        ({"trainning": {}}, 'has the unknown section "trainning"; the nearest known one is "training"'),
        ({"training": {"epochs": 0}}, "[training] epochs must be a whole number from 1 to 1000000, not 0"),
        ({"training": {"epochs": True}}, "epochs must be a whole number"),
        ({"training": {"learning_rate": "fast"}}, "learning_rate must be a number from 1e-08 to 10, not 'fast'"),
        ({"model": {"kind": "tree"}}, 'kind must be one of "mlp", "conv", not \'tree\''),
        ({"model": {"hidden": [64, -1]}}, "hidden must be a list of whole numbers from 1 to 65536"),
        ({"data": {"wrong_labels": 1.5}}, "wrong_labels must be a number from 0 to 1, not 1.5"),
        ({"data": 7}, "[data] must be a section, not 7"),
    ],
)
def test_mistake_is_named(table: dict[str, object], message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        config_from_table(table, "it.toml")
    assert message in str(caught.value)
    assert str(caught.value).startswith("it.toml")


def test_whole_numbers_are_taken_where_numbers_are_meant() -> None:
    config = config_from_table({"training": {"learning_rate": 1}}, "it.toml")
    assert config.training.learning_rate == 1.0
    assert isinstance(config.training.learning_rate, float)


def test_json_form_is_read_back_as_it_was() -> None:
    config = config_from_table({"model": {"hidden": [8, 9]}}, "it.toml")
    assert config_from_table(json.loads(json.dumps(config.to_json())), "a manifest") == config


def test_defaults_are_within_their_own_rules() -> None:
    assert config_from_table(Config().to_json(), "the defaults") == Config()


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.stem)
def test_examples_are_valid(path: Path) -> None:
    assert read_config(path).data.source == "digits"


def test_file_that_is_missing_or_no_toml(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="cannot be read"):
        read_config(tmp_path / "none.toml")
    (tmp_path / "bad.toml").write_text("epochs 3")
    with pytest.raises(ConfigError, match="not valid TOML"):
        read_config(tmp_path / "bad.toml")


def test_source_is_relative_to_the_config_file(tmp_path: Path) -> None:
    (tmp_path / "it.toml").write_text('[data]\nsource = "rows.npz"\n')
    assert read_config(tmp_path / "it.toml").data.source == str(tmp_path / "rows.npz")
