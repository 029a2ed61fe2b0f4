"""The cases of families 10 to 23: versions, hosts, lines, targets, expectations, hop-by-hop fields, limits."""

from collections.abc import Iterator

from loadtests.fuzz.case import (
    CANARY,
    END,
    HOST,
    LINE,
    SMUGGLED,
    TE,
    Answered,
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
    with_line,
)

GET = b"GET /v2/models/plain HTTP/1.1"
READ = b"GET /v2/models/plain/versions/1 HTTP/1.1"
_OLD = LINE.replace(b"1.1", b"1.0")
_HELLO = b"Content-Length: 5\r\n\r\nhello"


def _old_versions() -> Iterator[Case]:
    """Family 10."""
    yield from refused(10, {
        "TE on HTTP/1.0": post(TE, END, _OLD),
        "TE and keep-alive on HTTP/1.0": post(TE + b"Connection: keep-alive\r\n", END, _OLD),
        "TE and CL on HTTP/1.0": post(TE + b"Content-Length: 5\r\n", END, _OLD),
    })  # fmt: skip
    for name, data in {
        "plain": post(_HELLO[:-5], b"hello", _OLD)[:-7] + b"hello",
        "keep-alive": _OLD + HOST + b"Connection: keep-alive\r\n" + _HELLO,
        "without a Host": _OLD + _HELLO,
        "with an expectation": _OLD + HOST + b"Expect: 100-continue\r\n" + _HELLO,
    }.items():
        yield Case(10, f"10. HTTP/1.0 {name}", data, Forwarded(b"hello", closes=True))


def _hosts() -> Iterator[Case]:
    """Family 11."""
    wrong = (
        b"a, b", b"a,b", b"a\x00.b", b"u@a", b"u:p@a", b"a/b", b"a b", b"a\tb", b"", b" ", b"a?b", b"a#b", b"a\\b",
        b'"a"', b"<a>", b"a|b", b"a^b", b"{a}", b"\xffa", b"a\x7f", b"http://gw", b"a:b", b"a:80x", b"a:80:80", b"[::1",
        b"::1", b"[gw]", b":80", b"a:-1", b"a: 80",
    )  # fmt: skip
    yield from refused(11, named(wrong, LINE + b"Host: %\r\n" + _HELLO))
    yield from refused(11, {
        "none": LINE + _HELLO,
        "two": LINE + HOST + HOST + _HELLO,
        "two that differ": LINE + HOST + b"Host: evil\r\n" + _HELLO,
        "two far apart": LINE + HOST + b"X: y\r\n" * 30 + b"Host: evil\r\n" + _HELLO,
        "space before the colon": LINE + b"Host : gw\r\n" + _HELLO,
        "folded": LINE + b"Host:\r\n gw\r\n" + _HELLO,
        "another authority": with_line(b"GET http://evil/v2/models/plain HTTP/1.1"),
        "an authority with a user": with_line(b"GET http://u@gw/v2/models/plain HTTP/1.1"),
        "an authority with another port": with_line(b"GET http://gw:81/v2/models/plain HTTP/1.1"),
        "no authority": with_line(b"GET http:///v2/models/plain HTTP/1.1"),
        "no authority and no Host": b"GET http:///v2/models/plain HTTP/1.0\r\n\r\n",
        "an authority alone": with_line(b"GET http://gw HTTP/1.1"),
        "https": with_line(b"GET https://gw/v2/models/plain HTTP/1.1"),
        "one slash": with_line(b"GET http:/v2/models/plain HTTP/1.1"),
    })  # fmt: skip
    clear = (
        b"gw",
        b"GW",
        b"gw:80",
        b"gw:",
        b"127.0.0.1:8000",
        b"[::1]",
        b"[::1]:80",
        b"a_b.example",
        b"\tgw ",
        b"a%20b",
    )
    yield from passed(11, named(clear, LINE + b"Host: %\r\n" + _HELLO))
    for target in (b"http://gw/v2/models/plain", b"http://GW/v2/models/plain", b"HTTP://gw/v2/models/plain?x"):
        yield Case(11, f"11. {target!r}", with_line(b"GET " + target + b" HTTP/1.1"), Forwarded(line=READ))


def _lines() -> Iterator[Case]:
    """Families 12 and 13."""
    bad_lines = (
        b"X: b\r\n c", b"X: b\r\n\tc", b"X: b\r\n ", b"X:\r\n b", b"X: y\nZ: z", b"X: y\n", b"X: y\r\rZ: z",
        b"X: y\rZ: z",
        b"Xyz", b"", b": x", b":", b" : x", b"X Y: z", b" X: y", b"\tX: y", b"X\t: y", b"X : y", b"\x0bX: y", b"X: y\r",
        b"=", b"\xef\xbb\xbfX: y",
    )  # fmt: skip
    yield from refused(12, named([line for line in bad_lines if line], field_line(b"%")))
    yield from refused(12, {
        "bare LF": LINE.replace(b"\r", b"") + b"Host: gw\n\n",
        "bare LF behind the request line": LINE.replace(b"\r", b"") + HOST + b"\r\n",
        "bare CR behind the request line": LINE.replace(b"\n", b"") + HOST + b"\r\n",
        "LF CR": LINE.replace(b"\r\n", b"\n\r") + b"Host: gw\n\r\n\r",
        "bare LF before the empty line": LINE + b"Host: gw\n\r\n",
        "bare LF as the empty line": LINE + b"Host: gw\r\n\n",
        "CR CR LF": LINE + b"Host: gw\r\r\n\r\r\n",
        "space before the first field": LINE + b" Host: gw\r\n\r\n",
        "space in the empty line": LINE + HOST + b" \r\n\r\n",
        "CR and a letter in front": b"\r" + post(_HELLO[:-7]),
        "LF in front": b"\n" + post(),
        "space in front": b" " + post(),
        "100 empty lines in front": b"\r\n" * 100 + post(),
        "9 empty lines in front": b"\r\n" * 9 + post(),
    })  # fmt: skip
    yield from passed(12, {
        "an empty line in front": b"\r\n" + field_line(b"X: y"),
        "8 empty lines in front": b"\r\n" * 8 + field_line(b"X: y"),
    })  # fmt: skip
    controls = [bytes((byte,)) for byte in (*range(9), 11, 12, *range(14, 32), 127)]
    yield from refused(13, {f"{one!r} in a value": field_line(b"X: a" + one + b"b") for one in controls})
    yield from refused(13, {f"{one!r} ends a value": field_line(b"X: a" + one) for one in (b"\x00", b"\x0b", b"\x7f")})
    yield from refused(13, {f"{one!r} starts a value": field_line(b"X: " + one) for one in (b"\x00", b"\x0c", b"\x1f")})
    delimiters = [bytes((byte,)) for byte in b'\x00\x01\x1f\x7f "(),/;<=>?@[\\]{}\x80\x85\xa0\xff']
    yield from refused(13, {f"{one!r} in a name": field_line(b"X" + one + b"Y: z") for one in delimiters})
    for value in (b"\x85a\xa0", b"\xffa\xff", b"a\tb", b"\xc3\xa9", b"a,, b;", b'"', b"a:b", b""):
        yield Case(
            13, f"13. {value!r} as a value", field_line(b"X: " + value), Forwarded(b"hello", fields={b"x": value})
        )
    name = b"!#$%&'*+-.^`|~"
    yield Case(13, "13. all symbols in a name", field_line(name + b": z"), Forwarded(b"hello", fields={name: b"z"}))


def _request_lines() -> Iterator[Case]:
    """Family 14."""
    wrong = (
        b"GET  /v2 HTTP/1.1", b"GET /v2  HTTP/1.1", b"GET /v2 HTTP/1.1 ", b"GET /v2 HTTP/1.1\t", b"GET\t/v2\tHTTP/1.1",
        b"GET /v2\tHTTP/1.1", b"GET /v2 http/1.1", b"GET /v2 HTTP/1.10", b"GET /v2 HTTP/01.1", b"GET /v2 HTTP/1,1",
        b"GET /v2 HTTP/1", b"GET /v2 HTTP/1.", b"GET /v2 HTTP/.1", b"GET /v2 HTTP/+1.1", b"GET /v2 HTTP /1.1",
        b"GET /v2 HTTP/1.1 x", b"GET /v2 RTSP/1.0", b"GET /v2 ICE/1.0", b"GET /v2 HTTPS/1.1", b"GET /v2", b"GET",
        b"/v2",
        b"GET HTTP/1.1", b" HTTP/1.1", b"get /v2 HTTP/1.1", b"Get /v2 HTTP/1.1", b"G\x00T /v2 HTTP/1.1",
        b"G\xc9T /v2 HTTP/1.1", b"G-T /v2 HTTP/1.1", b"GET /a b HTTP/1.1", b"GET /v2#b HTTP/1.1", b"GET # HTTP/1.1",
        b"GET * HTTP/1.1", b"OPTIONS * HTTP/1.1", b"GET v2 HTTP/1.1", b"GET gw:80 HTTP/1.1", b"GET ?a HTTP/1.1",
        b"GET \\v2 HTTP/1.1", b"GET /\xff HTTP/1.1", b"GET /\x00 HTTP/1.1", b"GET /\x7f HTTP/1.1",
        b"GET /a\x0bb HTTP/1.1",
        b"GET /\xc3\xa9 HTTP/1.1", b"HTTP/1.1 200 OK", b"GET ftp://gw/v2 HTTP/1.1", b"A" * 25 + b" /v2 HTTP/1.1",
    )  # fmt: skip
    yield from refused(14, {repr(one)[2:40]: with_line(one) for one in wrong})
    versions = (b"1.9", b"2.0", b"0.9", b"1.2", b"3.0", b"9.9", b"0.0")
    yield from refused(14, {f"HTTP/{one.decode()}": with_line(GET[:-3] + one) for one in versions}, 505)
    methods = (b"FOO", b"PURGE", b"SOURCE", b"DESCRIBE", b"PROPFIND", b"CONNECT", b"PRI")
    yield from refused(14, {f"{one!r}": with_line(one + b" /v2 HTTP/1.1") for one in methods}, 501)
    yield from refused(14, {
        "CONNECT": with_line(b"CONNECT gw:80 HTTP/1.1"), "HTTP/2": b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
        "TLS": b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + b"\x00" * 50,
        "PROXY": b"PROXY TCP4 1.2.3.4 1.2.3.4 80 80\r\n" + post(),
    }, 400, 501, 505)  # fmt: skip
    elsewhere = (
        b"//v2/models/plain", b"/v2//models/plain", b"/v2/models//plain", b"/v2/models/../models/plain",
        b"/v2/./models/plain", b"/v2/models/plain/", b"/v2/models/plain/.", b"/v2/models/pl%61in",
        b"/v2/models/plain;x",
        b"/v2/models/plain%2finfer", b"/v2/models/plain%00", b"/v2/models/%00", b"/v2/models/%0d%0aX:%20y", b"/v2/",
        b"/v2/models/%c0%af", b"/v2/models/..%2f", b"/v2\\models\\plain", b"/V2/models/plain", b"/", b"/%",
        b"/v2/models/plain/versions/", b"/v2/models/plain/versions/1x", b"/v2/models/plain/versions/-1",
        b"/v2/models/plain/versions/" + b"9" * 30, b"/v2/models/plain/versions/9", b"/v2/models/.plain",
        b"/v2/models/plain/infer/x", b"/v2/models", b"/v2/models/", b"/v2/models/" + b"a" * 200,
    )  # fmt: skip
    for one in elsewhere:
        yield Case(14, f"14. {one[:40]!r}", with_line(b"GET " + one + b" HTTP/1.1"), Answered(404))
    forbidden = (b"/v2/repository/index", b"/v2/systemsharedmemory/status", b"/v2/logging", b"/v2/models/plain/trace")
    for one in forbidden:
        yield Case(14, f"14. {one!r}", with_line(b"POST " + one + b" HTTP/1.1"), Answered(403))
    for one in (b"PUT", b"DELETE", b"PATCH", b"TRACE", b"OPTIONS", b"POST"):
        yield Case(14, f"14. {one.decode()}", with_line(one + b" /v2/models/plain HTTP/1.1"), Answered(405))
    queries = (b"?", b"?a=b", b"?a=/v2/repository/index", b"?%0d%0aX:%20y", b"?a?b", b"?//..//")
    for one in queries:
        yield Case(14, f"14. query {one!r}", with_line(GET.replace(b" HTTP", one + b" HTTP")), Forwarded(line=READ))
    yield Case(14, "14. HEAD", with_line(GET.replace(b"GET", b"HEAD")), Forwarded(line=READ))


def _answers_and_expectations() -> Iterator[Case]:
    """Families 15, 16 and 19."""
    yield from refused(15, {"a body that is too large": sized(b"99999999", SMUGGLED * 10)}, 413)
    yield Case(15, "15. an unknown model's body", sized(b"%d" % len(SMUGGLED), SMUGGLED).replace(b"plain", b"none"),
               Answered(404))  # fmt: skip
    yield Case(15, "15. a body for a forbidden path", post(b"Content-Length: %d\r\n" % len(SMUGGLED), SMUGGLED,
               b"POST /v2/repository/index HTTP/1.1\r\n"), Answered(403))  # fmt: skip
    yield Case(15, "15. a body with GET", post(b"Content-Length: %d\r\n" % len(SMUGGLED), SMUGGLED, GET + b"\r\n"),
               Forwarded(line=READ))  # fmt: skip
    yield Case(15, "15. chunks with GET", post(TE, b"%x\r\n%s\r\n" % (len(SMUGGLED), SMUGGLED) + END, GET + b"\r\n"),
               Forwarded(line=READ))  # fmt: skip
    yield Case(15, "15. a request as a body", sized(b"%d" % len(CANARY), CANARY), Forwarded(CANARY))
    wrong = (b"100-continueX", b"100", b"", b"100-continue, 100-continue", b"100-continue;x", b"200-ok",
             b'"100-continue"', b"y 100-continue", b"100_continue", b"100-continue,")  # fmt: skip
    yield from refused(16, named(wrong, field_line(b"Expect: %")), 417)
    yield from refused(16, {
        "twice": field_line(b"Expect: 100-continue\r\nExpect: 100-continue"),
        "with a space before the colon": field_line(b"Expect : 100-continue"),
    })  # fmt: skip
    yield from passed(16, named((b"100-continue", b"100-Continue", b" 100-continue\t"), field_line(b"Expect: %")))
    yield from passed(16, {"chunked": post(b"Expect: 100-continue\r\n" + TE, b"5\r\nhello\r\n" + END)})
    yield Case(16, "16. without a body", post(b"Expect: 100-continue\r\n"), Forwarded())
    yield Case(16, "16. with GET", post(b"Expect: 100-continue\r\n", line=GET + b"\r\n"), Forwarded(line=READ))
    for fields, absent, closes in (
        (b"Connection: close, X-Secret\r\nX-Secret: 1", (b"x-secret",), True),
        (b"Connection: X-Secret\r\nConnection: X-Other\r\nX-Secret: 1\r\nX-Other: 2", (b"x-secret", b"x-other"), False),
        (b"X-Secret: 1\r\nConnection: keep-alive,x-sEcret , ,", (b"x-secret",), False),
        (b"Connection: content-length, host, x-request-id", (), False),
        (b"Connection: Authorization\r\nAuthorization: x", (b"authorization",), False),
        (b"Connection: upgrade\r\nUpgrade: h2c\r\nHTTP2-Settings: x", (b"upgrade", b"http2-settings"), False),
        (b"TE: trailers\r\nTrailer: X\r\nKeep-Alive: 5\r\nProxy-Connection: close", (), False),
        (b"Proxy-Authorization: x\r\nProxy-Authenticate: y", (), False),
        (b"Connection: closed", (), False),
        (b"Connection: CLOSE", (), True),
        (b"Connection:", (), False),
        (b"X-Sluice-Tenant: x\r\nX-Sluice-Key: k\r\nX-SLUICE-: z", (), False),
    ):
        verdict = Forwarded(b"hello", closes, absent=absent)
        yield Case(19, f"19. {fields[:60]!r}", field_line(fields), verdict)


def _limits_and_twins() -> Iterator[Case]:
    """Families 18, 21, 22 and 23."""
    line = LINE.replace(b"infer", b"infer?" + b"a" * 9_000)
    yield from refused(18, {"a request line of 9,000 bytes": post(line=line)}, 414)
    yield from refused(18, {"a request line without end": b"GET /" + b"a" * 40_000}, 414)
    yield from refused(18, {
        "a field of 40,000 bytes": post(b"X: " + b"a" * 40_000 + b"\r\n"),
        "a field of 9,000 bytes": post(b"X: " + b"a" * 9_000 + b"\r\n"),
        "40 fields of 1,000 bytes": post((b"X: " + b"a" * 1_000 + b"\r\n") * 40),
        "101 fields": post(b"X: y\r\n" * 101),
        "a head without end": LINE + HOST + b"X: " + b"a" * 200_000,
    }, 431)  # fmt: skip
    yield from passed(18, {"98 fields": field_line(b"X: y\r\n" * 97 + b"X: y")})
    yield from passed(18, {"a field of 8,000 bytes": field_line(b"X: " + b"a" * 8_000)})
    yield from refused(21, {
        "20,000 fields": post(b"".join(b"X%d: y\r\n" % n for n in range(20_000))),
        "one name 20,000 times": post(b"X: y\r\n" * 20_000),
        "one name 20,000 times in Connection": post(b"Connection: x\r\n" * 20_000),
    }, 431)  # fmt: skip
    yield from refused(21, {"2,000 chunks of one byte": in_chunks(b"1\r\nx\r\n" * 2_000 + END)})
    yield from refused(21, {"400,000 bytes of empty lines": b"\r\n" * 200_000})
    secret = b"SeCrEt-of-the-client"
    yield from refused(22, {
        "a line that is not one": secret + b"\r\n\r\n",
        "a target": with_line(b"GET " + secret + b" HTTP/1.1"),
        "a name": field_line(secret + b" : x"),
        "a value": field_line(b"X: " + secret + b"\x00"),
        "a host": LINE + b"Host: " + secret + b"@\r\n\r\n",
        "a length": sized(secret),
        "a coding": coded(secret),
        "a chunk": in_chunks(secret),
        "a trailer": in_chunks(b"0\r\n" + secret + b"\r\n\r\n"),
        "a method": with_line(b"SECRET /" + secret + b" HTTP/1.1"),
        "a version": with_line(b"GET /" + secret + b" HTTP/7.7"),
        "an expectation": field_line(b"Expect: " + secret),
    }, 400, 417, 501, 505)  # fmt: skip
    twins = (b"Content_Length: 5", b"CONTENT_LENGTH: 5", b"Transfer_Encoding: chunked", b"transfer_Encoding: x")
    yield from refused(23, named(twins, post(b"%\r\n")))
    for twin, name in {
        b"X_Sluice_Release: 2": b"x_sluice_release", b"X-Sluice_Release: 2": b"x-sluice_release",
        b"X_Request_Id: x": b"x_request_id", b"Proxy_Authorization: x": b"proxy_authorization",
        b"Keep_Alive: x": b"keep_alive", b"X_Request-Id: x": b"x_request-id",
    }.items():  # fmt: skip
        yield Case(23, f"23. {twin!r} stays here", field_line(twin), Forwarded(b"hello", absent=(name,)))
    yield Case(23, "23. another name", field_line(b"X_Kept: y"), Forwarded(b"hello", fields={b"x_kept": b"y"}))


def head_cases() -> Iterator[Case]:
    yield from _old_versions()
    yield from _hosts()
    yield from _lines()
    yield from _request_lines()
    yield from _answers_and_expectations()
    yield from _limits_and_twins()
