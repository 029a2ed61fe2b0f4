"""The peers do the task that they are compared at: forward whole bodies, and split by weight on a sticky key."""

import asyncio
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from random import Random
from typing import Any

import httpx
import pytest
from hypothesis import given
from hypothesis import strategies as st

from loadtests.bench.asking import BODIES
from loadtests.bench.client import Ask, run
from loadtests.bench.processes import cpu_us, running, wait_until_it_answers
from loadtests.errors import BenchError
from loadtests.peers.line_up import PEERS
from loadtests.peers.message import Message
from loadtests.peers.peer import Peer, Task
from loadtests.ports import free_addresses
from tests.loadtests.tiny_model import Reply, TinyModel


@given(st.lists(st.binary(max_size=40), min_size=1, max_size=4), st.randoms())
def test_messages_end_where_their_length_says(bodies: list[bytes], random: Random) -> None:
    for body in bodies:
        message, data = Message(), b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % len(body) + body
        cut = random.randint(0, len(data) - 1)
        assert not message.is_whole_with(data[:cut])
        assert message.is_new == (cut == 0)
        assert message.is_whole_with(data[cut:])
        assert message.is_new


def test_a_message_without_a_length_is_an_error() -> None:
    with pytest.raises(ValueError, match="without a length"):
        Message().is_whole_with(b"HTTP/1.1 200 OK\r\n\r\n")


@pytest.fixture
def upstream(tmp_path: Path) -> Iterator[list[str]]:
    """Three addresses that answer at once."""
    addresses = free_addresses(0, 0, 0)
    log = tmp_path / "upstream.log"
    with running("upstream", [sys.executable, "-m", "loadtests.peers.upstream", *addresses], log):
        for address in addresses:
            wait_until_it_answers("upstream", f"http://{address}/", b"", log)
        yield addresses


@pytest.mark.parametrize("body", BODIES)
def test_the_load_counts_what_it_sent_and_what_was_answered(upstream: list[str], body: str) -> None:
    got = asyncio.run(run(Ask(upstream[0], body, connections=2, warm_s=0.05, seconds=0.2)))
    assert 0 < got.timed < got.answered
    assert 0 < got.p50_us <= got.p99_us


def test_a_load_that_is_refused_says_what_it_got(tiny: TinyModel) -> None:
    tiny.answer = lambda _: Reply(404, text="none")
    address = tiny.url.removeprefix("http://")
    with pytest.raises(BenchError, match="404"):
        asyncio.run(run(Ask(address, "small_json", connections=1, warm_s=0.2, seconds=0.2)))


@pytest.mark.parametrize("peer", PEERS, ids=lambda peer: peer.name)
def test_every_peer_splits_by_weight_on_a_sticky_key(peer: Peer, upstream: list[str], tmp_path: Path) -> None:
    with _started(peer, upstream, tmp_path) as (pid, url), httpx.Client(trust_env=False) as client:
        first, again = ([_release(client, url, key) for key in range(300)] for _ in range(2))
        assert cpu_us(pid) > 0
    assert first == again
    assert len(set(first)) == 2
    assert 0.04 < min(first.count(release) for release in set(first)) / 300 < 0.18


@pytest.mark.parametrize("peer", [peer for peer in PEERS if peer.mirrors], ids=lambda peer: peer.name)
def test_peers_that_mirror_copy_every_request(peer: Peer, upstream: list[str], tmp_path: Path) -> None:
    with (
        _started(peer, upstream, tmp_path, weight=0.0, mirror=upstream[2]) as (_, url),
        httpx.Client(trust_env=False) as client,
    ):
        before = _asked(upstream[2])
        for key in range(50):
            _release(client, url, key)
        ends = time.monotonic() + 5
        while _asked(upstream[2]) < before + 50 and time.monotonic() < ends:
            time.sleep(0.01)
        assert _asked(upstream[2]) == before + 50
        assert _asked(upstream[1]) == 1  # The fixture's.


@contextmanager
def _started(peer: Peer, servers: list[str], tmp_path: Path, **task: Any) -> Iterator[tuple[int, str]]:
    """The peer's pid and the URL of its model, once it answers."""
    if peer.version() is None:
        pytest.skip(f"{peer.name} is not installed")
    (listen,) = free_addresses(0)
    folder = tmp_path / "peer"
    folder.mkdir()
    url = f"http://{listen}/v2/models/digits/infer"
    with running(peer.name, peer.command(Task(listen, servers[0], servers[1], folder, **task)), folder / "log") as pid:
        wait_until_it_answers(peer.name, url, BODIES["small_json"]().data, folder / "log")
        yield pid, url


def _asked(address: str) -> int:
    return int(httpx.get(f"http://{address}/", trust_env=False).text)


def _release(client: httpx.Client, url: str, key: int) -> str:
    answer = client.post(url, content=BODIES["small_json"]().data, headers={"x-sluice-key": f"client-{key}"})
    assert answer.status_code == 200
    assert answer.json()["model_name"] == "digits"
    assert answer.headers["x-request-id"]
    return answer.headers["x-sluice-release"]


def test_a_peer_that_ends_by_itself_says_its_last_word(tmp_path: Path) -> None:
    command = [sys.executable, "-c", "print('no port left')"]
    silent = pytest.raises(BenchError, match=r"it did not answer within .*no port left")
    with silent, running("it", command, tmp_path / "log"):
        wait_until_it_answers("it", "http://127.0.0.1:1/", b"", tmp_path / "log", timeout_s=1.5)
