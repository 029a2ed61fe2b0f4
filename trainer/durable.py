"""Files that are there completely or not at all, whatever kills the process or the machine.

Knows the order that makes it so: write beside, flush to disk, rename, flush the folder. Must not know what is written.
"""

import os
from pathlib import Path


def write_durably(path: Path, data: bytes) -> None:
    """Replace `path` with `data` in one step. A killed writer leaves at most a `.NAME.PID` file beside it."""
    beside = path.with_name(f".{path.name}.{os.getpid()}")
    with beside.open("wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())
    beside.replace(path)
    sync_folder(path.parent)


def sync_folder(folder: Path) -> None:
    """Make renames and removals in `folder` survive a power cut."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
