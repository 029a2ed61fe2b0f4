"""The gateway's settings: TOML or keywords in, one frozen object out. Units stand in the names."""

import difflib
import math
import os
import re
import tomllib
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any

from gateway.errors import ConfigError

CONTROL_URL = re.compile(r"https?://[A-Za-z0-9_.\[\]:-]+/?")


_RANGES: Mapping[str, tuple[float, float]] = {
    "workers": (1, 256),
    "backlog": (1, 2**31 - 1),
    "counter_slots": (1, 2**24),
    "unsent_bytes": (0, 2**31 - 1),
    "requests_per_connection": (1, math.inf),
    "request_line_bytes": (64, math.inf),
    "field_bytes": (64, math.inf),
    "head_bytes": (256, math.inf),
    "head_fields": (8, math.inf),
    "body_bytes_per_s": (1, math.inf),
    "connect_timeout_s": (0.001, math.inf),
    "release_in_flight": (1, math.inf),
    "report_every_s": (0.05, math.inf),
}
"""What these may be at least and at most, so that requests are served at all. All other numbers: not negative."""


@dataclass(frozen=True, slots=True)
class GatewayConfig:
    """Where to listen, what to keep, and what no client may exceed."""

    listen: str = "127.0.0.1:8000"
    metrics_listen: str = "127.0.0.1:8002"
    control_url: str = ""
    """The control plane, as http://host:port, or all of them with commas between; empty: routes come from a file."""
    state_dir: str = ".sluice/gateway"
    name: str = "gateway-1"
    workers: int = field(default_factory=lambda: len(os.sched_getaffinity(0)))
    """Worker processes; one a core unless it is set."""
    backlog: int = 2048
    cpu_affinity: bool | tuple[int, ...] = False
    """True: each worker stays on one core, in turn; or the cores to take in turn."""
    counter_slots: int = 262_144
    """Counters to hand out: a route takes two for each release in use, and keeps those of its revision before for some
    seconds. Unused ones take no memory. Enough for 10,000 routes with a candidate, all changed again and again."""

    connections: int = 0
    """Clients' connections a worker keeps; 0: four fifths of the files it may open."""
    connections_per_address: int = 256
    """The same for one client address; the machine's own (loopback) are not counted."""
    requests_per_connection: int = 10_000
    """Then the connection is closed, which its last answer says."""
    held_bytes: int = 0
    """Bodies and unread answers that a worker holds at once; 0: a quarter of the memory, shared by all workers. Beyond
    nine tenths of it, new bodies are answered with 503."""
    unsent_bytes: int = 64 * 1024
    """What the kernel keeps of answers that were not sent to their client yet; 0: as the system says (4 MB are usual).
    It is not among `held_bytes`, and thousands of clients that do not read would take all memory that TCP may use."""
    request_line_bytes: int = 8 * 1024
    field_bytes: int = 8 * 1024
    head_bytes: int = 32 * 1024
    head_fields: int = 100
    body_bytes: int = 64 * 1024 * 1024
    label_body_bytes: int = 1024 * 1024
    body_chunks: int = 65_536
    head_timeout_s: float = 10.0
    """From a head's first byte to its last."""
    body_timeout_s: float = 300.0
    body_read_timeout_s: float = 15.0
    """How long no byte of a body may come."""
    body_bytes_per_s: int = 1024
    """How fast a body must come on average, after its first five seconds."""
    idle_timeout_s: float = 75.0
    write_timeout_s: float = 30.0
    """How long a client may leave an answer unread."""
    connect_timeout_s: float = 2.0

    release_in_flight: int = 1024
    """Requests that a worker sends to one release at once; more wait."""
    release_waiting: int = 256
    """Requests that may wait for one release; beyond, clients are answered with 503 and `Retry-After`."""
    wait_timeout_s: float = 1.0
    """How long a request may wait for its turn, then 503."""
    retry_share: float = 0.1
    mirror_in_flight: int = 64
    mirror_bytes: int = 32 * 1024 * 1024
    sample_body_bytes: int = 16 * 1024
    samples_per_s: int = 500
    """Per worker; further answers are served but not recorded."""
    report_every_s: float = 1.0
    """How often counters are read, for the control plane and for /metrics."""
    backlog_reports: int = 600
    """Reports kept while the control plane is away; then the oldest is dropped."""

    ready_timeout_s: float = 20.0
    """How long new workers may take to serve; then a reload is given up and the old ones go on."""
    access_log: str = ""
    """A file for JSON lines, one a request; `-` is the standard output, empty is none."""
    access_log_share: float = 0.01
    """The share of good answers that is logged; failures and fallbacks always are."""
    notes_per_s: int = 1000
    """Log lines and spans a worker makes in a second; the rest is dropped and counted."""
    trace_endpoint: str = ""
    """An OTLP collector, as http://host:4318/v1/traces; empty: `traceparent` is passed on and no span is made."""
    trace_share: float = 0.01
    """The share of requests that are traced; those with a `traceparent` are traced when it says so."""

    ready_to_close_s: float = 0.0
    """How long readiness says no before the listener closes."""
    linger_s: float = 2.0
    """How long a stopping worker still answers on idle connections, with `connection: close`."""
    drain_timeout_s: float = 30.0

    def __post_init__(self) -> None:
        for name in ("listen", "metrics_listen"):
            parse_address(getattr(self, name), name)
        if not isinstance(self.cpu_affinity, bool):
            object.__setattr__(self, "cpu_affinity", tuple(self.cpu_affinity))
            if not all(type(core) is int and core >= 0 for core in self.cpu_affinity):
                raise ConfigError("gateway setting 'cpu_affinity' must be true, false or a list of cores")
            allowed = os.sched_getaffinity(0)
            if not self.cpu_affinity or not allowed.issuperset(self.cpu_affinity):
                raise ConfigError(f"gateway setting 'cpu_affinity' must name some of the cores {sorted(allowed)}")
        for one in fields(self):
            value = getattr(self, one.name)
            least, most = _RANGES.get(one.name, (0, math.inf))
            if isinstance(value, (int, float)) and not least <= value <= most:  # NaN is not either.
                wanted = f"at least {least:g}" if value < least or value != value else f"at most {most:.0f}"
                raise ConfigError(f"gateway setting {one.name!r} must be {wanted}, not {value}")
        if self.control_url and not all(map(CONTROL_URL.fullmatch, self.control_url.split(","))):
            raise ConfigError(
                f"gateway setting 'control_url' must be http://HOST:PORT, or several with commas between, not"
                f" {self.control_url!r}"
            )


def parse_address(text: str, setting: str) -> tuple[str, int]:
    """Split host:port. Raises ConfigError naming the setting."""
    host, _, port = text.rpartition(":")
    if not host or not port.isascii() or not port.isdigit() or int(port) > 65535:
        raise ConfigError(f"gateway setting {setting!r} must be HOST:PORT, for example 127.0.0.1:8000, not {text!r}")
    return host.strip("[]"), int(port)


def load_config(path: Path | None, overrides: Mapping[str, Any] | None = None) -> GatewayConfig:
    """The settings of a TOML file's [gateway] table, overridden by `overrides` that are not None.

    Raises:
        ConfigError: the file cannot be read, or a key is unknown (the nearest known one is named) or of the wrong kind.
    """
    settings: dict[str, Any] = {}
    if path is not None:
        try:
            document = tomllib.loads(path.read_text())
        except (OSError, ValueError) as exc:
            raise ConfigError(f"{path} cannot be read: {exc}") from exc
        table = document.get("gateway", {})
        if not isinstance(table, dict):
            raise ConfigError(f"{path}: 'gateway' must be a table, [gateway]")
        settings.update(table)
    settings.update({key: value for key, value in (overrides or {}).items() if value is not None})
    return config_from(settings)


def config_from(settings: Mapping[str, Any]) -> GatewayConfig:
    """Settings by name; raises ConfigError for an unknown name or a value of the wrong kind."""
    known = {name: type(value) for name, value in asdict(GatewayConfig()).items()}
    for key, value in settings.items():
        if key not in known:
            nearest = difflib.get_close_matches(key, known, 1)
            hint = f"; did you mean {nearest[0]!r}?" if nearest else f"; known are {', '.join(known)}"
            raise ConfigError(f"unknown gateway setting {key!r}{hint}")
        wanted = known[key]
        if key == "cpu_affinity" and isinstance(value, (bool, list)):
            continue
        fits = isinstance(value, wanted) or (wanted is float and isinstance(value, int))
        if not fits or isinstance(value, bool):
            raise ConfigError(f"gateway setting {key!r} must be a {wanted.__name__}, not {value!r}")
    return GatewayConfig(**settings)
