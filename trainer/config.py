"""The training configuration: TOML in, frozen objects out, checked once.

Knows every key, its default and its range. Must not know torch, the data or the file system below the config file.
"""

import difflib
import tomllib
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field, fields, replace
from pathlib import Path
from typing import Any

from trainer.errors import ConfigError

DIGITS = "digits"


@dataclass(frozen=True, slots=True)
class Rule:
    """What one value must be. `words` complete the sentence "must be ..."; `convert` makes the stored value."""

    words: str
    holds: Callable[[Any], bool]
    convert: Callable[[Any], Any] = lambda value: value


def _whole(low: int, high: int) -> Rule:
    return Rule(f"a whole number from {low} to {high}", lambda value: type(value) is int and low <= value <= high)


def _number(low: float, high: float) -> Rule:
    return Rule(
        f"a number from {low:g} to {high:g}", lambda value: type(value) in (int, float) and low <= value <= high, float
    )


def _one_of(*choices: str) -> Rule:
    return Rule("one of " + ", ".join(f'"{choice}"' for choice in choices), lambda value: value in choices)


def _sizes(low: int, high: int) -> Rule:
    one = _whole(low, high)
    return Rule(
        f"a list of whole numbers from {low} to {high}",
        lambda value: isinstance(value, list | tuple) and all(one.holds(item) for item in value),
        tuple,
    )


_TEXT = Rule("a text that is not empty", lambda value: isinstance(value, str) and value != "")


def _key(default: Any, rule: Rule) -> Any:
    return field(default=default, metadata={"rule": rule})


@dataclass(frozen=True, slots=True)
class DataConfig:
    """Where the rows come from and how they are divided.

    `source` is "digits" (the 1,797 UCI images inside scikit-learn) or the path of an .npz file, relative to the
    config file. `wrong_labels` is the share of *training* labels replaced by another class; it exists for
    demonstrations and tests of a rollback, never for a model that is meant. `sensitivity` goes into the manifest.
    """

    source: str = _key(DIGITS, _TEXT)
    sensitivity: str = _key("unstated", _one_of("public", "internal", "personal", "unstated"))
    split_seed: int = _key(0, _whole(0, 2**32 - 1))
    wrong_labels: float = _key(0.0, _number(0, 1))


@dataclass(frozen=True, slots=True)
class ModelConfig:
    """`hidden` holds the layer widths of an "mlp", or the channels of a "conv"."""

    kind: str = _key("mlp", _one_of("mlp", "conv"))
    hidden: tuple[int, ...] = _key((64,), _sizes(1, 65_536))
    dropout: float = _key(0.0, _number(0, 0.95))


@dataclass(frozen=True, slots=True)
class TrainingConfig:
    """`threads` is part of the configuration because it changes the order of sums, hence the weights' last bits."""

    epochs: int = _key(20, _whole(1, 1_000_000))
    batch_size: int = _key(32, _whole(1, 1_000_000))
    learning_rate: float = _key(1e-3, _number(1e-8, 10))
    weight_decay: float = _key(0.0, _number(0, 10))
    seed: int = _key(0, _whole(0, 2**32 - 1))
    device: str = _key("auto", _one_of("auto", "cpu", "cuda"))
    threads: int = _key(1, _whole(1, 1024))
    checkpoint_every: int = _key(5, _whole(1, 1_000_000))


@dataclass(frozen=True, slots=True)
class Config:
    """One training, completely."""

    data: DataConfig = DataConfig()
    model: ModelConfig = ModelConfig()
    training: TrainingConfig = TrainingConfig()

    def to_json(self) -> dict[str, Any]:
        """Plain JSON types, so that it compares equal with what was read back."""
        model = {**asdict(self.model), "hidden": list(self.model.hidden)}
        return {"data": asdict(self.data), "model": model, "training": asdict(self.training)}


def read_config(path: Path) -> Config:
    """Parse a TOML file.

    Raises:
        ConfigError: the file is missing, is not TOML, or holds a key or value that is not known.
    """
    try:
        table = tomllib.loads(path.read_text())
    except (OSError, UnicodeDecodeError) as exc:
        raise ConfigError(f"the configuration {path} cannot be read: {exc}") from exc
    except tomllib.TOMLDecodeError as exc:
        raise ConfigError(f"{path} is not valid TOML: {exc}") from exc
    config = config_from_table(table, str(path))
    if config.data.source == DIGITS:
        return config
    source = str((path.parent / config.data.source).resolve())
    return replace(config, data=replace(config.data, source=source))


def config_from_table(table: Mapping[str, Any], where: str) -> Config:
    """Check a parsed table; `where` names it in messages. Raises ConfigError."""
    _check_names(table, [field.name for field in fields(Config)], where, "section")
    return Config(
        data=DataConfig(**_section(DataConfig, table.get("data", {}), f"{where}: [data]")),
        model=ModelConfig(**_section(ModelConfig, table.get("model", {}), f"{where}: [model]")),
        training=TrainingConfig(**_section(TrainingConfig, table.get("training", {}), f"{where}: [training]")),
    )


def _section(kind: type[Any], table: Any, where: str) -> dict[str, Any]:
    if not isinstance(table, Mapping):
        raise ConfigError(f"{where} must be a section, not {table!r}")
    rules: dict[str, Rule] = {key.name: key.metadata["rule"] for key in fields(kind)}
    _check_names(table, list(rules), where, "key")
    for name, value in table.items():
        if not rules[name].holds(value):
            raise ConfigError(f"{where} {name} must be {rules[name].words}, not {value!r}")
    return {name: rules[name].convert(value) for name, value in table.items()}


def _check_names(table: Mapping[str, Any], known: list[str], where: str, what: str) -> None:
    for name in table:
        if name not in known:
            near = difflib.get_close_matches(name, known, n=1, cutoff=0)[0]
            raise ConfigError(f'{where} has the unknown {what} "{name}"; the nearest known one is "{near}"')
