"""Fuzzes the readers of heads and chunks alone, many thousand inputs a second, beside llhttp.

    python -m loadtests.fuzz.readers --inputs 10000000

An input is a head or a chunked body with some bytes changed. It must be refused by the error that is meant for it, or
be read as llhttp reads it. `loadtests.fuzz` tries whole connections, which is slower and finds other things.
"""

import argparse
import multiprocessing
import os
import resource
import sys
import time
from random import Random

import httptools

from gateway.answers import RefusedError
from gateway.chunks import ChunkLimits, ChunkReader
from gateway.heads import CHUNKED, AnswerError, AnswerReader, RequestReader

BATCH = 20_000
_HEADS = [
    b"POST /v2/models/m/infer HTTP/1.1\r\nHost: gw\r\nContent-Length: 12\r\nX-A: b",
    b"POST /v2/models/m/infer HTTP/1.1\r\nhost:gw:80\r\nTransfer-Encoding: chunked\r\nTE: trailers",
    b"GET http://gw/v2 HTTP/1.1\r\nHost: gw\r\nConnection: keep-alive, X-B\r\nX-B: \t c ",
    b"HEAD /v2/health/ready?x=1 HTTP/1.0\r\nAccept-Encoding: gzip;q=0\r\nX-Request-Id: a-1",
    b"POST /v2/models/m/infer HTTP/1.1\r\nHost: gw\r\nExpect: 100-continue\r\nContent-Length: 0\r\nX_C: \xff\xfe",
]
_ANSWERS = [
    b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 12",
    b"HTTP/1.1 500 Internal Server Error\r\nTransfer-Encoding: chunked\r\nConnection: close",
    b"HTTP/1.0 204\r\nX-Sluice-Release: a/1\r\nKeep-Alive: 5",
]
_BODIES = [
    b"5\r\nhello\r\n0\r\n\r\n",
    b"005;a=b\r\nhello\r\n1\r\n!\r\n000\r\nX: y\r\nTrailer-B: z\r\n\r\nGET / HTTP/1.1\r\n",
    b"A\r\n0123456789\r\nfF;x\r\n" + b"x" * 255 + b"\r\n0\r\n\r\n",
]
_BYTES = b'\r\n\x00\t :;,0159aAfFxX+-_#/\\"\x7f\x80\xff'
_LIMITS = ChunkLimits(10_000, 100, 500, 10)


class WrongReadingError(AssertionError):
    """We and llhttp read an input differently."""


class _Theirs:
    """What llhttp makes of a message."""

    def __init__(self) -> None:
        self.target = self.body = b""
        self.fields: list[tuple[bytes, bytes]] = []
        self.is_head_over = self.is_over = False

    def on_url(self, url: bytes) -> None:
        self.target += url

    def on_header(self, name: bytes, value: bytes) -> None:
        if not self.is_head_over:
            self.fields.append((name.lower(), value.strip(b" \t")))

    def on_headers_complete(self) -> None:
        self.is_head_over = True

    def on_body(self, body: bytes) -> None:
        self.body += body

    def on_message_complete(self) -> None:
        self.is_over = True


def changed(random: Random, seeds: list[bytes]) -> bytes:
    """One of these with up to four changes."""
    data = random.choice(seeds)
    for _ in range(random.randrange(5)):
        at, kind = random.randrange(len(data) + 1), random.randrange(5)
        byte = bytes((random.choice(_BYTES),)) if kind < 3 else b""
        if kind == 0:
            data = data[:at] + byte + data[at:]
        elif kind == 1:
            data = data[:at] + byte + data[at + 1 :]
        elif kind == 2:
            data = data[:at] + byte * random.randrange(40) + data[at:]
        elif kind == 3:
            data = data[:at] + data[at + random.randrange(1, 9) :]
        else:
            other = random.choice(seeds)
            data = data[:at] + other[random.randrange(len(other)) :]
    return data


def try_head(random: Random, reader: RequestReader) -> None:
    head = changed(random, _HEADS)
    if b"\r\n\r\n" in head or head.startswith(b"\r\n") or head.endswith(b"\r\n"):
        return  # It would have ended sooner, or later.
    try:
        reader.check_part(head[: random.randrange(len(head) + 1)], 0)
        read = reader[head]
    except RefusedError as exc:
        if exc.status not in (400, 413, 414, 417, 431, 501, 505):
            raise WrongReadingError(f"{head!r} was refused with {exc.status}") from exc
        return
    theirs = _Theirs()
    parser = httptools.HttpRequestParser(theirs)
    try:
        # A tab may stand where a space may (RFC 9110, 5.6.3); llhttp does not take it behind a transfer coding.
        parser.feed_data(head.replace(b"\t", b" ") + b"\r\n\r\n")
    except httptools.HttpParserUpgrade:
        pass
    except httptools.HttpParserError as exc:
        raise WrongReadingError(f"{head!r} was read, and llhttp refuses it: {exc}") from exc
    target = b"/" + theirs.target.split(b"/", 3)[3] if theirs.target[:1] != b"/" else theirs.target
    values = {name: value for name, value in theirs.fields if name not in (b"connection", b"x-request-id")}
    ours = {
        name: value.replace(b"\t", b" ")
        for name, value in read.values.items()
        if name not in (b"connection", b"x-request-id")
    }
    if (read.method, read.target, ours) != (parser.get_method(), target, values):
        raise WrongReadingError(f"{head!r} is {read.method!r} {read.target!r} {ours!r}, not {values!r}")
    length = CHUNKED if b"transfer-encoding" in values else int(values.get(b"content-length", 0))
    if read.length != length:
        raise WrongReadingError(f"{head!r} has the length {read.length}")


def try_answer(random: Random, reader: AnswerReader) -> None:
    head = changed(random, _ANSWERS)
    try:
        reader.check_part(head)
        reader[head]
    except AnswerError:
        return


def try_chunks(random: Random) -> None:
    data = changed(random, _BODIES)
    reader, content, at = ChunkReader(_LIMITS), list[bytes | memoryview](), 0
    behind: bytes | None = None
    try:
        while at < len(data) and behind is None:
            size = random.choice((1, 3, 7, 1000))
            behind = reader.feed(data[at : at + size], content)
            at += size
    except RefusedError:
        return
    if behind is None:
        return
    theirs = _Theirs()
    parser = httptools.HttpRequestParser(theirs)
    whole = data[: min(at, len(data)) - len(behind)]
    try:
        parser.feed_data(b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n" + whole)
    except httptools.HttpParserError as exc:
        raise WrongReadingError(f"{data!r} was read, and llhttp refuses it: {exc}") from exc
    if not theirs.is_over or theirs.body != b"".join(content):
        raise WrongReadingError(f"{data!r} is {content!r}, not {theirs.body!r}")


def work(seed: int) -> tuple[int, str]:
    """Try the inputs of one seed; how many, and what was wrong with the last one."""
    random = Random(seed)
    requests, answers = RequestReader(200, 200, 1000, 20, 10_000), AnswerReader(1000)
    for number in range(BATCH):
        kind = number % 4
        try:
            if kind < 2:
                try_head(random, requests)
            elif kind == 2:
                try_chunks(random)
            else:
                try_answer(random, answers)
        except Exception as exc:
            return number + 1, f"seed {seed}, input {number}: {type(exc).__name__}: {exc}"
    return BATCH, ""


def main() -> None:
    parser = argparse.ArgumentParser(description="Fuzz the readers of heads and chunks beside llhttp.")
    parser.add_argument("--inputs", type=int, default=10_000_000)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--processes", type=int, default=len(os.sched_getaffinity(0)))
    asked = parser.parse_args()
    done, began_s, seeds = 0, time.monotonic(), range(asked.seed, asked.seed + -(-asked.inputs // BATCH))
    with multiprocessing.Pool(asked.processes) as pool:
        for number, (inputs, wrong) in enumerate(pool.imap_unordered(work, seeds), 1):
            done += inputs
            if wrong:
                sys.exit(wrong)
            if number % 50 == 0 or number == len(seeds):
                speed = done / (time.monotonic() - began_s)
                sys.stdout.write(f"{done:,} inputs, {speed:,.0f}/s, none read otherwise\n")
                sys.stdout.flush()
    peak_mb = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 1024
    sys.stdout.write(f"memory of a process at most {peak_mb:.0f} MB\n")


if __name__ == "__main__":
    main()
