"""The bench's load, in a process of its own. Prints what it measured as JSON.

    python -m loadtests.bench.client '{"address": "127.0.0.1:8000", "body": "small_json", ...}'

Written on bare protocols: what it costs is taken from the same cores as the proxy that it measures. It tells its own
CPU time for a request, so that one sees when it was the narrowest part: then requests/s is the load's more than the
proxy's, and the proxy's CPU time for a request is still right.
"""

import gc
import json
import math
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from time import perf_counter, process_time

import uvloop

from loadtests.bench.asking import BODIES, requests_for
from loadtests.bench.loads import Closed, Load, Open, finish, loading, unless_failed
from loadtests.errors import BenchError

LAST_ANSWERS_S = 15.0
"""More than any deadline here."""


@dataclass(frozen=True, slots=True)
class Ask:
    """What to send: `body` is a key of BODIES; `warm_s` is sent first and not timed.

    `rate_per_s` 0 is a closed loop, else requests are sent at planned times. `models` as in `asking.model_names`.
    """

    address: str
    body: str
    connections: int
    warm_s: float
    seconds: float
    rate_per_s: float = 0.0
    models: int = 0


@dataclass(frozen=True, slots=True)
class Got:
    """What came of it. `answered` counts the warm-up too, `timed` does not; `cpu_us` is the client's, for a request."""

    answered: int
    timed: int
    seconds: float
    p50_us: float
    p99_us: float
    cpu_us: float


async def run(ask: Ask, last_answers_s: float = LAST_ANSWERS_S) -> Got:
    """Raises BenchError when any request was not answered with 200."""
    requests = requests_for(BODIES[ask.body](), ask.address, ask.models)
    load: Load = Open(requests, ask.rate_per_s) if ask.rate_per_s else Closed(requests)
    async with loading(load, ask.address, ask.connections):
        await unless_failed(load, ask.warm_s)
        warmed, began, cpu_s = len(load.latencies_us), perf_counter(), process_time()
        await unless_failed(load, ask.seconds)
        timed, seconds, cpu_s = sorted(load.latencies_us[warmed:]), perf_counter() - began, process_time() - cpu_s
        await finish(load, last_answers_s)
    answered, p50_us, p99_us = len(load.latencies_us), quantile(timed, 0.5), quantile(timed, 0.99)
    return Got(answered, len(timed), seconds, p50_us, p99_us, cpu_s * 1e6 / max(1, len(timed)))


def quantile(ordered: Sequence[float], p: float) -> float:
    """The p-quantile by nearest rank. Raises BenchError without values."""
    if not ordered:
        raise BenchError("no request was answered in time")
    return ordered[max(1, math.ceil(p * len(ordered))) - 1]


def main() -> None:
    ask = Ask(**json.loads(sys.argv[1]))
    gc.disable()  # A collection would be measured as the proxy's latency.

    async def play() -> Got:
        return await run(ask)

    try:
        got = uvloop.run(play())
    except (BenchError, OSError, ValueError) as exc:
        raise SystemExit(f"{exc}") from exc
    sys.stdout.write(json.dumps(asdict(got)))


if __name__ == "__main__":
    main()
