"""HAProxy: a hash of the sticky header chooses the backend. It cannot mirror without an agent of its own."""

from gateway.routes import DEFAULT_STICKY_HEADER
from loadtests.peers.peer import Peer, Task, program_version


def command(task: Task) -> list[str]:
    """One thread in the foreground."""
    path = task.folder / "haproxy.cfg"
    path.write_text(_CONFIG.format(task=task, key=DEFAULT_STICKY_HEADER))
    return ["haproxy", "-db", "-f", str(path)]


_CONFIG = """\
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
  use_backend candidate if {{ req.hdr({key}),xxh32,mod(100) lt {task.percent} }}
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

HAPROXY = Peer("haproxy", program_version("haproxy", "-v"), "apt-get install haproxy", command)
