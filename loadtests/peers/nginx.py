"""nginx: `split_clients` on the sticky header, kept connections, a request id, and its `mirror` module for copies."""

import getpass

from gateway.routes import DEFAULT_STICKY_HEADER
from loadtests.peers.peer import Peer, Task, program_version


def command(task: Task) -> list[str]:
    """One worker in the foreground, all of its files in the task's folder."""
    path = task.folder / "nginx.conf"
    key = DEFAULT_STICKY_HEADER.replace("-", "_")
    copies = {"mirror": "", "mirror_upstream": "", "mirror_location": ""}
    if task.mirror is not None:
        copies = {
            "mirror": "mirror /mirror;",
            "mirror_upstream": _UPSTREAM.format(name="mirror", server=task.mirror),
            "mirror_location": _MIRROR_LOCATION,
        }
    stable, candidate = (
        _UPSTREAM.format(name=name, server=server)
        for name, server in (("stable", task.stable), ("candidate", task.candidate))
    )
    path.write_text(
        _CONFIG.format(
            task=task,
            user=getpass.getuser(),
            key=key,
            stable=stable,
            candidate=candidate,
            share=f"{task.percent}% candidate;" if task.percent else "",
            **copies,
        )
    )
    return ["nginx", "-p", str(task.folder), "-c", str(path), "-e", "stderr"]


_UPSTREAM = "upstream {name} {{ server {server}; keepalive 64; keepalive_requests 1000000000; }}"
_MIRROR_LOCATION = """\
location = /mirror {
      internal;
      proxy_pass http://mirror$request_uri;
      proxy_http_version 1.1;
      proxy_set_header connection "";
    }"""
_CONFIG = """\
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
  {stable}
  {candidate}
  {mirror_upstream}
  split_clients "$http_{key}" $pool {{ {share} * stable; }}
  server {{
    listen {task.listen};
    location / {{
      {mirror}
      proxy_pass http://$pool;
      proxy_http_version 1.1;
      proxy_set_header connection "";
      proxy_set_header x-request-id $request_id;
      add_header x-request-id $request_id;
      add_header x-sluice-release $pool;
    }}
    {mirror_location}
  }}
}}
"""

NGINX = Peer("nginx", program_version("nginx", "-v"), "apt-get install nginx", command, mirrors=True)
