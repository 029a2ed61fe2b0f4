"""What happens next, one thing at a time: a callback, a piece of a request or an answer, a connection taken or not."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from enum import Enum
from typing import Any

from loadtests.fuzz.ends import ClientEnd, Got, ServerEnd
from loadtests.fuzz.stage import Dial, Stage
from loadtests.fuzz.wire import Wire


class Act(Enum):
    """What a server does besides sending bytes."""

    FIN = "closes"
    RST = "resets"
    READ = "reads what was sent to it"


Piece = bytes | Act
Answering = Callable[[ServerEnd, Got | None], Sequence[Piece]]
"""What a server answers to a request; None: only its first bytes came."""
NEVER, REFUSE, TAKE, NARROW = "never", "refuse", "take", "narrow"
"""What becomes of a connection that is made; a narrow one reads nothing before `Act.READ`."""


@dataclass(slots=True)
class Speaker:
    """A client that still has something to send. `slow` ones read nothing."""

    end: ClientEnd
    pieces: list[bytes]
    is_slow: bool = False


@dataclass(slots=True)
class Driver:
    """All that can happen on a stage, and the one who makes it happen."""

    stage: Stage
    answering: Answering
    takes: Callable[[str], str] = lambda address: TAKE
    clients: list[Speaker] = field(default_factory=list)
    said: dict[int, list[Piece]] = field(default_factory=dict)
    """What servers have still to say, by the id of their end."""
    ends: dict[int, ServerEnd] = field(default_factory=dict)
    steps: int = 0

    def __post_init__(self) -> None:
        for server in self.stage.servers.values():
            server.answer = self._got
            server.begun = self._begun

    def client(self, pieces: Sequence[bytes], is_slow: bool = False) -> Speaker:
        speaker = Speaker(self.stage.client(), list(pieces), is_slow)
        if is_slow:
            speaker.end.wire.room = 0
        self.clients.append(speaker)
        return speaker

    def options(self) -> list[tuple[Callable[..., Any], Any]]:
        """What could happen next."""
        found: list[tuple[Callable[..., Any], Any]] = []
        if not self.stage.loop.is_idle:
            found.append((self._turn, None))
        found += [(self._send, one) for one in self.clients if one.pieces]
        found += [(self._call, dial) for dial in self.stage.dials if self.takes(dial.address) is not NEVER]
        found += [(self._say, end) for key, end in self.ends.items() if self.said[key]]
        return found

    def step(self, choose: Callable[[int], int] = lambda number: 0) -> bool:
        """Let one thing happen; False when nothing can."""
        options = self.options()
        if not options:
            return False
        self.steps += 1
        act, of = options[choose(len(options))]
        act(of)
        return True

    def leave(self, speaker: Speaker, *, by_reset: bool) -> None:
        speaker.pieces.clear()
        speaker.end.leave(by_reset=by_reset)

    def _turn(self, _: None) -> None:
        self.stage.loop.step()

    def _send(self, speaker: Speaker) -> None:
        speaker.end.send(speaker.pieces.pop(0))
        if speaker.end.wire.is_closing():
            speaker.pieces.clear()

    def _call(self, dial: Dial) -> None:
        how = self.takes(dial.address)
        if how is REFUSE:
            self.stage.refuse_call(dial)
            return
        end = self.stage.take_call(dial)
        if end is not None and how is NARROW:
            end.wire.room = 0
            self._plan(end, [Act.READ])

    def _say(self, end: ServerEnd) -> None:
        piece = self.said[id(end)].pop(0)
        wire: Wire = end.wire
        if piece is Act.FIN:
            wire.feed_eof()
        elif piece is Act.RST:
            wire.reset()
        elif piece is Act.READ:
            wire.take(None)
        elif isinstance(piece, bytes) and not wire.is_lost:
            wire.feed(piece)
        if end.is_closed:
            self.forget(end)

    def forget(self, end: ServerEnd) -> None:
        self.said.pop(id(end), None)
        self.ends.pop(id(end), None)

    def _begun(self, end: ServerEnd) -> None:
        """Of what it had still to say nothing comes: HTTP/1.1 cannot tell a late second answer from the next one."""
        self.said.pop(id(end), None)
        self._plan(end, self.answering(end, None))

    def _got(self, end: ServerEnd, got: Got) -> None:
        self._plan(end, self.answering(end, got))

    def _plan(self, end: ServerEnd, pieces: Sequence[Piece]) -> None:
        self.ends[id(end)] = end
        self.said.setdefault(id(end), []).extend(pieces)
