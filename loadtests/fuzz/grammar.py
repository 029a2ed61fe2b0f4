"""Messages that a generator makes: valid ones of the grammar, then changed where readers differ; all by one seed.

A message is a list of atoms (its lines, its body's pieces), so that a change hits what has a meaning: a line twice,
another line's end, a length that is one too much. Some of the atoms come from the cases.
"""

from collections.abc import Sequence
from random import Random

from loadtests.fuzz.answer_case import answer_cases
from loadtests.fuzz.cases import cases

Atoms = list[bytes]
SMALL_BYTES = 600

_NASTY = (
    b"\r\n", b"\n", b"\r", b"\r\r\n", b"\n\r", b"\r\n\r\n", b" ", b"\t", b"\x00", b"\x0b", b"\x7f", b"\x80",
    b"\xff", b":",
    b"::", b",", b";", b'"', b"0", b"1", b"00", b"-", b"+", b"0x", b"_", b"#", b"%00", b"HTTP/1.1", b"chunked",
    b"close",
    b"a" * 300, b"Content-Length: 3\r\n", b"Transfer-Encoding: chunked\r\n", b"0\r\n\r\n", b"Host: x\r\n",
    b"Expect: 100-continue\r\n", b"Connection: close\r\n",
)  # fmt: skip
_ENDS = (b"\n", b"\r", b"\r\r\n", b"", b" \r\n", b"\r\n ", b"\t\r\n", b"\r\n\r\n", b"\x00\r\n")
_NUMBERS = (
    b"0",
    b"1",
    b"2",
    b"4",
    b"6",
    b"7",
    b"05",
    b"+5",
    b"-1",
    b"5,5",
    b"0x5",
    b"99999999999999999999",
    b"1e1",
    b"a",
)
_MODELS = (b"plain", b"plain", b"canary", b"pair", b"shadow", b"none")
_METHODS = (b"GET", b"POST", b"DELETE", b"HEAD", b"PUT", b"OPTIONS")
_LINES = (
    b"POST /v2/models/%s/infer HTTP/1.1\r\n", b"POST /v2/models/%s/infer HTTP/1.1\r\n",
    b"GET /v2/models/%s HTTP/1.1\r\n",
    b"POST /v2/models/%s/versions/2/infer HTTP/1.1\r\n", b"POST /v2/models/%s/generate_stream HTTP/1.1\r\n",
    b"HEAD /v2/models/%s/ready HTTP/1.1\r\n", b"GET http://gw/v2/models/%s/config HTTP/1.1\r\n",
    b"POST /v2/models/%s/infer HTTP/1.0\r\n", b"GET /v2/health/ready HTTP/1.1\r\n", b"POST /v1/feedback HTTP/1.1\r\n",
    b"GET /v2/models/%s/infer HTTP/1.1\r\n", b"POST http://gw/v2/models/%s/infer HTTP/1.1\r\n",
)  # fmt: skip
_FIELDS = (
    b"Content-Type: application/json\r\n", b"Accept: */*\r\n", b"Accept-Encoding: gzip\r\n",
    b"Connection: keep-alive\r\n",
    b"Connection: close\r\n", b"Connection: x-one, x-two\r\nX-One: 1\r\n", b"X-Sluice-Key: k\r\n", b"TE: trailers\r\n",
    b"X-Sluice-Release: 2\r\n", b"X-Sluice-Deadline-Ms: 700\r\n", b"Inference-Header-Content-Length: 2\r\n",
    b"Traceparent: 00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01\r\n", b"Expect: 100-continue\r\n",
    b"Upgrade: h2c\r\nConnection: upgrade\r\n", b"X-Empty:\r\n", b"X-Under_Score: y\r\n", b"Cookie: a=b; c=d\r\n",
    b"X-Request-Id: two words\r\n", b"Content-Encoding: gzip\r\n",
)  # fmt: skip
_BODIES = (
    b"",
    b"{}",
    b"hello",
    b'{"inputs": []}',
    b"x" * 100,
    b"GET / HTTP/1.1\r\nHost: x\r\n\r\n",
    b"\r\n\r\n",
    b"0\r\n\r\n",
)
_STATUSES = (b"200 OK", b"200 OK", b"200 OK", b"404 Not Found", b"500 Broken", b"503 Busy", b"204 None", b"302 Found")
_ANSWER_FIELDS = (
    b"Content-Type: application/json\r\n", b"Connection: close\r\n", b"Connection: keep-alive\r\n",
    b"X-Request-Id: evil\r\n",
    b"X-Sluice-Release: evil/1\r\n", b"Inference-Header-Content-Length: 2\r\n", b"Content-Encoding: gzip\r\n",
    b"Date: x\r\n",
    b"Set-Cookie: a=b\r\nSet-Cookie: c=d\r\n",
)  # fmt: skip


def _atoms_of(data: bytes) -> Atoms:
    return [line for line in data.splitlines(keepends=True) if line]


_REQUEST_CORPUS = [_atoms_of(case.data) for case in cases() if len(case.data) < SMALL_BYTES]
_ANSWER_CORPUS = [_atoms_of(case.data) for case in answer_cases() if 0 < len(case.data) < SMALL_BYTES]


class Grammar:
    """Makes streams of messages. `number` counts them: each request's id is its own."""

    def __init__(self, random: Random) -> None:
        self.random = random
        self.number = 0

    def request(self, model: bytes | None = None) -> Atoms:
        """A valid request, as atoms."""
        random = self.random
        line = random.choice(_LINES)
        if b"%s" in line:
            line = line.replace(b"%s", model or random.choice(_MODELS))
        if random.random() < 0.1:
            line = random.choice(_METHODS) + line[line.index(b" ") :]
        self.number += 1
        fields = [b"Host: gw\r\n", b"X-Request-Id: r%d\r\n" % self.number]
        fields += random.sample(_FIELDS, k=random.choice((0, 0, 1, 2, 4)))
        body = random.choice(_BODIES)
        if random.random() < 0.05:
            body = b"y" * random.choice((1_000, 20_000, 70_000))
        return [line, *self._framed(fields, body, body or line[:4] == b"POST", b"HTTP/1.0" not in line)]

    def answer(self, body: bytes | None = None) -> Atoms:
        """A valid answer; `until close` ones have no length."""
        random = self.random
        line = b"HTTP/1.1 " + random.choice(_STATUSES) + b"\r\n"
        fields = random.sample(_ANSWER_FIELDS, k=random.choice((0, 0, 1, 2)))
        interim = [b"HTTP/1.1 100 Continue\r\n", b"\r\n"] if random.random() < 0.1 else []
        if b" 204 " in line:
            return [*interim, line, *fields, b"\r\n"]
        body = random.choice(_BODIES) if body is None else body
        if random.random() < 0.1:
            return [*interim, line, *fields, b"\r\n", body]
        return [*interim, line, *self._framed(fields, body, True, True)]

    def _framed(self, fields: Atoms, body: bytes, has_body: bytes | bool, takes_chunks: bool) -> Atoms:
        """Fields with the framing among them, and the body; in chunks now and then."""
        random = self.random
        if not has_body:
            return [*fields, b"\r\n"]
        if not takes_chunks or random.random() < 0.6:
            fields.insert(random.randrange(len(fields) + 1), b"Content-Length: %d\r\n" % len(body))
            return [*fields, b"\r\n", body]
        fields.insert(random.randrange(len(fields) + 1), b"Transfer-Encoding: chunked\r\n")
        atoms = [*fields, b"\r\n"]
        at = 0
        while at < len(body):
            size = random.randint(1, len(body) - at)
            extension = random.choice((b"", b"", b"", b";a=b"))
            atoms += [b"%x%s\r\n" % (size, extension), body[at : at + size], b"\r\n"]
            at += size
        return [*atoms, b"0\r\n", *random.choice(([], [], [b"X-Trailer: y\r\n"])), b"\r\n"]

    def requests(self) -> tuple[bytes, bool]:
        """A few requests one behind the other, and are they all valid?"""
        return self._stream(self.request, _REQUEST_CORPUS, self.random.choice((1, 1, 2, 3)))

    def answers(self, body: bytes | None = None) -> tuple[bytes, bool]:
        """What a server says to one request: an answer, and now and then more."""
        return self._stream(lambda: self.answer(body), _ANSWER_CORPUS, 2 if self.random.random() < 0.1 else 1)

    def _stream(self, make: object, corpus: list[Atoms], number: int) -> tuple[bytes, bool]:
        random = self.random
        assert callable(make)
        is_valid = random.random() < 0.3
        atoms: Atoms = []
        for _ in range(number):
            message: Atoms = make()
            if not is_valid and random.random() < 0.3:
                message = list(random.choice(corpus))
            atoms += message
        if not is_valid:
            for _ in range(random.choice((1, 1, 1, 2, 3, 6))):
                self._change(atoms, corpus)
        return b"".join(atoms), is_valid

    def _change(self, atoms: Atoms, corpus: list[Atoms]) -> None:
        """One change somewhere."""
        random = self.random
        if not atoms:
            return
        at = random.randrange(len(atoms))
        atom = atoms[at]
        match random.randrange(12):
            case 0:
                atoms[at] = random.choice(random.choice(corpus))
            case 1:
                atoms.insert(random.randrange(len(atoms) + 1), atom)
            case 2:
                del atoms[at]
            case 3:
                other = random.randrange(len(atoms))
                atoms[at], atoms[other] = atoms[other], atom
            case 4:
                atoms.insert(at, random.choice(random.choice(corpus)))
            case 5:
                atoms[at] = _with_byte(atom, random.randrange(len(atom) + 1), bytes((random.randrange(256),)), 1)
            case 6:
                atoms[at] = _with_byte(atom, random.randrange(len(atom) + 1), random.choice(_NASTY), 0)
            case 7:
                del atoms[at:]
            case 8:
                other = random.randrange(len(atoms))
                atoms[other:] = random.choice(corpus)[-random.randrange(1, 6) :]
            case 9:
                atoms[at] = _with_number(atom, random.choice(_NUMBERS))
            case 10:
                atoms[at] = atom.rstrip(b"\r\n") + random.choice(_ENDS)
            case _:
                atoms[at] = atom.swapcase()

    def pieces(self, data: bytes) -> Sequence[bytes]:
        """The data as it may come from the wire."""
        random = self.random
        how = random.random()
        if how < 0.4 or len(data) < 2:
            return [data]
        if how < 0.5 and len(data) < SMALL_BYTES:
            return [data[at : at + 1] for at in range(len(data))]
        cuts = sorted({random.randrange(1, len(data)) for _ in range(random.choice((1, 1, 2, 5)))})
        return [data[start:end] for start, end in zip([0, *cuts], [*cuts, len(data)], strict=True)]


def _with_byte(atom: bytes, at: int, new: bytes, without: int) -> bytes:
    return atom[:at] + new + atom[at + without :]


def _with_number(atom: bytes, number: bytes) -> bytes:
    """Another number in place of the atom's first one."""
    start = next((at for at in range(len(atom)) if atom[at : at + 1].isdigit()), None)
    if start is None:
        return number
    end = start
    while atom[end : end + 1].isdigit():
        end += 1
    return atom[:start] + number + atom[end:]
