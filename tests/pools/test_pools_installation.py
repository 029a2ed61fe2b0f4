"""Which server is chosen, and what is said where one is missing. Nothing is started here."""

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from rollout.pools.errors import TritonMissingError
from rollout.pools.installation import LIBPYTHON, PYTHON, Places, install, this_machine


def _touch(path: Path) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.touch()
    return path


@pytest.fixture
def wheel(tmp_path: Path) -> Path:
    """A folder laid out as the wheel's package."""
    home = tmp_path / "site-packages" / "pytriton" / "tritonserver"
    _touch(home / "bin" / "tritonserver")
    _touch(home / "backends" / "python" / "libtriton_python.so")
    _touch(home / "backends" / "python" / "triton_python_backend_utils.py")
    _touch(home / "python_backend_stubs" / PYTHON / "triton_python_backend_stub")
    return home.parent


@pytest.fixture
def libraries(tmp_path: Path) -> tuple[Path, ...]:
    return (tmp_path / "nothing", _touch(tmp_path / "lib" / LIBPYTHON).parent)


def test_server_with_the_native_backend_is_preferred(wheel: Path, libraries: tuple[Path, ...], tmp_path: Path) -> None:
    without = _touch(tmp_path / "without" / "bin" / "tritonserver")
    native = _touch(tmp_path / "native" / "bin" / "tritonserver")
    _touch(tmp_path / "native" / "backends" / "onnxruntime" / "libtriton_onnxruntime.so")
    chosen = install(Places((without, native), wheel, libraries), tmp_path / "cache")
    assert (chosen.server, chosen.backends) == (native, tmp_path / "native" / "backends")
    chosen = install(Places((without,), wheel, libraries), tmp_path / "cache")
    assert chosen.server == wheel / "tritonserver" / "bin" / "tritonserver"


def test_backend_directory_holds_real_files_and_is_made_once(
    wheel: Path, libraries: tuple[Path, ...], tmp_path: Path
) -> None:
    with ThreadPoolExecutor(8) as threads:
        places = Places((), wheel, libraries)
        chosen = {made.backends for made in threads.map(lambda _: install(places, tmp_path / "cache"), range(8))}
    [backends] = chosen
    assert [path.name for path in (tmp_path / "cache").iterdir()] == [backends.name]
    files = sorted(path for path in backends.rglob("*") if path.is_file())
    assert [str(path.relative_to(backends)) for path in files] == [
        "onnxruntime/model.py",
        "python/libtriton_python.so",
        "python/triton_python_backend_stub",
        "python/triton_python_backend_utils.py",
    ]
    assert not any(path.is_symlink() for path in files)


def test_environment_leads_to_the_libraries_first(wheel: Path, libraries: tuple[Path, ...], tmp_path: Path) -> None:
    environment = install(Places((), wheel, libraries), tmp_path / "cache").environment
    folders = environment["LD_LIBRARY_PATH"].split(":")
    assert folders[:2] == [str(wheel.parent / "nvidia_pytriton.libs"), str(libraries[1])]


def test_missing_parts_are_told_with_what_to_install(wheel: Path, libraries: tuple[Path, ...], tmp_path: Path) -> None:
    cache = tmp_path / "cache"
    with pytest.raises(TritonMissingError, match=r"pip install --no-deps nvidia-pytriton==0\.7\.0"):
        install(Places((), None, libraries), cache)
    with pytest.raises(TritonMissingError, match=f"{LIBPYTHON} is missing.*apt-get install libpython{PYTHON}"):
        install(Places((), wheel, ()), cache)
    (wheel / "tritonserver" / "bin" / "tritonserver").unlink()
    with pytest.raises(TritonMissingError, match=r"nvidia-pytriton lacks .*bin/tritonserver"):
        install(Places((), wheel, libraries), cache)
    assert not cache.exists()


def test_this_machine_has_what_the_other_tests_need(tmp_path: Path) -> None:
    installation = install(this_machine(), tmp_path)
    assert installation.server.exists()
    assert (installation.backends / "onnxruntime").is_dir()
