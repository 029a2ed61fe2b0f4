"""The bench's slow clients and large bodies, against servers whose manners are known."""

import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import pytest

from loadtests.bench import flood, slow_clients
from loadtests.bench.slow import BARS, works
from loadtests.bench.slow_clients import DEAF_READERS, HEADS, READERS, SILENT_BODIES, TRICKLED_BODIES, SlowClients

RESET = b"\x01\x00\x00\x00\x00\x00\x00\x00"
COUNT = 6


@contextmanager
def serving(behave: Callable[[socket.socket], None]) -> Iterator[str]:
    """A server that does this with each connection, in a thread; its address."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen(100)

        def one(connection: socket.socket) -> None:
            with connection:
                behave(connection)

        def run() -> None:
            while True:
                try:
                    connection = listener.accept()[0]
                except OSError:
                    return
                threading.Thread(target=one, args=(connection,), daemon=True).start()

        threading.Thread(target=run, daemon=True).start()
        yield f"127.0.0.1:{listener.getsockname()[1]}"
        listener.shutdown(socket.SHUT_RDWR)


def told(connection: socket.socket) -> None:
    connection.recv(100)
    time.sleep(0.3)
    connection.sendall(b"HTTP/1.1 408 Request Timeout\r\n\r\n")


def reset(connection: socket.socket) -> None:
    connection.recv(100_000)
    connection.setblocking(False)
    connection.send(bytes(1_000_000))
    time.sleep(0.3)
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)


def waits(connection: socket.socket) -> None:
    connection.recv(100)
    time.sleep(2.0)


def play(manner: str, address: str, most_s: float = 3.0) -> slow_clients.Got:
    return SlowClients(slow_clients.Ask(address, manner, COUNT, 100.0, 0.05, most_s, ["m"])).play()


@pytest.mark.parametrize("manner", [HEADS, SILENT_BODIES, TRICKLED_BODIES])
def test_slow_senders_know_when_they_were_told(manner: str) -> None:
    with serving(told) as address:
        got = play(manner, address)
    assert (got.made, got.uncut, len(got.cut_s), got.statuses) == (COUNT, 0, COUNT, {"408": COUNT})
    assert 0.25 < got.cut_s[0] <= got.cut_s[-1] < 0.8


@pytest.mark.parametrize("manner", [READERS, DEAF_READERS])
def test_slow_readers_notice_a_reset_behind_what_they_have_not_read(manner: str) -> None:
    with serving(reset) as address:
        got = play(manner, address)
    assert (got.uncut, len(got.cut_s)) == (0, COUNT)
    assert 0.25 < got.cut_s[0] <= got.cut_s[-1] < 0.8


@pytest.mark.parametrize("manner", [HEADS, SILENT_BODIES, TRICKLED_BODIES, READERS, DEAF_READERS])
def test_who_is_not_cut_is_counted(manner: str) -> None:
    with serving(waits) as address:
        got = play(manner, address, most_s=0.5)
    assert (got.made, got.uncut, got.cut_s) == (COUNT, COUNT, [])


def takes_all(connection: socket.socket) -> None:
    left = 3_000_000
    while left > 0:
        left -= len(connection.recv(100_000))
    connection.sendall(b"HTTP/1.1 200 OK\r\n\r\n")


def refuses(connection: socket.socket) -> None:
    connection.sendall(b"HTTP/1.1 503 Busy\r\nretry-after: 1\r\n\r\n")
    while connection.recv(100_000):
        pass


def refuses_without_a_time(connection: socket.socket) -> None:
    connection.sendall(b"HTTP/1.1 503 Busy\r\n\r\n")
    connection.recv(100)


@pytest.mark.parametrize(
    ("behave", "fate"),
    [(takes_all, "answered"), (refuses, "refused"), (reset, "cut"), (refuses_without_a_time, "others")],
)
def test_every_large_body_has_one_fate(behave: Callable[[socket.socket], None], fate: str) -> None:
    if behave is reset:

        def behave(connection: socket.socket) -> None:
            connection.recv(1000)
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)

    with serving(behave) as address:
        got = flood.play(flood.Ask(address, "m", COUNT, 3_000_000, "x-a: b\r\n", 5.0))
    expected = {"answered": 0, "refused": 0, "cut": 0, "others": 0} | {fate: COUNT}
    assert got == flood.Got(**expected, unended=0)


@pytest.mark.parametrize("quick", [False, True])
def test_every_bar_is_of_a_work(quick: bool) -> None:
    loads = {load for work in works(quick) for load in work.loads}
    assert {what.partition(".")[0] for what in BARS if not what.startswith("slowhttptest")} <= loads
