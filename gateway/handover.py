"""Upgrade in place: the supervisor's process becomes the new code, with its sockets, workers, counters and backlog.

What is handed over stands in a memory file whose descriptor the new image finds in its environment. The new code is
asked first, in a process of its own, whether it would start and take what it gets.
"""

import asyncio
import json
import os
import signal
import sys
from collections.abc import Iterable
from typing import Any

from gateway.counters import HISTOGRAM, SLOT_CELLS
from gateway.errors import GatewayError

STATE_FD = "SLUICE_GATEWAY_STATE_FD"
LAYOUT = "SLUICE_GATEWAY_LAYOUT"
CHECK_TIMEOUT_S = 30.0
SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGUSR2, signal.SIGCHLD)
"""They wait from before the exec until the new image handles them: by default they would end it."""

_OURS = json.dumps({"format": 2, "head": HISTOGRAM, "slot": SLOT_CELLS})


def check_layout() -> None:
    """In `--check`, asked by a running supervisor: can this code take over? Raises GatewayError."""
    theirs = os.environ.get(LAYOUT)
    if theirs is not None and theirs != _OURS:
        raise GatewayError("this version cannot take over from the running one: stop the gateway and start it anew")


async def why_not() -> str:
    """Why the code on disk cannot take over from this process; empty when it can."""
    command = [*_command(), "--check"]
    try:
        process = await asyncio.create_subprocess_exec(
            *command, env={**os.environ, LAYOUT: _OURS}, stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.DEVNULL, stderr=asyncio.subprocess.PIPE,
        )  # fmt: skip
        try:
            async with asyncio.timeout(CHECK_TIMEOUT_S):
                _, errors = await process.communicate()
        except TimeoutError:
            process.kill()
            return f"its check took longer than {CHECK_TIMEOUT_S:g} s"
    except OSError as exc:
        return f"it cannot be started: {exc}"
    if process.returncode == 0:
        return ""
    return (errors.decode(errors="replace").strip().splitlines() or [f"exit code {process.returncode}"])[-1]


def become(state: dict[str, Any], fds: Iterable[int]) -> None:
    """Replace this process's image by the code on disk. Returns only by raising OSError."""
    state_fd = os.memfd_create("sluice-handover", os.MFD_CLOEXEC)
    with os.fdopen(state_fd, "w") as file:
        json.dump(state, file)
        file.flush()
        kept = [fd for fd in (*fds, state_fd) if fd >= 0]
        signal.pthread_sigmask(signal.SIG_BLOCK, SIGNALS)
        for fd in kept:
            os.set_inheritable(fd, True)
        try:
            os.execve(sys.executable, _command(), {**os.environ, STATE_FD: str(state_fd)})
        finally:
            for fd in kept:
                os.set_inheritable(fd, False)
            signal.pthread_sigmask(signal.SIG_UNBLOCK, SIGNALS)


def handed_over() -> dict[str, Any] | None:
    """What the supervisor before this one left; None in a fresh start. Its descriptors are no longer inherited."""
    number = os.environ.pop(STATE_FD, None)
    if number is None:
        return None
    with os.fdopen(int(number), "r") as file:
        file.seek(0)
        state: dict[str, Any] = json.load(file)
    for fd in state["fds"]:
        if fd >= 0:
            os.set_inheritable(fd, False)
    return state


def take_signals() -> None:
    """Signals are handled from here on: those that came meanwhile come now."""
    signal.pthread_sigmask(signal.SIG_UNBLOCK, SIGNALS)


def _command() -> list[str]:
    return [sys.executable, *sys.orig_argv[1:]]
