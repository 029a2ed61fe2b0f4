"""Which tritonserver this machine has, and what it needs to run.

Knows where servers are installed and how NVIDIA's wheel is laid out. Must not import that wheel, nor start anything.

A server with the native onnxruntime backend is preferred. Otherwise it is the one of the wheel `nvidia-pytriton`,
which comes without that backend and with its parts in places of their own: a backend directory is put together from
them and our backend, as real files, because Triton refuses links that lead out of it.
"""

import hashlib
import importlib.metadata
import importlib.util
import os
import shutil
import sys
import sysconfig
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from rollout.pools.errors import TritonMissingError

WHEEL = "nvidia-pytriton"
OUR_BACKEND = Path(__file__).parent / "backends" / "onnxruntime" / "model.py"
PYTHON = f"{sys.version_info.major}.{sys.version_info.minor}"
LIBPYTHON = f"libpython{PYTHON}.so.1.0"


@dataclass(frozen=True, slots=True)
class Places:
    """Where to look: servers, best first; the wheel's package folder; folders that may hold libpython."""

    servers: tuple[Path, ...]
    wheel: Path | None
    libraries: tuple[Path, ...]


@dataclass(frozen=True, slots=True)
class Installation:
    """What it takes to start a server: the program, its backends and its environment."""

    server: Path
    backends: Path
    environment: Mapping[str, str]
    version: str


def this_machine() -> Places:
    """The places of this machine. Imports nothing of what it finds."""
    on_path = shutil.which("tritonserver")
    servers = ([Path(on_path).resolve()] if on_path else []) + [Path("/opt/tritonserver/bin/tritonserver")]
    spec = importlib.util.find_spec("pytriton")
    wheel = Path(spec.origin).parent if spec and spec.origin else None
    names = ("LIBDIR", "MULTIARCH", "LIBPL")
    libdir, multiarch, libpl = (sysconfig.get_config_var(name) or "" for name in names)
    folders = (
        f"{sys.prefix}/lib",
        f"{sys.base_prefix}/lib",
        libdir,
        f"{libdir}/{multiarch}",
        libpl,
        f"/usr/lib/{multiarch}",
        "/usr/lib64",
    )
    return Places(tuple(servers), wheel, tuple(Path(folder) for folder in folders if folder))


def install(places: Places, cache: Path) -> Installation:
    """Choose a server, and put its backend directory together below `cache` where that has to be done.

    Raises:
        TritonMissingError: something is missing; the message says what to install.
    """
    for server in places.servers:
        backends = server.parent.parent / "backends"
        if (backends / "onnxruntime" / "libtriton_onnxruntime.so").exists():
            return Installation(server, backends, dict(os.environ), "native")
    if places.wheel is None:
        raise TritonMissingError(
            "there is no Triton on this machine: run `make setup`, or `pip install --no-deps nvidia-pytriton==0.7.0` "
            "into this environment, or install a tritonserver with the onnxruntime backend and put it on PATH"
        )
    return _from_wheel(places.wheel, _libpython(places), cache)


def _libpython(places: Places) -> Path:
    for folder in places.libraries:
        if (folder / LIBPYTHON).exists():
            return folder
    raise TritonMissingError(
        f"{LIBPYTHON} is missing, which Triton's Python backend needs: run `apt-get install libpython{PYTHON}` "
        "(Debian, Ubuntu), or use a Python built with --enable-shared"
    )


def _from_wheel(wheel: Path, libpython: Path, cache: Path) -> Installation:
    home = wheel / "tritonserver"
    parts = {
        "python/libtriton_python.so": home / "backends/python/libtriton_python.so",
        "python/triton_python_backend_utils.py": home / "backends/python/triton_python_backend_utils.py",
        "python/triton_python_backend_stub": home / f"python_backend_stubs/{PYTHON}/triton_python_backend_stub",
        "onnxruntime/model.py": OUR_BACKEND,
    }
    server = home / "bin/tritonserver"
    for part in (server, *parts.values()):
        if not part.exists():
            raise TritonMissingError(
                f"{WHEEL} lacks {part}: run `pip install --force-reinstall --no-deps {WHEEL}==0.7.0`"
            )
    version = importlib.metadata.version(WHEEL)
    return Installation(server, _assemble(parts, cache), _environment(wheel, libpython), f"{WHEEL} {version}")


def _environment(wheel: Path, libpython: Path) -> dict[str, str]:
    """Triton's libraries and libpython are found by LD_LIBRARY_PATH, this environment's packages by PATH."""
    inherited = dict(os.environ)
    libraries = [str(wheel.parent / "nvidia_pytriton.libs"), str(libpython), inherited.get("LD_LIBRARY_PATH", "")]
    programs = [str(Path(sys.prefix) / "bin"), inherited.get("PATH", "")]
    return {
        **inherited,
        "LD_LIBRARY_PATH": ":".join(filter(None, libraries)),
        "PATH": ":".join(filter(None, programs)),
    }


def _assemble(parts: Mapping[str, Path], cache: Path) -> Path:
    """Copy the parts into a folder named by their content. Many may do so at once; one of them is kept."""
    digest = hashlib.sha256(PYTHON.encode())
    for name, part in parts.items():
        digest.update(name.encode() + part.read_bytes())
    target = cache / f"backends-{digest.hexdigest()[:16]}"
    if target.exists():
        return target
    cache.mkdir(parents=True, exist_ok=True)
    staged = Path(tempfile.mkdtemp(dir=cache, prefix=".staging-"))
    staged.chmod(0o755)
    for name, part in parts.items():
        (staged / name).parent.mkdir(exist_ok=True)
        shutil.copy(part, staged / name)
    try:
        staged.rename(target)
    except OSError:
        shutil.rmtree(staged)
        if not target.exists():
            raise
    return target
