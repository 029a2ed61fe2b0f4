"""One run, trained once a session."""

from pathlib import Path

import pytest

from exporter.release import Release
from tests.exporter.tiny import tiny_release, tiny_run


@pytest.fixture(scope="session")
def run_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_run(tmp_path_factory.mktemp("runs") / "tiny")


@pytest.fixture(scope="session")
def exported(run_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Release, Path]:
    """A release and its repository; a test that changes anything works on a copy."""
    repository = tmp_path_factory.mktemp("models")
    return tiny_release(run_folder, repository), repository
