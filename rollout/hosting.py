"""Which kind of pools the settings ask for: Tritons of our own, or those that are already running."""

from pathlib import Path
from typing import Any

from rollout.config import ControlSettings
from rollout.pools.installation import install, this_machine
from rollout.pools.process import TritonHost
from rollout.pools.seam import PoolHost


def host_of(settings: ControlSettings) -> PoolHost[Any]:
    """The host of all pools. Starts and asks nothing."""
    if not settings.triton:
        return TritonHost(settings.home_path)
    # Who has Tritons of our own does not wait until gRPC is imported.
    from rollout.pools.running import RunningHost
    from rollout.pools.triton import Triton

    tritons = [Triton(one.http, one.grpc) for one in settings.triton]
    return RunningHost(settings.home_path, served_path(settings), tritons)


def served_path(settings: ControlSettings) -> Path:
    """The repository that running Tritons read: beside the releases, since it is made of links to them."""
    return settings.repository_path / ".served"


def check_tritons(settings: ControlSettings) -> None:
    """Is there what pools need? Raises PoolError, which says what is missing."""
    if not settings.triton:
        install(this_machine(), settings.home_path / "triton")
        return
    from rollout.pools.triton import Triton

    served_path(settings).mkdir(parents=True, exist_ok=True)
    for one in settings.triton:
        Triton(one.http, one.grpc).check()
