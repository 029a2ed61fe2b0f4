"""What the gateway tells of itself: counts every second to the control plane, and a reading for /metrics."""

import time
from collections.abc import Mapping
from typing import Any

from gateway.channel import Message
from gateway.control import ControlLink
from gateway.crew import Crew
from gateway.ledger import Ledger
from gateway.metrics import Seen
from gateway.states import WorkerStates


class Reporter:
    """Reads the ledger and queues reports. `link` is None without a control plane."""

    def __init__(self, gateway: str, boot: str, ledger: Ledger, link: ControlLink | None) -> None:
        self._gateway, self._boot = gateway, boot
        self._ledger = ledger
        self._link = link
        self._reports = 0
        self._samples: list[dict[str, Any]] = []
        self._labels: list[dict[str, Any]] = []
        self.takes_labels = True
        self.states = WorkerStates()
        self.seen = Seen({}, {}, -1, 0, 0, False)

    def heard(self, region: int, message: Message) -> None:
        self.states.heard(region, message)
        self._samples += message.get("samples", ())
        self._labels += message.get("labels", ())

    def report(self, crew: Crew, version: int, refused: str) -> None:
        """Read the counters and queue what changed, with the samples and labels that came."""
        now, link = time.time(), self._link
        windows = self._ledger.read(now, crew.applied_version == version, link is not None)
        in_flight = self._ledger.in_flight()
        samples, self._samples = self._samples, []
        labels, self._labels = self._labels, []
        is_reached, dropped = (link.is_reached, link.dropped_reports) if link is not None else (False, 0)
        self.seen = Seen(
            dict(self._ledger.totals), in_flight, crew.applied_version, len(crew.workers), crew.replaced, is_reached,
            dropped, bool(refused), crew.generation, self.states.gauges(), self.states.counted(), self.states.refused(),
        )  # fmt: skip
        if link is None:
            return
        self._reports += 1
        link.report(
            {
                "gateway": self._gateway,
                "boot": self._boot,
                "sequence": self._reports,
                "at": now,
                "applied_version": crew.applied_version,
                "in_flight": in_flight,
                "refused": refused,
                "windows": [window.to_json() for window in windows],
                "samples": samples,
                "labels": labels,
            }
        )
        if link.takes_labels is not self.takes_labels:
            self.takes_labels = link.takes_labels
            crew.say({"takes_labels": self.takes_labels})

    # Handed over to a new supervisor

    def to_json(self) -> dict[str, Any]:
        return {
            "reports": self._reports,
            "samples": self._samples,
            "labels": self._labels,
            "takes_labels": self.takes_labels,
            "states": self.states.to_json(),
        }

    def restore(self, data: Mapping[str, Any]) -> None:
        self._reports, self.takes_labels = data["reports"], data["takes_labels"]
        self.states.restore(data["states"])
        self._samples, self._labels = list(data["samples"]), list(data["labels"])
