"""A worker as its supervisor sees it: a child process and the line to it. Started here, or adopted from an older image.

Processes are known by their ids alone and are waited for on SIGCHLD, so that a supervisor that was replaced in place
goes on with the children of the one before it.
"""

import asyncio
import contextlib
import json
import os
import signal
import socket
import sys
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from typing import Any

from gateway.channel import Line, Message
from gateway.config import GatewayConfig


@dataclass(frozen=True, slots=True)
class Post:
    """What a worker is given. `place` is its number in its generation, which is the number of the reload before it."""

    region: int
    generation: int
    place: int


Heard = Callable[["WorkerProcess", Message], None]


class WorkerProcess:
    """One worker, until it is gone."""

    line: Line

    def __init__(self, post: Post, pid: int, heard: Heard) -> None:
        self.post = post
        self.pid = pid
        self.exit_code: int | None = None
        self.has_begun = asyncio.Event()
        """Set when it serves, and when it is gone without that."""
        self.applied_version = -1
        self.is_ready = self.is_draining = False
        self._heard = heard

    def __repr__(self) -> str:
        return f"<Worker pid={self.pid} generation={self.post.generation} {self.state} table={self.applied_version}>"

    @property
    def state(self) -> str:
        return "draining" if self.is_draining else "serving" if self.is_ready else "starting"

    @staticmethod
    def start(
        config: GatewayConfig, post: Post, fds: Mapping[str, int], awaits_table: bool, heard: Heard
    ) -> "WorkerProcess":
        """Start one. Raises OSError. `awaits_table`: one is on its way, and is to be applied before serving."""
        ours, theirs = socket.socketpair()
        try:
            with theirs:
                given = {**fds, "channel_fd": theirs.fileno()}
                settings = {"config": asdict(config), "awaits_table": awaits_table, **asdict(post), **given}
                pid = os.posix_spawn(
                    sys.executable,
                    [sys.executable, "-m", "gateway.worker", json.dumps(settings)],
                    os.environ,
                    file_actions=[
                        (os.POSIX_SPAWN_DUP2, fd, fd) for fd in given.values()
                    ],  # Onto itself: it is inherited.
                    setsigmask=(),
                    setsigdef=(signal.SIGPIPE,),
                )
        except BaseException:
            ours.close()
            raise
        worker = WorkerProcess(post, pid, heard)
        worker.line = Line(ours, worker._take)
        return worker

    def kill(self) -> None:
        if self.exit_code is None:
            with contextlib.suppress(ProcessLookupError):
                os.kill(self.pid, signal.SIGKILL)

    def reap(self) -> bool:
        """Is it gone? Then what it said last has been taken."""
        if self.exit_code is None:
            try:
                pid, status = os.waitpid(self.pid, os.WNOHANG)
            except ChildProcessError:
                pid, status = self.pid, 0
            if not pid:
                return False
            self.exit_code = os.waitstatus_to_exitcode(status)
            self.line.close()
            self.has_begun.set()
        return True

    def drain(self) -> None:
        self.is_draining = True
        self.line.say({"drain": True})

    def _take(self, message: Message) -> None:
        if "ready" in message:
            self.is_ready = True
            self.has_begun.set()
        if "applied" in message:
            self.applied_version = message["applied"]
        self._heard(self, message)

    # Handed over to a new supervisor

    def to_json(self) -> dict[str, Any]:
        names = ("pid", "applied_version", "is_ready", "is_draining")
        return {"post": asdict(self.post), "line": self.line.to_json()} | {name: getattr(self, name) for name in names}

    @staticmethod
    def adopt(data: Mapping[str, Any], heard: Heard) -> "WorkerProcess":
        worker = WorkerProcess(Post(**data["post"]), data["pid"], heard)
        worker.line = Line.restore(data["line"], worker._take)
        worker.applied_version = data["applied_version"]
        worker.is_ready, worker.is_draining = data["is_ready"], data["is_draining"]
        if worker.is_ready:
            worker.has_begun.set()
        return worker
