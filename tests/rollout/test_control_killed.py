"""The control plane is killed after every transaction and every instruction: it comes to the same end."""

import json
import subprocess
import sys
from pathlib import Path

import pytest


@pytest.mark.timeout(300)
def test_killed_after_any_step_it_comes_to_the_same_end_with_the_same_evidence(
    database_url: str, tmp_path: Path
) -> None:
    command = [sys.executable, "-m", "tests.rollout.killing", database_url, str(tmp_path / "plays")]
    played = subprocess.run(command, capture_output=True, text=True, check=True, timeout=280)
    unhurt, *hurt = json.loads(played.stdout)
    assert (unhurt["status"], unhurt["pools"], unhurt.pop("steps") > 40) == ("promoted", [2], True)
    for number, one in enumerate(hurt, start=1):
        one.pop("steps", None)
        assert one == unhurt, f"killed after step {number}"
