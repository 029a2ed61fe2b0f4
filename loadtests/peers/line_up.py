"""How each peer is started: its program, its configuration and its version.

Every peer gets the same task: one worker, stable and candidate split by weight on a sticky key, connections kept on
both sides, a request id in and out, no access log.
"""

import getpass
import json
import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path

from gateway.routes import DEFAULT_STICKY_HEADER, Candidate, Route, RouteTable

WEIGHT = 0.1
"""The candidate's share in every peer."""


@dataclass(frozen=True, slots=True)
class Task:
    """What a peer is to do: listen there, split between these two, and keep its files in `folder`."""

    listen: str
    stable: str
    candidate: str
    folder: Path


@dataclass(frozen=True, slots=True)
class Peer:
    """`command` writes what configuration it needs and says how to start the peer in the foreground."""

    name: str
    version: Callable[[], str | None]
    """None where it is not installed."""
    command: Callable[[Task], list[str]]


def _sluice(task: Task) -> list[str]:
    servers = {1: (task.stable,), 2: (task.candidate,)}
    route = Route("digits", 1, stable=1, servers=servers, candidate=Candidate(2, WEIGHT), salt="bench")
    path = task.folder / "routes.json"
    path.write_text(json.dumps(RouteTable(1, {"digits": route}).to_json()))
    return [
        sys.executable, "-m", "sluice", "gateway", "--workers", "1", "--routes", str(path), "--listen", task.listen,
        "--metrics-listen", "127.0.0.1:0", "--state-dir", str(task.folder / "state"),
    ]  # fmt: skip


def _fastapi(task: Task) -> list[str]:
    module = "loadtests.peers.fastapi_proxy"
    return [sys.executable, "-m", module, task.listen, task.stable, task.candidate, str(WEIGHT)]


def _nginx(task: Task) -> list[str]:
    path = task.folder / "nginx.conf"
    key = DEFAULT_STICKY_HEADER.replace("-", "_")
    path.write_text(_NGINX.format(task=task, user=getpass.getuser(), key=key, percent=round(100 * WEIGHT)))
    return ["nginx", "-p", str(task.folder), "-c", str(path), "-e", "stderr"]


_NGINX = """\
user {user};
daemon off;
worker_processes 1;
error_log stderr error;
pid {task.folder}/nginx.pid;
events {{ worker_connections 1024; }}
http {{
  access_log off;
  keepalive_requests 1000000000;
  client_max_body_size 64m;
  client_body_buffer_size 1m;
  client_body_temp_path {task.folder}/body;
  proxy_temp_path {task.folder}/proxy;
  fastcgi_temp_path {task.folder}/fastcgi;
  uwsgi_temp_path {task.folder}/uwsgi;
  scgi_temp_path {task.folder}/scgi;
  upstream stable {{ server {task.stable}; keepalive 64; keepalive_requests 1000000000; }}
  upstream candidate {{ server {task.candidate}; keepalive 64; keepalive_requests 1000000000; }}
  split_clients "$http_{key}" $pool {{ {percent}% candidate; * stable; }}
  server {{
    listen {task.listen};
    location / {{
      proxy_pass http://$pool;
      proxy_http_version 1.1;
      proxy_set_header connection "";
      proxy_set_header x-request-id $request_id;
      add_header x-request-id $request_id;
      add_header x-sluice-release $pool;
    }}
  }}
}}
"""


def _haproxy(task: Task) -> list[str]:
    path = task.folder / "haproxy.cfg"
    path.write_text(_HAPROXY.format(task=task, key=DEFAULT_STICKY_HEADER, percent=round(100 * WEIGHT)))
    return ["haproxy", "-db", "-f", str(path)]


_HAPROXY = """\
global
  nbthread 1
  maxconn 1024
defaults
  mode http
  timeout connect 2s
  timeout client 60s
  timeout server 60s
  http-reuse always
  unique-id-format %{{+X}}o\\ %ci:%cp_%Ts:%rt
  unique-id-header x-request-id
frontend clients
  bind {task.listen}
  use_backend candidate if {{ req.hdr({key}),xxh32,mod(100) lt {percent} }}
  default_backend stable
backend stable
  http-response set-header x-request-id %[unique-id]
  http-response set-header x-sluice-release stable
  server one {task.stable}
backend candidate
  http-response set-header x-request-id %[unique-id]
  http-response set-header x-sluice-release candidate
  server two {task.candidate}
"""


def _program_version(*command: str) -> Callable[[], str | None]:
    """What a program says of its version, in its first line."""

    def ask() -> str | None:
        if shutil.which(command[0]) is None:
            return None
        said = subprocess.run(command, capture_output=True, text=True, check=False)
        return (said.stdout + said.stderr).partition("\n")[0].strip()

    return ask


def _python_versions(*packages: str) -> Callable[[], str]:
    return lambda: ", ".join(f"{package} {version(package)}" for package in packages)


SLUICE = Peer("sluice", _python_versions("sluice", "uvloop", "httptools"), _sluice)
FASTAPI = Peer("fastapi_httpx", _python_versions("fastapi", "httpx", "uvicorn", "uvloop"), _fastapi)
NGINX = Peer("nginx", _program_version("nginx", "-v"), _nginx)
HAPROXY = Peer("haproxy", _program_version("haproxy", "-v"), _haproxy)
PEERS = (SLUICE, FASTAPI, NGINX, HAPROXY)
