"""`sluice plan check`: a plan in plain words, and what it would decide at today's traffic.

Exit codes: 0 it decides in time, 1 it cannot and nobody is asked, 2 it is no plan or the traffic is not known.
"""

import json
import math
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from statistics import NormalDist
from typing import Annotated

import typer
from rich.console import Console
from rich.table import Table

from gateway.windows import bucket_of
from rollout.cli import Url, told
from rollout.client import DEFAULT_URL, ClientError, ControlClient
from rollout.decision.forecast import Forecast, Traffic, clearly_bad, forecast
from rollout.decision.rules import Plan
from rollout.decision.state import Status
from rollout.plain import length
from rollout.plain import told as sentences
from rollout.plan import load_plan, plan_to_json

USUAL_FAILING, USUAL_P50_MS, USUAL_P99_MS = 0.001, 5.0, 20.0
_SLICES = 400
_P99 = NormalDist().inv_cdf(0.99)

plan = typer.Typer(no_args_is_help=True, add_completion=False, help="Look at a plan before it is carried out.")
_out, _err = Console(), Console(stderr=True)


@plan.callback()
def _root() -> None:
    """Look at a plan before it is carried out."""


@plan.command()
def check(
    path: Annotated[Path | None, typer.Argument(metavar="[PLAN]", help="TOML or JSON; without: the default.")] = None,
    model: Annotated[str | None, typer.Option(help="Forecast at this model's traffic of the last minutes.")] = None,
    rate: Annotated[float | None, typer.Option(min=1e-3, help="Or at so many requests/s.")] = None,
    errors: Annotated[float, typer.Option(min=0, max=0.5, help="With --rate: the share that fails.")] = USUAL_FAILING,
    p50_ms: Annotated[float, typer.Option(min=0.001, help="With --rate: the median latency.")] = USUAL_P50_MS,
    p99_ms: Annotated[float, typer.Option(min=0.001, help="With --rate: the 99th percentile.")] = USUAL_P99_MS,
    url: Url = DEFAULT_URL,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON instead.")] = False,
) -> None:
    """Explain a plan, and say how long it takes to decide at today's traffic.

    Examples: sluice plan check plan.toml --model digits; sluice plan check plan.toml --rate 50 --errors 0.01
    """
    with told():
        checked = Plan() if path is None else load_plan(path)
        traffic = _traffic(model, rate, errors, p50_ms, p99_ms, url)
    forecasts = {} if traffic is None else dict(_forecasts(checked, traffic))
    faults = _faults(checked, forecasts)
    if as_json:
        shown = {what: asdict(one) for what, one in forecasts.items()}
        typer.echo(json.dumps({"plan": plan_to_json(checked), "told": list(sentences(checked)), "forecasts": shown,
                               "traffic": traffic and {"rate": traffic.rate, "failing": traffic.failing},
                               "faults": faults}))  # fmt: skip
    else:
        _show(checked, traffic, forecasts)
        for fault in faults:
            _err.print(f"error: {fault}", style="red", markup=False, highlight=False, soft_wrap=True)
    raise typer.Exit(1 if faults else 0)


def _traffic(
    model: str | None, rate: float | None, errors: float, p50_ms: float, p99_ms: float, url: str
) -> Traffic | None:
    """Today's traffic: as told, or as the control plane saw it. Raises ClientError."""
    if rate is not None:
        if p99_ms < p50_ms:
            raise ClientError("--p99-ms must not be below --p50-ms")
        return Traffic(rate, errors, _lognormal(p50_ms, p99_ms))
    if model is None:
        return None
    with ControlClient(url) as client:
        seen = client.get(f"/v1/models/{model}/traffic")
    if not seen["rate"] or not seen["latency"]:
        raise ClientError(f"{model} had no traffic in the last {length(seen['seconds'])}: give --rate")
    return Traffic(seen["rate"], seen["failing"], {int(bucket): share for bucket, share in seen["latency"]})


def _lognormal(p50_ms: float, p99_ms: float) -> dict[int, float]:
    """Shares by bucket of a lognormal latency with these quantiles."""
    spread = math.log(p99_ms / p50_ms) / _P99
    shares: dict[int, float] = {}
    for part in range(_SLICES):
        z = NormalDist().inv_cdf((part + 0.5) / _SLICES)
        bucket = bucket_of(1000 * p50_ms * math.exp(spread * z))
        shares[bucket] = shares.get(bucket, 0.0) + 1 / _SLICES
    return shares


def _forecasts(checked: Plan, traffic: Traffic) -> Iterator[tuple[str, Forecast]]:
    """A good candidate, and for each guard one that is twice outside its clear margin."""
    yield "as good as stable", forecast(checked, traffic)
    for guard in checked.guards.enabled:
        bad = clearly_bad(checked, guard, traffic)
        if bad is not None:
            yield f"{guard.value} twice beyond clear", forecast(checked, traffic, bad)


def _faults(checked: Plan, forecasts: dict[str, Forecast]) -> list[str]:
    """Why this plan should not be left alone with this traffic."""
    good = forecasts.get("as good as stable")
    if good is None or good.status is Status.PROMOTED or checked.approvals.promotion:
        return []
    waiting = "; ".join(good.waiting_for) or "the evidence"
    return [
        f"at this traffic the plan cannot decide by itself within {length(checked.longest_s)}: a good candidate would"
        f" still wait for {waiting}. Raise longest_s, widen that guard's clear margin or set required = false, give"
        " earlier stages a larger weight, or have people decide: approvals.promotion = 1"
    ]


def _show(checked: Plan, traffic: Traffic | None, forecasts: dict[str, Forecast]) -> None:
    for sentence in sentences(checked):
        _out.print(sentence, highlight=False)
    if traffic is None:
        _out.print("How long it takes: give --model MODEL, or --rate REQUESTS_PER_S.", style="dim")
        return
    table = Table("a candidate", "ends", "after", "its requests", "bad ones more", title=_traffic_told(traffic))
    for what, one in forecasts.items():
        ends = one.status.value.replace("_", " ")
        table.add_row(what, ends, length(one.seconds), f"{one.requests:,}", f"{one.bad:,.0f}")
    _out.print(table)


def _traffic_told(traffic: Traffic) -> str:
    return f"on average, at {traffic.rate:,.3g} requests/s of which {100 * traffic.failing:.3g} % fail"
