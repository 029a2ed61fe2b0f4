"""The route table: how every model's traffic is divided now. The contract between control plane and gateway.

Knows the words route, candidate, shadow and pool, and how a request's key decides its release. Knows nothing of HTTP,
sockets or how the table arrived. A table is immutable and is replaced as a whole.
"""

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from hashlib import blake2b
from typing import Any

NAME = re.compile(r"[A-Za-z0-9_-][A-Za-z0-9_.-]{0,127}")
ADDRESS = re.compile(r"([A-Za-z0-9_.-]+|\[[0-9a-fA-F:]+\]):([0-9]{1,5})")
RELEASE = re.compile(r"[1-9][0-9]{0,17}")
SALT = re.compile(r"[ -~]{0,48}")
HEADER_NAME = re.compile(r"[A-Za-z0-9!#$%&'*+.^_`|~-]{1,64}")

DEFAULT_STICKY_HEADER = "x-sluice-key"
HASH_RANGE = 2**64


class RouteTableError(ValueError):
    """A route table that must not be applied; says which field is wrong and what it should be."""


@dataclass(frozen=True, slots=True)
class Candidate:
    """The release that takes part of the traffic: `weight` in [0, 1] of it."""

    release: int
    weight: float


@dataclass(frozen=True, slots=True)
class Shadow:
    """The release that gets copies: `share` in [0, 1] of the requests that stable answered."""

    release: int
    share: float


@dataclass(frozen=True, slots=True)
class Route:
    """How one model's traffic is divided.

    `revision` is the version of the table in which this route last changed: counts are kept by it, so that counts of
    two weights never mix. `servers` holds the `host:port` addresses of each release's pool. `salt` is the rollout's.
    """

    model: str
    revision: int
    stable: int
    servers: Mapping[int, tuple[str, ...]]
    candidate: Candidate | None = None
    shadow: Shadow | None = None
    salt: str = ""
    sticky_header: str = DEFAULT_STICKY_HEADER
    deadline_s: float = 10.0
    sample_share: float = 1.0
    body_bytes: int | None = None
    """The largest request body of this model, where it is less than the gateway's own limit."""

    def pick(self, key: bytes) -> int:
        """The release for a request with this key.

        A key's place in [0, 1) depends on the salt alone, so a growing weight only ever moves keys from stable to
        candidate, and every gateway decides alike.
        """
        candidate = self.candidate
        if candidate is not None and place(self.salt, key) < candidate.weight:
            return candidate.release
        return self.stable

    def is_mirrored(self, key: bytes) -> bool:
        """Does the shadow get a copy of the request with this key (if stable answers it)?"""
        shadow = self.shadow
        return shadow is not None and place(self.salt + "/shadow", key) < shadow.share

    def to_json(self) -> dict[str, Any]:
        candidate, shadow = self.candidate, self.shadow
        return {
            "model": self.model,
            "revision": self.revision,
            "stable": self.stable,
            "servers": {str(release): list(addresses) for release, addresses in self.servers.items()},
            "candidate": candidate and {"release": candidate.release, "weight": candidate.weight},
            "shadow": shadow and {"release": shadow.release, "share": shadow.share},
            "salt": self.salt,
            "sticky_header": self.sticky_header,
            "deadline_s": self.deadline_s,
            "sample_share": self.sample_share,
            "body_bytes": self.body_bytes,
        }

    @staticmethod
    def from_json(data: Any) -> "Route":
        """Read a route; unknown fields are ignored. Raises RouteTableError as `RouteTable.from_json` does."""
        return _route(data)


def place(salt: str, key: bytes) -> float:
    """The place of a key in [0, 1): uniform over keys, and independent between salts (BLAKE2b keyed with the salt)."""
    digest = blake2b(key, digest_size=8, key=salt.encode()[:64]).digest()
    return int.from_bytes(digest, "little") / HASH_RANGE


@dataclass(frozen=True, slots=True)
class RouteTable:
    """All routes by model. `version` grows with every change."""

    version: int
    routes: Mapping[str, Route] = field(default_factory=dict)

    def to_json(self) -> dict[str, Any]:
        return {"version": self.version, "routes": [route.to_json() for route in self.routes.values()]}

    @staticmethod
    def from_json(data: Any) -> "RouteTable":
        """Read a table; unknown fields are ignored.

        Raises:
            RouteTableError: a field is missing, of the wrong kind or out of range, or a model stands twice.
        """
        version = _integer(_object(data, "the route table"), "version", "the route table", least=0)
        entries = data.get("routes")
        if not isinstance(entries, list):
            raise RouteTableError("the route table: 'routes' must be a list")
        routes: dict[str, Route] = {}
        for entry in entries:
            route = _route(entry)
            if route.model in routes:
                raise RouteTableError(f"the route table: model {route.model!r} stands twice")
            routes[route.model] = route
        return RouteTable(version, routes)


def _route(data: Any) -> Route:
    model = _object(data, "a route").get("model")
    if not isinstance(model, str) or not NAME.fullmatch(model):
        raise RouteTableError(f"a route: 'model' must match {NAME.pattern}, not {model!r}")
    where = f"the route of {model!r}"
    servers = _servers(data.get("servers"), where)
    candidate, shadow = data.get("candidate"), data.get("shadow")
    sticky_header = data.get("sticky_header", DEFAULT_STICKY_HEADER)
    if not isinstance(sticky_header, str) or not HEADER_NAME.fullmatch(sticky_header):
        raise RouteTableError(f"{where}: 'sticky_header' must be a header's name, not {sticky_header!r}")
    salt = data.get("salt", "")
    if not isinstance(salt, str) or not SALT.fullmatch(salt):
        raise RouteTableError(f"{where}: 'salt' must be at most 48 visible ASCII characters, not {salt!r}")
    route = Route(
        model=model,
        revision=_integer(data, "revision", where, least=0, default=0),
        stable=_integer(data, "stable", where, least=1),
        servers=servers,
        candidate=None if candidate is None else Candidate(*_arm(candidate, "weight", f"{where}, candidate")),
        shadow=None if shadow is None else Shadow(*_arm(shadow, "share", f"{where}, shadow")),
        salt=salt,
        sticky_header=sticky_header.lower(),
        deadline_s=_number(data, "deadline_s", where, least=0.001, most=3600.0, default=10.0),
        sample_share=_number(data, "sample_share", where, least=0.0, most=1.0, default=1.0),
        body_bytes=None if data.get("body_bytes") is None else _integer(data, "body_bytes", where, least=1),
    )
    arms: Iterable[Candidate | Shadow | None] = (route.candidate, route.shadow)
    for release in (route.stable, *(arm.release for arm in arms if arm is not None)):
        if release not in servers:
            raise RouteTableError(f"{where}: release {release} takes traffic but 'servers' has no entry for it")
    return route


def _servers(data: Any, where: str) -> dict[int, tuple[str, ...]]:
    if not isinstance(data, dict) or not data:
        raise RouteTableError(f"{where}: 'servers' must map each release to a list of host:port addresses")
    servers: dict[int, tuple[str, ...]] = {}
    for release, addresses in data.items():
        if not RELEASE.fullmatch(str(release)):
            raise RouteTableError(f"{where}: 'servers' has {release!r} where a release number should stand")
        if not isinstance(addresses, (list, tuple)) or not all(_is_address(address) for address in addresses):
            raise RouteTableError(f"{where}: the servers of release {release} must be a list of host:port addresses")
        servers[int(release)] = tuple(addresses)
    return servers


def _is_address(text: Any) -> bool:
    match = ADDRESS.fullmatch(text) if isinstance(text, str) else None
    return match is not None and 0 < int(match[2]) < 65536


def _arm(data: Any, share: str, where: str) -> tuple[int, float]:
    _object(data, where)
    return _integer(data, "release", where, least=1), _number(data, share, where, least=0.0, most=1.0)


def _object(data: Any, where: str) -> dict[str, Any]:
    if not isinstance(data, dict):
        raise RouteTableError(f"{where} must be an object, not {type(data).__name__}")
    return data


def _integer(data: dict[str, Any], key: str, where: str, *, least: int, default: int | None = None) -> int:
    value = data.get(key, default)
    if not isinstance(value, int) or isinstance(value, bool) or not least <= value < 2**63:
        raise RouteTableError(f"{where}: {key!r} must be a whole number of at least {least}, not {value!r}")
    return value


def _number(
    data: dict[str, Any], key: str, where: str, *, least: float, most: float, default: float | None = None
) -> float:
    value = data.get(key, default)
    if not isinstance(value, (int, float)) or isinstance(value, bool) or not least <= value <= most:
        raise RouteTableError(f"{where}: {key!r} must be a number from {least} to {most}, not {value!r}")
    return float(value)
