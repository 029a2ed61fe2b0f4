"""The control plane watched itself: what it does is counted as it happens. How it stands: `api.metrics`."""

from prometheus_client import CollectorRegistry, Counter, Histogram

TICK_BUCKETS_S = (0.005, 0.01, 0.02, 0.05, 0.1, 0.15, 0.2, 0.3, 0.4, 0.5, 0.75, 1.0, 2.0, 5.0)


class Watched:
    """What the controller counts."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self.tick = Histogram(
            "sluice_control_tick_seconds", "How long a look at all rollouts takes.", buckets=TICK_BUCKETS_S,
            registry=self.registry,
        )  # fmt: skip
        self.failed_ticks = Counter(
            "sluice_control_tick_failures", "Ticks that ended in an error; the next one tries again.",
            registry=self.registry,
        )  # fmt: skip
        self.windows = Counter("sluice_control_windows", "Windows kept, each once.", registry=self.registry)
        self.lag = Histogram(
            "sluice_control_window_lag_seconds", "From the end of a window to its being kept, by the gateway's clock.",
            buckets=(0.1, 0.25, 0.5, 1.0, 2.0, 5.0, 15.0, 60.0), registry=self.registry,
        )  # fmt: skip
