"""`sluice doctor`: what this machine has, what is missing, and how to get it."""

import importlib.util
import json
import shutil
import sys
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from rollout.pools.errors import PoolError
from rollout.pools.installation import install, this_machine

SHM_BYTES_LEAST = 64 * 1024 * 1024
DISK_BYTES_LEAST = 1024**3


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing looked at; `cure` says how to get it when it is missing."""

    what: str
    is_good: bool
    seen: str
    cure: str = ""


def doctor(as_json: Annotated[bool, typer.Option("--json", help="Print JSON instead.")] = False) -> None:
    """Say what is missing on this machine and how to get it. Exit code 1 when something is."""
    findings = list(examine())
    if as_json:
        typer.echo(json.dumps([asdict(one) for one in findings]))
    else:
        table = Table("", "what", "seen", "what to do")
        for one in findings:
            mark = "[green]ok[/]" if one.is_good else "[red]missing[/]"
            table.add_row(mark, one.what, one.seen, "" if one.is_good else escape(one.cure))
        Console().print(table)
    raise typer.Exit(0 if all(one.is_good for one in findings) else 1)


def examine() -> Iterator[Finding]:
    version = f"{sys.version_info.major}.{sys.version_info.minor}"
    is_known = (3, 11) <= sys.version_info[:2] <= (3, 13)
    yield Finding("Python 3.11 to 3.13", is_known, version, "make a virtual environment with one of them")
    for package, needed_for in (("torch", "train"), ("onnx", "export"), ("onnxruntime", "serve"), ("locust", "load")):
        has = importlib.util.find_spec(package) is not None
        cure = f"make setup, or: pip install --editable '.[{needed_for}]'"
        yield Finding(f"package {package}", has, "installed" if has else "no", cure)
    yield _triton()
    yield _space("shared memory", Path("/dev/shm"), SHM_BYTES_LEAST, "enlarge /dev/shm (in a container: --shm-size=1g)")
    yield _space("disk here", Path.cwd(), DISK_BYTES_LEAST, "free some space, or run elsewhere")
    yield _gpu()


def _triton() -> Finding:
    try:
        with tempfile.TemporaryDirectory() as cache:
            installation = install(this_machine(), Path(cache))
    except PoolError as exc:
        return Finding("Triton", False, "no", str(exc))
    return Finding("Triton", True, f"{installation.server.name} ({installation.version})")


def _space(what: str, path: Path, least: int, cure: str) -> Finding:
    measure: Callable[[Path], shutil._ntuple_diskusage] = shutil.disk_usage
    free = measure(path).free if path.exists() else 0
    return Finding(what, free >= least, f"{free / 1024**3:.1f} GiB free", cure)


def _gpu() -> Finding:
    has = shutil.which("nvidia-smi") is not None
    return Finding("GPU (optional)", True, "found" if has else "none: everything runs on the CPU")
