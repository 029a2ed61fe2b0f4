"""What workers say of themselves every second, summed up: gauges over the living, counters over all there ever were."""

from collections import Counter
from collections.abc import Mapping
from typing import Any

from gateway.channel import Message


class WorkerStates:
    """By the region of each worker; a region is used again when its worker has left."""

    def __init__(self) -> None:
        self._gauges: dict[int, Mapping[str, int]] = {}
        self._counted: dict[int, Mapping[str, int]] = {}
        self._refused: dict[int, Mapping[str, int]] = {}
        self._counted_before: Counter[str] = Counter()
        self._refused_before: Counter[str] = Counter()

    def heard(self, region: int, message: Message) -> None:
        if "gauges" in message:
            self._gauges[region] = message["gauges"]
            self._counted[region] = message["counted"]
            self._refused[region] = message["refused"]

    def left(self, region: int) -> None:
        self._gauges.pop(region, None)
        self._counted_before.update(self._counted.pop(region, {}))
        self._refused_before.update(self._refused.pop(region, {}))

    def gauges(self) -> dict[str, int]:
        return _sum({}, self._gauges)

    def counted(self) -> dict[str, int]:
        return _sum(self._counted_before, self._counted)

    def refused(self) -> dict[str, int]:
        """Requests and connections that the gateway itself refused, by status."""
        return _sum(self._refused_before, self._refused)

    def to_json(self) -> dict[str, Any]:
        return {
            "gauges": self._gauges, "counted": self._counted, "refused": self._refused,
            "before": [self._counted_before, self._refused_before],
        }  # fmt: skip

    def restore(self, data: Mapping[str, Any]) -> None:
        self._gauges, self._counted, self._refused = (
            {int(region): numbers for region, numbers in data[kind].items()}
            for kind in ("gauges", "counted", "refused")
        )
        self._counted_before, self._refused_before = map(Counter, data["before"])


def _sum(before: Mapping[str, int], now: Mapping[int, Mapping[str, int]]) -> dict[str, int]:
    total = Counter(before)
    for numbers in now.values():
        total.update(numbers)
    return dict(total)
