"""Settings of the control plane and of `sluice up`: one TOML file, parsed once, unknown keys refused."""

import difflib
import os
import tomllib
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from rollout.errors import RefusedError

ADDRESS = r"^[^:\s]+:\d{1,5}$"


class TritonSettings(BaseModel):
    """One [[control.triton]] table: a Triton that is already running, by its addresses."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)

    http: str = Field(pattern=ADDRESS)
    grpc: str = Field(pattern=ADDRESS)


class ControlSettings(BaseModel):
    """The [control] table. Times in seconds."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)

    listen: str = Field("127.0.0.1:8080", pattern=ADDRESS)
    home: str = ".sluice"
    """Holds the database, the pools' logs and the gateway's last route table."""
    database: str = ""
    """sqlite:///PATH or postgresql://USER@HOST/NAME; empty: SQLite in `home`. A password is better given by
    SLUICE_DATABASE, which goes before, or by PostgreSQL's own ~/.pgpass."""
    repository: str = "models"
    """The model repository that `sluice export` publishes to."""
    tick_s: float = Field(1.0, gt=0, le=60)
    drain_timeout_s: float = Field(30.0, gt=0)
    gateway_timeout_s: float = Field(30.0, gt=0)
    """A gateway that was not heard of for so long is taken for gone, and not waited for."""
    kept_observations_s: float = Field(86400.0, gt=0)
    """How long windows, samples and labels are kept."""
    triton: tuple[TritonSettings, ...] = Field((), strict=False)
    """Tritons that are already running, to load releases into; with none, each release gets a Triton of its own."""

    @property
    def home_path(self) -> Path:
        return Path(self.home).resolve()

    @property
    def database_url(self) -> str:
        return os.environ.get("SLUICE_DATABASE") or self.database or f"sqlite:///{self.home_path / 'control.db'}"

    @property
    def repository_path(self) -> Path:
        return Path(self.repository).resolve()

    @property
    def url(self) -> str:
        return f"http://{self.listen}"


def load_settings(path: Path | None, **overrides: Any) -> ControlSettings:
    """The [control] table of a TOML file (the [gateway] table is the gateway's business), with overrides.

    Raises:
        RefusedError: the file cannot be read, or a key or value is wrong; the nearest known key is named.
    """
    document: dict[str, Any] = {}
    if path is not None:
        try:
            document = tomllib.loads(path.read_text())
        except (OSError, ValueError) as exc:
            raise RefusedError(f"{path} cannot be read: {exc}") from exc
        _check_keys(document, {"control", "gateway"}, str(path))
    settings = dict(document.get("control", {}))
    _check_keys(settings, set(ControlSettings.model_fields), "[control]")
    _check_tritons(settings.get("triton", []))
    settings.update({key: value for key, value in overrides.items() if value is not None})
    try:
        return ControlSettings(**settings)
    except ValidationError as exc:
        first = exc.errors()[0]
        where = ".".join(str(part) for part in first["loc"])
        raise RefusedError(f"control setting {where!r}: {first['msg']}") from exc


def _check_tritons(tables: Any) -> None:
    if not isinstance(tables, list) or not all(isinstance(table, dict) for table in tables):
        raise RefusedError("[control] triton: write a table [[control.triton]] with http and grpc for each server")
    for table in tables:
        _check_keys(table, set(TritonSettings.model_fields), "[[control.triton]]")


def _check_keys(data: dict[str, Any], known: set[str], where: str) -> None:
    for key in data:
        if key not in known:
            nearest = difflib.get_close_matches(key, known, 1)
            hint = f"did you mean {nearest[0]!r}?" if nearest else f"known are {', '.join(sorted(known))}"
            raise RefusedError(f"{where}: unknown key {key!r}; {hint}")
