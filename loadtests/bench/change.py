"""The load under which a route table changes: it puts the new table in place itself, so that one clock times all.

    python -m loadtests.bench.change '{"address": "127.0.0.1:8000", "staged": ..., "watched": ..., ...}'

An open loop over all models of the table. A table is active when the last answer from the old one has come.
"""

import gc
import json
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from time import perf_counter

import uvloop

from loadtests.bench.asking import BODIES, requests_for
from loadtests.bench.loads import Open, finish, loading, unless_failed
from loadtests.errors import BenchError

LAST_ANSWERS_S = 15.0
_RELEASE = b"x-sluice-release: "


@dataclass(frozen=True, slots=True)
class Change:
    """`staged` is renamed to `watched` after `warm_s` and `quiet_s`; then it is watched for `after_s`.

    The old table answers from another release than the new one, whose number is `release`.
    """

    address: str
    connections: int
    rate_per_s: float
    models: int
    staged: str
    watched: str
    release: int
    warm_s: float
    quiet_s: float
    after_s: float


@dataclass(frozen=True, slots=True)
class Answer:
    """Times in seconds of one clock: when it was due to be asked for, and when it came."""

    due_s: float
    came_s: float
    is_new: bool


@dataclass(frozen=True, slots=True)
class Changed:
    """How long the old table answered after the change; the longest latencies before and after."""

    active_ms: float
    spike_ms: float
    quiet_ms: float


async def run(change: Change) -> Changed:
    """Raises BenchError when the table did not become active, or a request was not answered with 200."""
    answers: list[Answer] = []
    new = b"/%d\r" % change.release

    def heard(due_s: float, came_s: float, data: bytes) -> None:
        at = data.find(_RELEASE)
        answers.append(Answer(due_s, came_s, new in data[at : data.find(b"\n", at)]))

    requests = requests_for(BODIES["small_json"](), change.address, change.models)
    load = Open(requests, change.rate_per_s, heard)
    async with loading(load, change.address, change.connections):
        await unless_failed(load, change.warm_s)
        answers.clear()
        await unless_failed(load, change.quiet_s)
        changed_s = perf_counter()
        Path(change.staged).replace(change.watched)
        await unless_failed(load, change.after_s)
        await finish(load, LAST_ANSWERS_S)
    return judged(answers, changed_s)


def judged(answers: Sequence[Answer], changed_s: float) -> Changed:
    """What these answers say of a change at that time. They are in the order in which they came.

    Raises BenchError when there was nothing to see: no old answer before, or an old one in the last tenth.
    """
    if not answers or answers[0].is_new:
        raise BenchError("nothing was answered from the old route table before the change")
    if not all(answer.is_new for answer in answers[-max(1, len(answers) // 10) :]):
        raise BenchError("the new route table did not become active: the old one went on answering")
    old_s = max(answer.came_s for answer in answers if not answer.is_new)
    before = [answer.came_s - answer.due_s for answer in answers if answer.came_s < changed_s]
    after = [answer.came_s - answer.due_s for answer in answers if answer.came_s >= changed_s]
    return Changed(max(0.0, old_s - changed_s) * 1e3, max(after) * 1e3, max(before, default=0.0) * 1e3)


def main() -> None:
    change = Change(**json.loads(sys.argv[1]))
    gc.disable()  # A collection would be measured as the gateway's latency.

    async def play() -> Changed:
        return await run(change)

    try:
        changed = uvloop.run(play())
    except (BenchError, OSError, ValueError) as exc:
        raise SystemExit(f"{exc}") from exc
    sys.stdout.write(json.dumps(asdict(changed)))


if __name__ == "__main__":
    main()
