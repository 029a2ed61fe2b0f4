"""Clients that go away at every single step of an exchange, whatever servers do: nothing stays behind.

A step is one callback of the loop, one piece that is sent, or one connection that is taken: between two awaits or
callbacks nothing else can happen. After each the pools are looked at (`Stage.check_rest`).
"""

from collections.abc import Sequence
from dataclasses import dataclass, field

import pytest

from gateway.config import GatewayConfig
from loadtests.fuzz.driver import NARROW, NEVER, REFUSE, TAKE, Act, Driver, Piece, Speaker
from loadtests.fuzz.ends import Got, ServerEnd
from loadtests.fuzz.oracle import answers_to
from loadtests.fuzz.stage import CANDIDATE, SECOND, SHADOW, STABLE, Stage

OK = b"HTTP/1.1 200 OK\r\n"
GOOD = OK + b"content-length: 4\r\n\r\ngood"
LARGE = OK + b"content-length: 200000\r\n\r\n"
CHUNKS = OK + b"transfer-encoding: chunked\r\n\r\n"
CHUNK = b"11170\r\n" + b"x" * 70_000 + b"\r\n"

BEHAVIOURS: dict[str, list[Piece]] = {
    "answers": [GOOD],
    "answers in parts": [GOOD[:9], GOOD[9:40], GOOD[40:-2], GOOD[-2:]],
    "answers much": [LARGE, b"x" * 70_000, b"x" * 70_000, b"x" * 60_000],
    "answers in chunks": [CHUNKS, CHUNK, CHUNK[:50_000], CHUNK[50_000:], b"0\r\n", b"\r\n"],
    "answers until it closes": [OK + b"\r\nhe", b"x" * 70_000, b"llo", Act.FIN],
    "answers twice": [GOOD + GOOD],
    "answers and closes": [GOOD, Act.FIN],
    "says 500": [GOOD.replace(b"200 OK", b"500 Broken")],
    "says 404": [GOOD.replace(b"200 OK", b"404 Gone")],
    "says what is no answer": [b"\x00\x01\r\n\r\n"],
    "closes": [Act.FIN],
    "resets": [Act.RST],
    "closes inside its head": [GOOD[:20], Act.FIN],
    "resets inside its body": [GOOD[:-2], Act.RST],
    "breaks inside much": [LARGE, b"x" * 70_000, b"x" * 20_000, Act.RST],
    "hangs": [],
    "hangs inside its body": [GOOD[:-2]],
}
CONNECTING = (REFUSE, NEVER, NARROW)
BODY = b"x" * 3_000
REQUEST = (
    b"POST /v2/models/%s/infer HTTP/1.1\r\nHost: gw\r\n", b"Content-Length: 3000\r\n\r\n", BODY[:10], BODY[10:],
)  # fmt: skip
IN_CHUNKS = (
    b"POST /v2/models/%s/generate_stream HTTP/1.1\r\nHost: gw\r\nTransfer-Encoding: chunked\r\n",
    b"Expect: 100-continue\r\n\r\n", b"5\r\nhel", b"lo\r\n", b"0\r\n\r\n",
)  # fmt: skip
FIRST_ASKED = {"plain": STABLE, "canary": CANDIDATE, "pair": STABLE, "shadow": STABLE}


@dataclass(frozen=True)
class Scenario:
    """One client's request to `model`. `how` is what its server does first; then, and elsewhere, all answer well."""

    model: str = "plain"
    how: tuple[Piece, ...] = (GOOD,)
    takes: str = TAKE
    request: tuple[bytes, ...] = REQUEST
    is_slow: bool = False
    at: tuple[str, ...] = ()
    """The servers that behave so; empty: the one that is asked first."""
    times: int = 1
    before: tuple[bytes, ...] = ()
    """Another client's request that is there before and holds the one place of the lane."""
    uses: int = 0
    settings: dict[str, int] = field(default_factory=dict)


class Run:
    """A scenario up to a step, at which the client leaves; then everything else goes on."""

    def __init__(self, scenario: Scenario) -> None:
        self.stage = Stage(GatewayConfig(**{"release_in_flight": 1, **scenario.settings}), samples=10)
        self.scenario = scenario
        self.turns = 0
        self.is_odd = False
        self.driver = Driver(self.stage, self._answer, self._takes)

    def _is_at(self, address: str) -> bool:
        return address in (self.scenario.at or (FIRST_ASKED[self.scenario.model],))

    def _answer(self, end: ServerEnd, got: Got | None) -> Sequence[Piece]:
        if got is None:
            return []
        if self.is_odd and self._is_at(end.server.address.decode()) and self.turns < self.scenario.times:
            self.turns += 1
            return self.scenario.how
        return [GOOD]

    def _takes(self, address: str) -> str:
        return self.scenario.takes if self.is_odd and self._is_at(address) else TAKE

    def _next(self) -> bool:
        """One step; when all wait, it is that time passes."""
        if self.driver.step():
            return True
        if not self.stage.dispatcher.in_flight and not self.stage.copies:
            return False
        self.stage.pass_time(0.4)
        self.driver.steps += 1
        return True

    def _quietly(self) -> None:
        while self.driver.step():
            pass

    def play(self, steps: int | None, *, by_reset: bool, then_hang: bool = False) -> int:
        """Returns how many steps there were. `then_hang`: servers say no more after the client left."""
        scenario, driver = self.scenario, self.driver
        with self.stage.running():
            for _ in range(scenario.uses):
                self.driver.client([part.replace(b"%s", scenario.model.encode()) for part in REQUEST])
                self._quietly()
            if scenario.before:
                driver.client([part.replace(b"%s", scenario.model.encode()) for part in scenario.before])
                while driver.clients[-1].pieces:
                    driver.step()
            self.is_odd = True
            first = driver.steps
            speaker = driver.client(
                [part.replace(b"%s", scenario.model.encode()) for part in scenario.request], scenario.is_slow
            )
            while (steps is None or driver.steps - first < steps) and self._next():
                pass
            taken = driver.steps - first
            if steps is not None:
                self._leave_and_settle(speaker, by_reset, then_hang)
            else:
                self._settle()
            return taken

    def _leave_and_settle(self, speaker: Speaker, by_reset: bool, then_hang: bool) -> None:
        self.driver.leave(speaker, by_reset=by_reset)
        if then_hang:
            for pieces in self.driver.said.values():
                pieces.clear()
        self._quietly()
        self._settle()

    def _settle(self) -> None:
        stage = self.stage
        for _ in range(4):  # Deadlines, waits and the time for connecting end.
            stage.pass_time(1.1)
            self._quietly()
        self.is_odd = False
        stage.settle([one.end for one in self.driver.clients])
        model = self.scenario.model.encode()
        other = self.driver.client([part.replace(b"%s", model) for part in REQUEST])
        self._quietly()
        answers = answers_to([b"POST"], bytes(other.end.received), other.end.has_ended)
        assert [(one.status, one.body) for one in answers] == [(200, b"good")]
        stage.settle([other.end])


def every_step(scenario: Scenario, *, then_hang: bool = False) -> int:
    most = Run(scenario).play(None, by_reset=True)
    assert 0 < most < 400
    for by_reset in (True, False):
        for steps in range(most + 1):
            try:
                Run(scenario).play(steps, by_reset=by_reset, then_hang=then_hang)
            except AssertionError as exc:
                exc.add_note(f"{scenario!r}, at step {steps} of {most}, by reset: {by_reset}")
                raise
    return most


@pytest.mark.parametrize("model", FIRST_ASKED)
@pytest.mark.parametrize("how", BEHAVIOURS)
def test_a_client_may_leave_at_any_step(model: str, how: str) -> None:
    every_step(Scenario(model, tuple(BEHAVIOURS[how])))


@pytest.mark.parametrize("model", FIRST_ASKED)
@pytest.mark.parametrize("takes", CONNECTING)
def test_a_client_may_leave_while_connections_are_made(model: str, takes: str) -> None:
    every_step(Scenario(model, takes=takes))


@pytest.mark.parametrize("how", BEHAVIOURS)
def test_a_client_may_leave_a_server_that_then_says_no_more(how: str) -> None:
    every_step(Scenario("canary", tuple(BEHAVIOURS[how])), then_hang=True)
    every_step(Scenario("shadow", tuple(BEHAVIOURS[how])), then_hang=True)


@pytest.mark.parametrize("how", BEHAVIOURS)
def test_a_client_may_leave_when_nobody_answers_well(how: str) -> None:
    pieces = tuple(BEHAVIOURS[how])
    every_step(Scenario("canary", pieces, at=(CANDIDATE, STABLE), times=3))
    every_step(Scenario("pair", pieces, at=(STABLE, SECOND), times=3))


@pytest.mark.parametrize("how", BEHAVIOURS)
def test_a_client_may_leave_while_it_is_copied(how: str) -> None:
    every_step(Scenario("shadow", tuple(BEHAVIOURS[how]), at=(SHADOW,)))


@pytest.mark.parametrize("takes", CONNECTING)
def test_a_client_may_leave_while_its_copy_is_connected(takes: str) -> None:
    every_step(Scenario("shadow", takes=takes, at=(SHADOW,)))


@pytest.mark.parametrize("how", ["answers much", "answers in chunks", "answers until it closes", "breaks inside much"])
@pytest.mark.parametrize("model", ["plain", "canary"])
def test_a_client_that_does_not_read_may_leave(model: str, how: str) -> None:
    every_step(Scenario(model, tuple(BEHAVIOURS[how]), is_slow=True))
    every_step(Scenario(model, tuple(BEHAVIOURS[how]), is_slow=True), then_hang=True)


@pytest.mark.parametrize("how", BEHAVIOURS)
def test_a_client_that_streams_may_leave(how: str) -> None:
    every_step(Scenario("canary", tuple(BEHAVIOURS[how]), request=IN_CHUNKS))


@pytest.mark.parametrize("how", BEHAVIOURS)
@pytest.mark.parametrize("model", ["plain", "canary"])
def test_a_client_may_leave_a_kept_connection(model: str, how: str) -> None:
    """One that was used before, so that it may turn out to be closed, and the request is sent again."""
    every_step(Scenario(model, tuple(BEHAVIOURS[how]), uses=1))


@pytest.mark.parametrize("how", ["answers in parts", "hangs", "resets", "says 500"])
@pytest.mark.parametrize("model", ["plain", "canary", "shadow"])
def test_a_client_may_leave_while_it_waits_for_its_turn(model: str, how: str) -> None:
    pieces = tuple(BEHAVIOURS[how])
    every_step(Scenario(model, pieces, before=REQUEST, times=2))
    every_step(Scenario(model, pieces, before=REQUEST, times=2, settings={"release_waiting": 0}))
    every_step(Scenario(model, pieces, before=REQUEST, takes=NEVER))


@pytest.mark.parametrize("how", ["answers in parts", "answers in chunks", "hangs", "resets inside its body"])
def test_a_client_may_leave_between_pipelined_requests(how: str) -> None:
    pipelined = (b"".join(REQUEST) * 2, *REQUEST[:3])
    every_step(Scenario("canary", tuple(BEHAVIOURS[how]), request=pipelined, times=2))
