"""The cases of families 1 to 9: lengths, codings, chunks and trailers."""

from collections.abc import Iterator

from loadtests.fuzz.case import (
    END,
    SMUGGLED,
    TE,
    Case,
    Forwarded,
    coded,
    field_line,
    in_chunks,
    named,
    passed,
    post,
    refused,
    sized,
)


def _framed_twice() -> Iterator[Case]:
    """Families 1 and 2."""
    yield from refused(1, {
        "CL and TE": post(b"Content-Length: 5\r\n" + TE, END + b"G"),
        "TE and CL": post(TE + b"Content-Length: 5\r\n", END + b"G"),
        "CL of the whole and TE": post(b"Content-Length: 5\r\n" + TE, END),
        "CL 0 and TE": post(b"Content-Length: 0\r\n" + TE, b"5\r\nhello\r\n" + END),
        "lower case CL and TE": post(b"content-length: 5\r\ntransfer-encoding: chunked\r\n", END),
        "CL and TE with fields between": post(b"Content-Length: 5\r\nX: y\r\nAccept: */*\r\n" + TE, END),
        "CL and smuggled": post(b"Content-Length: %d\r\n" % (5 + len(SMUGGLED)) + TE, END + SMUGGLED),
        "CL and TE without a value": post(b"Content-Length: 5\r\nTransfer-Encoding:\r\n", b"hello"),
        "CL and TE identity": post(b"Content-Length: 5\r\nTransfer-Encoding: identity\r\n", b"hello"),
    })  # fmt: skip
    two = b"Content-Length: %d\r\nContent-Length: %d\r\n"
    yield from refused(2, {
        "two CLs": post(two % (0, 31)),
        "two CLs, the larger first": post(two % (31, 0)),
        "two equal CLs": post(two % (5, 5), b"hello"),
        "two CLs of 0": post(two % (0, 0)),
        "two CLs in other case": post(b"Content-Length: 5\r\nCONTENT-LENGTH: 5\r\n", b"hello"),
        "three CLs": post(b"Content-Length: 5\r\n" * 3, b"hello"),
        "CLs far apart": post(b"Content-Length: 5\r\n" + b"X: y\r\n" * 20 + b"Content-Length: 6\r\n", b"hello"),
    } | named((b"5, 5", b"5,5", b"5, 6", b"0, 31", b"5,", b",5", b"5 5", b"5\t5"), sized(b"%")))  # fmt: skip


def _lengths() -> Iterator[Case]:
    """Family 3."""
    wrong = (
        b"+5", b"-5", b"-48", b"-0", b"0x5", b"0x10", b"05", b"00", b"010", b"5Z", b"1Z", b"", b"  ", b"1_0", b"5.0",
        b"5e0", b"1 0", b"5;", b'"5"', b"\xef\xbc\x95", b"\xd9\xa5", b"\xb2", b"5\xa0", b"\xa05", b"\x855", b"five",
        b"0b101", b"5h", b"(5)", b"5,0", b"5\x0b", b"\x0c5", b"5\x00",
    )  # fmt: skip
    yield from refused(3, named(wrong, sized(b"%")))
    too_long = (b"67108865", b"9" * 18, b"9" * 19, b"9" * 20, b"18446744073709551621", b"9" * 5000)
    yield from refused(3, {f"{len(one)} digits": sized(one) for one in too_long}, 413)
    yield from passed(3, named((b"5", b" 5 ", b"\t5\t", b"5\t ", b"   5"), sized(b"%")))
    yield Case(3, "3. zero", sized(b"0", b""), Forwarded())


def _codings() -> Iterator[Case]:
    """Families 4 and 5."""
    wrong = (
        b",chunked", b"chunked,", b",", b"\x0bchunked", b"chunked\x0b", b"chunked, identity", b"identity, chunked",
        b"gzip, chunked", b"chunked, gzip", b"chunked, chunked", b'"chunked"', b"'chunked'", b"chunked;x=1",
        b"chunked;q=1", b"xchunked", b"chunkedx", b"chunk", b"identity", b"", b" ", b"chun ked", b"chun\tked",
        b"\xa0chunked", b"chunked\x85", b"\xefchunked", b"cow", b"chunked\x00", b"[chunked]", b"chunked=1",
    )  # fmt: skip
    yield from refused(4, named(wrong, coded(b"%", b"5\r\nhello\r\n" + END)))
    yield from refused(4, {
        "TE twice": post(TE + TE, END),
        "TE chunked and TE identity": post(TE + b"Transfer-Encoding: identity\r\n", END),
        "TE identity and TE chunked": post(b"Transfer-Encoding: identity\r\n" + TE, END),
        "TE twice in other case": post(TE + TE.lower(), END),
    })  # fmt: skip
    clear = named((b"chunked", b"Chunked", b"CHUNKED", b" \tchunked\t "), coded(b"%", b"5\r\nhello\r\n" + END))
    yield from passed(4, clear)
    names = (
        b"Transfer-Encoding : chunked", b"Transfer-Encoding\t: chunked", b"Transfer-Encoding\x00: chunked",
        b" Transfer-Encoding: chunked", b"\tTransfer-Encoding: chunked", b"Transfer-\r\nEncoding: chunked",
        b"Transfer-\r\n Encoding: chunked", b"Transfer-Encoding\r\n : chunked", b"Transfer-Encoding:\r\n chunked",
        b"Transfer_Encoding: chunked", b"transfer_encoding: x", b"Transfer Encoding: chunked", b"Transfer-Encoding",
        b"Transfer-Encod\xc4\xb1ng: chunked", b"\xefTransfer-Encoding: chunked", b"Transfer-Encoding=chunked",
        b"X: X\rTransfer-Encoding: chunked", b"X: X\nTransfer-Encoding: chunked", b"X: \rxTransfer-Encoding: chunked",
        b"Content-Length : 5", b"Content_Length: 5", b"Content Length: 5", b"Content-Length\x0b: 5", b"content_length:",
    )  # fmt: skip
    yield from refused(5, named(names, post(b"%\r\n", END)))
    lookalikes = (b"X-Transfer-Encoding: chunked", b"Transfer-Encodings: chunked", b"TransferEncoding: chunked")
    yield from passed(5, named(lookalikes, field_line(b"%")))


def _chunks() -> Iterator[Case]:
    """Families 6 to 9."""
    sizes = (
        b"0_5", b"+5", b"-5", b"-0x0", b"0x5", b"0x", b" 5", b"5 ", b"\t5", b"5\t", b"", b"5hello", b"g", b"5h", b"5.",
        b"\xef\xbc\x95", b"\xb2", b"5\x00", b"5\x0b", b"1" + b"0" * 16, b"f" * 17, b"0" * 17, b"5,5", b"'5'", b"#5",
    )  # fmt: skip
    yield from refused(6, named(sizes, in_chunks(b"%\r\nhello\r\n" + END)))
    yield from refused(6, {"a size of 100,000 zeros": in_chunks(b"0" * 100_000 + b"5\r\nhello\r\n" + END)})
    yield from refused(6, {"a size beyond the body's": in_chunks(b"ffffffffffffffff\r\nhello")}, 413)
    yield from passed(6, named((b"5", b"05", b"0" * 15 + b"5"), in_chunks(b"%\r\nhello\r\n" + END)))
    yield from passed(6, {"upper case": in_chunks(b"1\r\nh\r\n4\r\nello\r\n0000\r\n\r\n")})
    yield Case(6, "6. hexadecimal", in_chunks(b"A\r\n0123456789\r\na\r\nabcdefghij\r\n" + END),
               Forwarded(b"0123456789abcdefghij"))  # fmt: skip
    ends = (
        b"5\nhello\r\n" + END, b"5\r\rhello\r\n" + END, b"5\rhello\r\n" + END, b"5\r\nhello\n" + END,
        b"5\r\nhello\r" + END, b"5\r\nhelloXX" + END, b"5\r\nhello" + END, b"5\r\nhello!\r\n" + END,
        b"5\r\nhell\r\n" + END, b"5\r\nhello\r\r\n" + END, b"0\r\nXX", b"0\n\n", b"0\r\n\n", b"0\n\r\n", b"0\r\r\n\r\n",
        b"0\rX\r\n", b"5\r\nhello\r\n0\n\r\n", b"5\r\nhello\r\n\r\n" + END, b"\n5\r\nhello\r\n" + END, b"\r\n" + END,
        b"5\r\nhello\r\n0\r\nX: y\n\r\n",
    )  # fmt: skip
    yield from refused(7, named(ends, in_chunks(b"%")))
    extensions = (
        b"5;", b"5;\x00", b"5;a\x00b", b"5;a\x01", b"5;a\x7f", b"5;a\nxx", b"5;a\rxx", b"5 ;a=b", b"5; a=b",
        b"5;\ta", b"5;a=\xff", b"5;=b", b"5;a=", b"5;a b", b'5;a="b', b'5;"a"', b"5;a;", b"5;a=b=c", b'5;a="b"c',
        b"5;a=" + b"b" * 300, b"5;" + b"a" * 65536, b"0;", b"0;\x00",
    )  # fmt: skip
    by_name = {repr(one[:12])[2:-1] + f" of {len(one)} bytes": one for one in extensions}
    yield from refused(8, {name: in_chunks(one + b"\r\nhello\r\n" + END) for name, one in by_name.items()})
    clear = (b"5;a", b"5;a=b", b'5;a="b c"', b"5;a=b;c=d", b'5;a="\\""', b"5;" + b"a" * 200)
    yield from passed(8, named(clear, in_chunks(b"%\r\nhello\r\n" + END)))
    yield from passed(8, {"an extension of the last chunk": in_chunks(b"5\r\nhello\r\n0;a=b\r\n\r\n")})
    trailers = (
        b"Content-Length: 5", b"content-length: 0", b"Transfer-Encoding: chunked", b"TRANSFER-ENCODING: identity",
        b"X", b"X : y", b" X: y", b": y", b"X: a\x00b", b"X: y\r\n z", b"X: a\x01", b"X\xff: y", b"X: a\rb", b"X: a\nb",
        b"X: " + b"a" * 100_000,
    )  # fmt: skip
    by_name = {repr(one[:24])[2:-1]: one for one in trailers}
    data = {name: in_chunks(b"5\r\nhello\r\n0\r\n" + one + b"\r\n\r\n") for name, one in by_name.items()}
    yield from refused(9, data, 400, 431)
    yield from refused(9, {
        "no empty line behind a trailer": in_chunks(b"0\r\nX: y\r\n"), "no empty line": in_chunks(b"0\r\n"),
    })  # fmt: skip
    yield from refused(9, {"200 trailers": in_chunks(b"0\r\n" + b"X: y\r\n" * 200 + b"\r\n")}, 431)
    dropped = (b"X: y", b"Host: evil", b"Authorization: x", b"X-Sluice-Release: 2", b"Expect: 100-continue",
               b"Connection: close", b"X-Request-Id: evil", b"Content-Type: a\r\nContent-Type: b")  # fmt: skip
    for one in dropped:
        verdict = Forwarded(b"hello", absent=(b"x", b"authorization", b"content-type"))
        yield Case(9, f"9. {one!r} dropped", in_chunks(b"5\r\nhello\r\n0\r\n" + one + b"\r\n\r\n"), verdict)


def body_cases() -> Iterator[Case]:
    yield from _framed_twice()
    yield from _lengths()
    yield from _codings()
    yield from _chunks()
