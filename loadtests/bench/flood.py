"""Many large bodies at once, each sent as fast as it is taken, by a process of its own. Prints their fate as JSON.

python -m loadtests.bench.flood '{"address": "127.0.0.1:8000", "model": "digits", "count": 1000, ...}'
"""

import json
import select
import socket
import sys
from collections import Counter
from dataclasses import asdict, dataclass
from time import monotonic

from loadtests.errors import BenchError

PIECE = bytes(256 * 1024)


@dataclass(frozen=True, slots=True)
class Ask:
    """`fields` are more lines for each head. All ends after `most_s`."""

    address: str
    model: str
    count: int
    body_bytes: int
    fields: str
    most_s: float


@dataclass(frozen=True, slots=True)
class Got:
    """`refused` heard 503 with `Retry-After`; `cut` nothing; `others` something else; `unended` are still sending."""

    answered: int
    refused: int
    cut: int
    others: int
    unended: int


class Upload:
    """One body on its way."""

    __slots__ = ("heard", "left", "sock")

    def __init__(self, ask: Ask) -> None:
        head = f"POST /v2/models/{ask.model}/infer HTTP/1.1\r\nhost: flood\r\n{ask.fields}"
        self.left: list[memoryview] = [memoryview(f"{head}content-length: {ask.body_bytes}\r\n\r\n".encode())]
        whole, rest = divmod(ask.body_bytes, len(PIECE))
        self.left += [memoryview(PIECE)] * whole + [memoryview(PIECE)[:rest]] * bool(rest)
        self.left.reverse()
        self.heard = b""
        host, _, port = ask.address.rpartition(":")
        self.sock = socket.socket()
        self.sock.setblocking(False)
        self.sock.connect_ex((host, int(port)))

    def send(self) -> bool:
        """Send what is taken; False when all of it was. Raises OSError when the connection is gone."""
        piece = self.left.pop()
        try:
            sent = self.sock.send(piece)
        except BlockingIOError:
            sent = 0
        if sent < len(piece):
            self.left.append(piece[sent:])
        return bool(self.left)

    def hear(self) -> bool:
        """Read; True when it is over: the answer is there, or nothing more comes."""
        try:
            data = self.sock.recv(65536)
        except BlockingIOError:
            return False
        except OSError:
            return True
        self.heard += data
        return not data or b"\r\n\r\n" in self.heard

    @property
    def fate(self) -> str:
        if self.heard.startswith(b"HTTP/1.1 200 "):
            return "answered"
        if self.heard.startswith(b"HTTP/1.1 503 ") and b"\r\nretry-after:" in self.heard:
            return "refused"
        return "others" if self.heard else "cut"


def play(ask: Ask) -> Got:
    """Raises OSError when not all may be open at once."""
    poll, uploads, fates = select.epoll(), {}, Counter[str]()
    for _ in range(ask.count):
        upload = Upload(ask)
        uploads[upload.sock.fileno()] = upload
        poll.register(upload.sock, select.EPOLLIN | select.EPOLLOUT)
    ends_s = monotonic() + ask.most_s
    while uploads and monotonic() < ends_s:
        for fd, event in poll.poll(0.1):
            upload = uploads[fd]
            is_over = bool(event & ~select.EPOLLOUT) and upload.hear()
            try:
                if not is_over and event & select.EPOLLOUT and not upload.send():
                    poll.modify(fd, select.EPOLLIN)
            except OSError:
                is_over = upload.hear() or True
            if is_over:
                fates[upload.fate] += 1
                poll.unregister(fd)
                uploads.pop(fd).sock.close()
    return Got(**{name: fates[name] for name in ("answered", "refused", "cut", "others")}, unended=len(uploads))


def main() -> None:
    try:
        got = play(Ask(**json.loads(sys.argv[1])))
    except (BenchError, OSError) as exc:
        raise SystemExit(f"{exc}") from exc
    sys.stdout.write(json.dumps(asdict(got)))


if __name__ == "__main__":
    main()
