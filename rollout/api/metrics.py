"""The control plane's Prometheus metrics: what the controller counted, and how all stands when it is asked."""

from collections.abc import Iterator

from fastapi import APIRouter, Response
from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, generate_latest
from prometheus_client.core import GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from rollout.api.context import Context, Given
from rollout.api.refusals import documented
from rollout.store import observations, rollouts

router = APIRouter(tags=["catalogue"])


@router.get(
    "/metrics", response_class=Response, responses={200: {"content": {"text/plain": {}}}, **documented()}
)  # fmt: skip
def metrics(context: Given) -> Response:
    """In Prometheus's text form."""
    standing = CollectorRegistry()
    standing.register(Standing(context))
    text = generate_latest(context.controller.watched.registry) + generate_latest(standing)
    return Response(text, media_type=CONTENT_TYPE_LATEST)


class Standing(Collector):
    """Looked up at every scrape."""

    def __init__(self, context: Context) -> None:
        self._context = context

    def collect(self) -> Iterator[Metric]:
        context = self._context
        with context.leadership.reading() as connection:
            owed = len(rollouts.owed(connection))
            under_way = rollouts.statuses(connection)
            missing = sum(gap.missing for gap in observations.gaps(connection))
        yield _gauge("leads", "Does this control plane lead?", int(context.leadership.term is not None))
        yield _gauge("owed_instructions", "Instructions that are not carried out yet.", owed)
        yield _gauge("missing_windows", "Windows that gateways numbered and that were not kept.", missing)
        yield _gauge("gateways", "Gateways heard of lately.", len(context.routing.gateways))
        yield _gauge("failing_pools", "Pools that die or do not start.", len(context.controller.failing()))
        yield _gauge("route_table_version", "The table in force.", context.routing.table.version)
        family = GaugeMetricFamily("sluice_control_rollouts", "Rollouts under way.", labels=["status"])
        for status, count in under_way.items():
            family.add_metric([status], count)
        yield family


def _gauge(name: str, said: str, value: float) -> Metric:
    return GaugeMetricFamily(f"sluice_control_{name}", said, value=value)
