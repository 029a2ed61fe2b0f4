"""Which kind of pools the settings ask for, and what is said where they are wrong."""

from pathlib import Path

import pytest

from rollout.config import load_settings
from rollout.errors import RefusedError
from rollout.hosting import check_tritons, host_of
from rollout.pools import kernel
from rollout.pools.errors import PoolError
from rollout.pools.process import TritonHost
from rollout.pools.running import RunningHost

TWO = """
[[control.triton]]
http = "10.0.0.1:8000"
grpc = "10.0.0.1:8001"
[[control.triton]]
http = "10.0.0.2:8000"
grpc = "10.0.0.2:8001"
"""


def _config(folder: Path, text: str) -> Path:
    path = folder / "sluice.toml"
    path.write_text(text)
    return path


def test_without_tritons_each_release_gets_its_own(tmp_path: Path) -> None:
    assert isinstance(host_of(load_settings(_config(tmp_path, "[control]"))), TritonHost)


def test_tritons_that_are_given_are_used(tmp_path: Path) -> None:
    host = host_of(load_settings(_config(tmp_path, TWO), home=str(tmp_path)))
    assert isinstance(host, RunningHost)
    assert repr(host) == "RunningHost(10.0.0.1:8000, 10.0.0.2:8000)"


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("[[control.triton]]\nhttp = 'a:1'\ngprc = 'a:2'", r"\[\[control.triton\]\]: unknown key 'gprc'.*'grpc'"),
        ("[[control.triton]]\nhttp = 'a:1'", "'triton.0.grpc': Field required"),
        ("[[control.triton]]\nhttp = 'a'\ngrpc = 'a:2'", "'triton.0.http': String should match"),
        ("[control.triton]\nhttp = 'a:1'\ngrpc = 'a:2'", r"write a table \[\[control.triton\]\]"),
        ("[control]\ntritons = ['a:1']", "unknown key 'tritons'; did you mean 'triton'"),
    ],
)
def test_wrong_settings_say_what_is_wrong(tmp_path: Path, text: str, says: str) -> None:
    with pytest.raises(RefusedError, match=says):
        load_settings(_config(tmp_path, text))


def test_triton_that_is_not_there_is_named_before_anything_starts(tmp_path: Path) -> None:
    (port,) = kernel.free_ports(1)
    text = f"[[control.triton]]\nhttp = '127.0.0.1:{port}'\ngrpc = '127.0.0.1:{port}'"
    settings = load_settings(_config(tmp_path, text), repository=str(tmp_path / "models"))
    with pytest.raises(PoolError, match=f"no Triton answers HTTP at 127.0.0.1:{port}"):
        check_tritons(settings)
