"""The peers do the task that they are compared at: forward whole bodies, and split by weight on a sticky key."""

import asyncio
import sys
from collections.abc import Iterator
from pathlib import Path
from random import Random

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
    addresses = free_addresses(0, 0)
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
    if peer.version() is None:
        pytest.skip(f"{peer.name} is not installed")
    (listen,) = free_addresses(0)
    folder = tmp_path / "peer"
    folder.mkdir()
    url, body = f"http://{listen}/v2/models/digits/infer", BODIES["small_json"]().data
    command = peer.command(Task(listen, *upstream, folder))
    with running(peer.name, command, tmp_path / "log") as pid, httpx.Client(trust_env=False) as client:
        wait_until_it_answers(peer.name, url, body, tmp_path / "log")
        first, again = ([_release(client, url, body, key) for key in range(300)] for _ in range(2))
        assert cpu_us(pid) > 0
    assert first == again
    assert len(set(first)) == 2
    assert 0.04 < min(first.count(release) for release in set(first)) / 300 < 0.18


def _release(client: httpx.Client, url: str, body: bytes, key: int) -> str:
    answer = client.post(url, content=body, headers={"x-sluice-key": f"client-{key}"})
    assert answer.status_code == 200
    assert answer.json()["model_name"] == "digits"
    assert answer.headers["x-request-id"]
    return answer.headers["x-sluice-release"]


def test_a_peer_that_ends_by_itself_says_its_last_word(tmp_path: Path) -> None:
    command = [sys.executable, "-c", "print('no port left')"]
    silent = pytest.raises(BenchError, match=r"it did not answer within .*no port left")
    with silent, running("it", command, tmp_path / "log"):
        wait_until_it_answers("it", "http://127.0.0.1:1/", b"", tmp_path / "log", timeout_s=0.3)
