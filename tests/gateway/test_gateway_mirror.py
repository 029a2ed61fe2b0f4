"""Copies to the shadow: the same bytes, never at the client's cost, and every copy not sent is counted."""

import threading
import time
from pathlib import Path

from tests.gateway.conftest import Stage
from tests.gateway.fakes import OK, FakeControl, FakeServer, LoopThread, after, http_answer, says
from tests.gateway.harness import Client, eventually, free_port, infer, route, running, table


def shadowed(stable: str, shadow: str, **more: object) -> dict[str, object]:
    return table(route("m", {1: [stable], 2: [shadow]}, shadow={"release": 2, "share": 1.0}, **more))


def test_a_copy_has_the_same_body_and_its_answer_stays_here(stage: Stage) -> None:
    model, body = stage.fresh("shadow"), bytes(range(256)) * 2_000
    stage.shadow.behave = says(http_answer(b'{"outputs": ["shadow"]}'))
    with stage.client() as client:
        answer = client.ask(infer(model, body, headers=b"Inference-Header-Content-Length: 7\r\n"))
        assert (answer.body, answer.headers["x-sluice-release"]) == (b'{"outputs": []}', f"{model}/1")
    (copy,) = eventually(lambda: stage.shadow.requests)
    (request,) = stage.stable.requests
    assert copy.body == request.body == body
    assert copy.line == f"POST /v2/models/{model}/versions/2/infer HTTP/1.1".encode()
    assert [h for h in copy.headers if h[0] != b"host"] == [h for h in request.headers if h[0] != b"host"]
    eventually(lambda: stage.gateway.counted(model, role="mirrored") == {"ok": 1})


def test_only_good_answers_of_stable_to_unpinned_requests_are_mirrored(stage: Stage) -> None:
    model = stage.fresh("shadow")
    with stage.client() as client:
        client.ask(infer(model, version="/versions/1"))
        stage.stable.behave = says(http_answer(b"{}", b"400 Bad Request"))
        client.ask(infer(model))
        stage.stable.behave = OK
        client.ask(infer(model, b"last"))
    eventually(lambda: stage.shadow.requests)
    assert [copy.body for copy in stage.shadow.requests] == [b"last"]


def test_a_large_answer_is_mirrored_too(stage: Stage) -> None:
    model = stage.fresh("shadow")
    stage.stable.behave = stage.shadow.behave = says(http_answer(b"x" * 200_000))
    with stage.client() as client:
        assert client.ask(infer(model)).status == 200
    eventually(lambda: stage.gateway.counted(model, role="mirrored") == {"ok": 1})


def test_a_failing_shadow_is_charged_and_no_client_knows(stage: Stage) -> None:
    model = stage.fresh("shadow")
    stage.shadow.behave = says(http_answer(b"{}", b"500 X"))
    with stage.client() as client:
        assert {client.ask(infer(model)).status for _ in range(3)} == {200}
    eventually(lambda: stage.gateway.counted(model, role="mirrored") == {"server_error": 3})
    eventually(lambda: stage.gateway.counted(model, role="answered") == {"ok": 3})


def test_a_shadow_that_never_reads_costs_the_client_nothing(loop_thread: LoopThread, tmp_path: Path) -> None:
    stable, shadow = FakeServer(loop_thread), FakeServer(loop_thread)
    shadow.reads = False
    body = b"x" * 20_000_000
    settings = {"mirror_bytes": 45_000_000, "mirror_in_flight": 3}
    routes = shadowed(stable.address, shadow.address, deadline_s=2.0)
    with running(tmp_path, routes, **settings) as gateway, Client(gateway.address) as client:
        for _ in range(4):
            began = time.monotonic()
            assert client.ask(infer("m", body)).status == 200
            assert time.monotonic() - began < 1.0
        for _ in range(3):
            assert client.ask(infer("m", b"small")).status == 200
        eventually(lambda: gateway.metric("sluice_mirrors_dropped_total", reason="bytes") == 2)
        eventually(lambda: gateway.metric("sluice_mirrors_dropped_total", reason="in_flight") == 2)
        eventually(lambda: gateway.counted("m", role="mirrored") == {"timeout": 3})
        eventually(lambda: gateway.metric("sluice_requests_in_flight") == 0)
        shadow.reads = True
        assert client.ask(infer("m", body)).status == 200  # There is room again.
        eventually(lambda: gateway.counted("m", role="mirrored") == {"timeout": 3, "ok": 1})
    stable.stop()
    shadow.stop()


def test_a_shadow_that_is_down_costs_the_client_nothing(server: FakeServer, tmp_path: Path) -> None:
    routes = shadowed(server.address, f"127.0.0.1:{free_port()}")
    with running(tmp_path, routes) as gateway, Client(gateway.address) as client:
        assert {client.ask(infer("m")).status for _ in range(20)} == {200}
        eventually(lambda: gateway.counted("m", role="mirrored") == {"unavailable": 20})


def test_the_budget_holds_under_load(stage: Stage) -> None:
    model = stage.fresh("shadow")
    stage.shadow.behave = after(0.2, OK)

    def ask() -> None:
        with stage.client() as client:
            for _ in range(20):
                assert client.ask(infer(model)).status == 200

    threads = [threading.Thread(target=ask) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    def all_known() -> bool:
        sent = stage.gateway.counted(model, role="mirrored").get("ok", 0)
        dropped = stage.gateway.metric("sluice_mirrors_dropped_total", model=model)
        return sent + dropped == 160 and dropped > 0

    eventually(all_known)
    assert len({copy.connection for copy in stage.shadow.requests}) <= 64


def test_mirrored_samples_are_reported_with_both_answers(
    loop_thread: LoopThread, control: FakeControl, tmp_path: Path
) -> None:
    stable, shadow = FakeServer(loop_thread), FakeServer(loop_thread, says(http_answer(b'{"outputs": [2]}')))
    control.table = shadowed(stable.address, shadow.address)
    with running(tmp_path, control=control.url) as gateway, Client(gateway.address) as client:
        asked = client.ask(infer("m")).headers["x-request-id"]
        (sample,) = eventually(lambda: control.gathered("samples"))
    assert sample["request_id"] == asked
    assert (sample["answered"]["release"], sample["mirrored"]["release"]) == (1, 2)
    assert sample["answered"]["body"] != sample["mirrored"]["body"]
    stable.stop()
    shadow.stop()
