"""Exit codes of the release engineer's commands: the same for every command, so that scripts may branch on them."""

from collections.abc import Mapping
from enum import IntEnum
from typing import Any

from rollout.client import TIME_OUT
from rollout.errors import Code


class Exit(IntEnum):
    """How a command ended."""

    OK = 0
    ERROR = 1
    """Not as wanted, for a reason that no other code has: out of reach, aborted, failed, taken back by people."""
    USAGE = 2
    """A mistake in what was asked for; nothing was changed."""
    ROLLED_BACK = 3
    """By evidence."""
    NOT_ALLOWED = 4
    NOT_FOUND = 5
    CONFLICT = 6
    """Not now, or not any more; nothing was changed."""
    INCONCLUSIVE = 7
    TIME_OUT = 8
    INTERRUPTED = 130


OF_CODE: Mapping[str, Exit] = {
    Code.NOT_FOUND: Exit.NOT_FOUND,
    Code.CONFLICT: Exit.CONFLICT,
    Code.STAGE_CHANGED: Exit.CONFLICT,
    Code.REVISION_CHANGED: Exit.CONFLICT,
    Code.IDEMPOTENCY_REUSED: Exit.CONFLICT,
    Code.REFUSED: Exit.USAGE,
    Code.INVALID: Exit.USAGE,
    Code.TOO_LARGE: Exit.USAGE,
    Code.METHOD_NOT_ALLOWED: Exit.ERROR,
    Code.UNAVAILABLE: Exit.ERROR,
    Code.NOT_LEADER: Exit.ERROR,
    Code.INTERNAL: Exit.ERROR,
    TIME_OUT: Exit.TIME_OUT,
    "": Exit.USAGE,
}
PEOPLE_OR_SERVERS = frozenset({"engineer", "server"})


def of_rollout(found: Mapping[str, Any]) -> Exit:
    """How a rollout ended, as it is shown."""
    by = (found["decision"] or {}).get("by", "")
    if found["status"] == "promoted":
        return Exit.OK
    if by == "inconclusive":
        return Exit.INCONCLUSIVE
    if found["status"] == "rolled_back" and by not in PEOPLE_OR_SERVERS:
        return Exit.ROLLED_BACK
    return Exit.ERROR
