"""The records of releases in running Tritons, by which a control plane that was killed knows what it has loaded.

Knows `HOME/tritons/MODEL/NUMBER.json`. Must not load or unload anything.

A record is written before its release is loaded, and again once it is ready. It stays when the release is unloaded, so
that its number is never used for other bytes. Whoever changes a model holds its folder's lock (`records.locked`).
"""

import hashlib
import json
from collections.abc import Iterable
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Any

from exporter.release import Release
from rollout.pools.published import Settings
from rollout.pools.records import write_json


class State(StrEnum):
    LOADING = "loading"
    LOADED = "loaded"
    UNLOADED = "unloaded"


@dataclass(frozen=True, slots=True)
class LoadedPool:
    """A pool that is one release in Tritons with others. Not all of them need to have it: one may be down."""

    model: str
    release: int
    addresses: tuple[str, ...]

    @property
    def name(self) -> str:
        return f"{self.model}/{self.release}"

    def to_json(self) -> dict[str, Any]:
        return {"model": self.model, "release": self.release, "addresses": list(self.addresses)}


@dataclass(frozen=True, slots=True)
class Record:
    """A release that was loaded once: which bytes, with which settings, and what became of it."""

    pool: LoadedPool
    digest: str
    settings: Settings
    state: State


def digest_of(release: Release) -> str:
    """One digest of all its files."""
    return hashlib.sha256(json.dumps(dict(release.files), sort_keys=True).encode()).hexdigest()


def model_folder(home: Path, model: str) -> Path:
    return home / "tritons" / model


def model_folders(home: Path) -> list[Path]:
    return sorted(path for path in (home / "tritons").glob("*") if path.is_dir())


def write_record(folder: Path, record: Record) -> None:
    data = {**record.pool.to_json(), "digest": record.digest, "settings": record.settings, "state": record.state}
    write_json(folder / f"{record.pool.release}.json", data)


def read_records(folder: Path) -> dict[int, Record]:
    """A model's records by number. A damaged one counts as none."""
    read = (_read(path) for path in sorted(folder.glob("*.json")))
    return {record.pool.release: record for record in read if record is not None}


def in_state(records: Iterable[Record], state: State) -> list[Record]:
    return [record for record in records if record.state is state]


def _read(path: Path) -> Record | None:
    try:
        data = json.loads(path.read_text())
        pool = LoadedPool(data["model"], data["release"], tuple(data["addresses"]))
        return Record(pool, data["digest"], data["settings"], State(data["state"]))
    except (OSError, ValueError, KeyError, TypeError):
        return None
