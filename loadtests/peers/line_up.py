"""Who is measured. Every peer gets the same task: one worker, stable and candidate split by weight on a sticky key,
connections kept on both sides, a request id in and out, no access log.
"""

import sys

from loadtests.peers.envoy import ENVOY
from loadtests.peers.haproxy import HAPROXY
from loadtests.peers.nginx import NGINX
from loadtests.peers.ours import SLUICE
from loadtests.peers.peer import Peer, Task, package_versions


def _fastapi(task: Task) -> list[str]:
    module = "loadtests.peers.fastapi_proxy"
    return [sys.executable, "-m", module, task.listen, task.stable, task.candidate, str(task.weight)]


FASTAPI = Peer("fastapi_httpx", package_versions("fastapi", "httpx", "uvicorn", "uvloop"), "make setup", _fastapi)
PEERS = (SLUICE, ENVOY, NGINX, HAPROXY, FASTAPI)
