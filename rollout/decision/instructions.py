"""Instructions: what the engine wants done, in the imperative. The controller carries them out in the order given.

Knows releases and shares. Knows nothing of servers, addresses or how anything is done. Each is idempotent: carried out
twice, as after a crash, it changes nothing the second time.
"""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from gateway.routes import Candidate, Shadow


@dataclass(frozen=True, slots=True)
class StartPool:
    """Load, warm and check a release; then PoolBecameReady or PoolFailed is told."""

    release: int


@dataclass(frozen=True, slots=True)
class ReplaceRoute:
    """Divide the model's traffic so, with the rollout's salt. Done when the gateways have been given it."""

    stable: int
    candidate: Candidate | None = None
    shadow: Shadow | None = None


@dataclass(frozen=True, slots=True)
class StopPool:
    """Drain a release by its requests in flight, then stop it. It is routed no longer."""

    release: int


@dataclass(frozen=True, slots=True)
class Announce:
    """Tell people."""

    text: str


Instruction = StartPool | ReplaceRoute | StopPool | Announce


def instruction_to_json(instruction: Instruction) -> dict[str, Any]:
    """`{"instruction": name, ...fields}`, to be stored until it is carried out."""
    return {"instruction": type(instruction).__name__, **asdict(instruction)}


def instruction_from_json(data: Mapping[str, Any]) -> Instruction:
    """Read what `instruction_to_json` wrote. Raises ValueError when there is no such instruction."""
    match data["instruction"]:
        case "StartPool":
            return StartPool(data["release"])
        case "StopPool":
            return StopPool(data["release"])
        case "Announce":
            return Announce(data["text"])
        case "ReplaceRoute":
            candidate, shadow = data["candidate"], data["shadow"]
            return ReplaceRoute(
                data["stable"],
                None if candidate is None else Candidate(**candidate),
                None if shadow is None else Shadow(**shadow),
            )
        case unknown:
            raise ValueError(f"there is no instruction {unknown!r}")
