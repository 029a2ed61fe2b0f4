"""How releases, routes, pools, gateways and traffic look to clients."""

from typing import Any, Literal

from pydantic import ConfigDict, Field

from rollout.api.rollout_shapes import Shape


class Release(Shape):
    """A release of the repository. `doing`: stable, candidate with its weight, shadow, or nothing."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {
                    "name": "digits/2", "model": "digits", "number": 2, "run": "digits-20261123-101500",
                    "created_at": "2026-11-23T10:20:11+00:00", "metrics": {"accuracy": 0.981}, "doing": "candidate 10%",
                }
            ]
        }
    )  # fmt: skip

    name: str
    model: str
    number: int
    run: str
    created_at: str
    metrics: dict[str, Any]
    doing: str


class Candidate(Shape):
    release: int
    weight: float


class Shadow(Shape):
    release: int
    share: float


class Route(Shape):
    """How one model's traffic is divided. `servers` are addresses by release; `revision` is when it changed last."""

    model: str
    revision: int
    stable: int
    servers: dict[str, list[str]]
    candidate: Candidate | None
    shadow: Shadow | None
    salt: str


class Table(Shape):
    """All routes; replaced as a whole."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {
                    "version": 1796000361,
                    "routes": [
                        {
                            "model": "digits", "revision": 1796000361, "stable": 1,
                            "servers": {"1": ["127.0.0.1:40001"], "2": ["127.0.0.1:40007"]},
                            "candidate": {"release": 2, "weight": 0.1}, "shadow": None, "salt": "digits-8c2f",
                        }
                    ],
                }
            ]
        }
    )  # fmt: skip

    version: int
    routes: list[Route]


class Traffic(Shape):
    """What stable answered lately. `latency` has pairs: a bucket of `gateway.windows`, its share of the answers."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [{"seconds": 300.0, "rate": 41.5, "failing": 0.004, "latency": [[138, 0.7], [139, 0.3]]}]
        }
    )

    seconds: float
    rate: float = Field(description="Requests a second of the model.")
    failing: float = Field(description="The share of stable's answers that are failures.")
    latency: list[list[int | float]]


class Pool(Shape):
    """What serves one release, with what its kind of pool tells more."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {
                    "model": "digits", "release": 1, "pid": 4711, "started_ticks": 883001, "http_port": 40001,
                    "grpc_port": 40002, "metrics_port": 40003, "folder": "/var/lib/sluice/pools/digits-1",
                    "shm_prefix": "sluice-4711-", "processes": 2,
                }
            ]
        }
    )  # fmt: skip

    model: str
    release: int


class Gateway(Shape):
    """A gateway that was heard of lately. `in_flight` counts requests by release; `refused` says why a table was."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [{"applied_version": 1, "in_flight": {"digits/1": 3}, "refused": "", "missing_windows": 0}]
        }
    )

    applied_version: int
    in_flight: dict[str, int]
    refused: str
    missing_windows: int


class Kept(Shape):
    """How many entries of a report were sound."""

    model_config = ConfigDict(json_schema_extra={"examples": [{"windows": 2, "predictions": 10, "labels": 0}]})

    windows: int
    predictions: int
    labels: int


class Health(Shape):
    """That it lives, and whether it leads. `missing`: stable releases that no server serves; `wrong`: all in words."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {
                    "status": "degraded", "pid": 812, "leads": True, "leader": "http://127.0.0.1:8080",
                    "route_table": 1796000361, "missing": ["digits/1"], "wrong": ["digits/1 has no living server"],
                }
            ]
        }
    )  # fmt: skip

    status: Literal["ok", "degraded"]
    pid: int
    leads: bool
    leader: str
    route_table: int
    missing: list[str]
    wrong: list[str]
