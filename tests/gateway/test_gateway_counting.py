"""Shared counters, the ledger that makes windows of them, paths, and which server is picked: without sockets."""

from collections import Counter
from dataclasses import dataclass, field, replace

import pytest

from gateway.balance import EJECTED_MOST_S, Health, Pool, RetryBudget
from gateway.changes import change_between
from gateway.counters import FALLBACKS, STARTED, Slab, Slot
from gateway.errors import SlotsExhaustedError
from gateway.ledger import KEPT_AFTER_S, Ledger
from gateway.paths import Kind, NotServedError, understand
from gateway.routes import Candidate, Route, RouteTable
from gateway.windows import Outcome, Role, bucket_of

ROUTE = Route("m", 1, 1, {1: (), 2: ()}, Candidate(2, 0.1))


def table(*routes: Route, version: int = 1) -> RouteTable:
    return RouteTable(version, {route.model: route for route in routes})


class Counting:
    """A ledger with two regions, and the workers' slots by (region, revision, release, role)."""

    def __init__(self, slots: int = 16) -> None:
        self.slab = Slab.create(1, slots)
        self.ledger = Ledger(self.slab, "g", "boot")
        self.regions = [self.ledger.take_region(), self.ledger.take_region()]
        self.table: RouteTable | None = None
        self.leased: dict[tuple[str, int, int, str], int] = {}

    def lease(self, of: RouteTable, now_s: float = 0.0) -> None:
        for model, slots in self.ledger.lease(change_between(self.table, of), now_s).items():
            for release, role, index in slots:
                self.leased[model, of.routes[model].revision, release, role] = index
        self.table = of

    def slot(self, region: int, revision: int = 1, release: int = 1, role: str = "answered") -> Slot:
        return Slot(self.slab.region(region), self.leased["m", revision, release, role])

    def serve(self, slot: Slot, latency_us: float = 100.0) -> None:
        slot.add(STARTED)
        slot.ended_ok(latency_us)


def test_a_window_holds_what_changed_in_all_workers() -> None:
    counting = Counting()
    counting.lease(table(ROUTE))
    assert counting.ledger.read(1.0) == []
    counting.serve(counting.slot(0))
    counting.serve(counting.slot(1), 5_000.0)
    counting.slot(1, release=2).add(STARTED)
    counting.slot(1, release=2).add(Outcome.RESET)
    counting.slot(1, release=2).add(FALLBACKS)
    windows = {window.release: window for window in counting.ledger.read(2.0)}
    assert windows[1].outcomes == {Outcome.OK: 2}
    assert windows[1].histogram == {bucket_of(100.0): 1, bucket_of(5_000.0): 1}
    assert (windows[2].outcomes, windows[2].fallbacks, windows[2].weight) == ({Outcome.RESET: 1}, 1, 0.1)
    assert (windows[1].started_at, windows[1].length_s) == (1.0, 1.0)
    assert counting.ledger.read(3.0) == []
    counting.serve(counting.slot(0))
    (window,) = counting.ledger.read(4.0)
    assert window.outcomes == {Outcome.OK: 1} and window.sequence == 3
    assert counting.ledger.totals["m", 1, Role.ANSWERED].outcomes() == {Outcome.OK: 3}


def test_revisions_never_mix() -> None:
    counting = Counting()
    counting.lease(table(ROUTE))
    counting.serve(counting.slot(0, 1))
    counting.lease(table(replace(ROUTE, revision=2, candidate=Candidate(2, 0.5)), version=2))
    counting.serve(counting.slot(0, 1))  # One that was on its way under the old revision.
    counting.serve(counting.slot(0, 2))
    windows = {window.revision: window for window in counting.ledger.read(1.0)}
    assert {revision: (one.ok, one.weight) for revision, one in windows.items()} == {1: (2, 0.1), 2: (1, 0.5)}


def test_a_route_that_did_not_change_keeps_its_slots() -> None:
    counting = Counting()
    counting.lease(table(ROUTE))
    before = dict(counting.leased)
    counting.lease(table(ROUTE, replace(ROUTE, model="other"), version=2))
    assert {key: counting.leased[key] for key in before} == before


def test_an_old_slot_is_kept_while_a_request_is_on_its_way_then_cleared_and_used_again() -> None:
    counting = Counting(slots=8)
    counting.lease(table(ROUTE))
    slot = counting.slot(0)
    slot.add(STARTED)
    counting.lease(table(replace(ROUTE, revision=2), version=2), now_s=10.0)
    with pytest.raises(SlotsExhaustedError):
        counting.lease(table(replace(ROUTE, revision=3), version=3), now_s=10.0)
    counting.ledger.read(11.0 + KEPT_AFTER_S)
    assert counting.ledger.in_flight() == {"m/1": 1}
    slot.ended_ok(100.0)
    (window,) = counting.ledger.read(12.0 + KEPT_AFTER_S, has_moved=False)
    with pytest.raises(SlotsExhaustedError):
        counting.lease(table(replace(ROUTE, revision=3), version=3), now_s=12.0)
    assert counting.ledger.read(13.0 + KEPT_AFTER_S) == []
    assert (window.revision, window.ok) == (1, 1)
    counting.lease(table(replace(ROUTE, revision=3), version=3), now_s=20.0)
    counting.serve(counting.slot(0, 3))
    (window,) = counting.ledger.read(21.0)
    assert (window.revision, window.ok) == (3, 1)


def test_too_large_a_table_changes_nothing() -> None:
    counting = Counting(slots=4)
    counting.lease(table(ROUTE))
    with pytest.raises(SlotsExhaustedError):
        counting.lease(table(ROUTE, replace(ROUTE, model="other"), version=2))
    counting.lease(table(ROUTE))
    counting.serve(counting.slot(0))
    assert [window.ok for window in counting.ledger.read(1.0)] == [1]


def test_what_a_dead_worker_had_in_flight_is_lost_and_its_counts_stand() -> None:
    counting = Counting()
    counting.lease(table(ROUTE))
    for _ in range(3):
        counting.slot(0).add(STARTED)
    counting.slot(0).ended_ok(100.0)
    counting.slot(1).add(STARTED)
    counting.ledger.worker_died(0)
    (window,) = counting.ledger.read(1.0)
    assert window.outcomes == {Outcome.OK: 1, Outcome.LOST: 2}
    counting.ledger.free_region(0)
    assert counting.ledger.take_region() == 0
    assert counting.ledger.read(2.0) == []
    assert counting.ledger.in_flight() == {"m/1": 1}
    counting.serve(counting.slot(0))
    assert counting.ledger.read(3.0)[0].outcomes == {Outcome.OK: 1}
    assert counting.ledger.totals["m", 1, Role.ANSWERED].outcomes() == {Outcome.OK: 2, Outcome.LOST: 2}


@pytest.mark.parametrize(
    ("method", "path", "kind", "model", "version", "action"),
    [
        ("POST", "/v2/models/m/infer", Kind.INFER, "m", None, b"/infer"),
        ("POST", "/v2/models/a.b-c_1/versions/12/infer?x=1", Kind.INFER, "a.b-c_1", 12, b"/infer"),
        ("POST", "/v2/models/m/generate_stream", Kind.GENERATE, "m", None, b"/generate_stream"),
        ("GET", "/v2/models/m", Kind.READ, "m", None, b""),
        ("HEAD", "/v2/models/m/versions/1", Kind.READ, "m", 1, b""),
        ("GET", "/v2/models/m/versions/1/ready", Kind.READ, "m", 1, b"/ready"),
        ("GET", "/v2", Kind.SERVER, "", None, b""),
        ("GET", "/v2/health/live", Kind.LIVE, "", None, b""),
        ("POST", "/v1/feedback?a", Kind.FEEDBACK, "", None, b""),
    ],
)
def test_paths_that_are_served(
    method: str, path: str, kind: Kind, model: str, version: int | None, action: bytes
) -> None:
    asked = understand(method.encode(), path.encode())
    assert (asked.kind, asked.model, asked.version, asked.action) == (kind, model, version, action)


@pytest.mark.parametrize(
    ("status", "method", "path"),
    [
        *((403, method, path) for method in ("GET", "POST") for path in (
            "/v2/repository/index", "/v2/repository/models/m/load", "/v2/systemsharedmemory/status",
            "/v2/cudasharedmemory/region/x/register", "/v2/logging", "/v2/trace/setting", "/v2/models/m/trace/setting",
        )),
        *((404, "GET", path) for path in (
            "/", "", "/v2/", "/v2/health", "/v2/health/", "/v2/models", "/v2/models/", "/v2/models/m/",
            "/v2/models//infer",
            "/v2/models/m/versions", "/v2/models/m/versions/", "/v2/models/m/versions/x/infer", "/v2/models/m/infer/x",
            "/v2/models/m/versions/-1/infer", "/v2/models/m/versions/1/versions/2", "/v2/models/.hidden/infer",
            "/v2/models/m/unload", "/metrics", "/v3/models/m", "/v2/models/m/versions/" + "1" * 19, "/V2",
            "/v2/models/" + "m" * 129,
        )),
        (405, "GET", "/v2/models/m/infer"), (405, "HEAD", "/v2/models/m/infer"), (405, "POST", "/v2/models/m"),
        (405, "DELETE", "/v2"), (405, "GET", "/v1/feedback"), (405, "PUT", "/v2/models/m/generate"),
    ],
)  # fmt: skip
def test_paths_that_are_not_served(status: int, method: str, path: str) -> None:
    with pytest.raises(NotServedError) as refused:
        understand(method.encode(), path.encode())
    assert refused.value.status == status
    assert bool(refused.value.headers) == (status == 405)


@dataclass
class Busy:
    in_flight: int = 0
    health: Health = field(default_factory=Health)


def test_the_less_busy_of_two_is_picked() -> None:
    servers = tuple(Busy(n) for n in range(4))
    picked = Counter(id(Pool(servers).pick(0.0)) for _ in range(2_000))
    assert [picked[id(server)] for server in servers] == [*sorted(picked.values(), reverse=True), 0]
    assert set(picked) == {id(server) for server in servers[:3]}


def test_equally_busy_servers_share_alike() -> None:
    servers = tuple(Busy() for _ in range(3))
    picked = Counter(id(Pool(servers).pick(0.0)) for _ in range(6_000))
    assert all(1_700 < picked[id(server)] < 2_300 for server in servers)


def test_a_failing_server_is_left_out_longer_and_longer_until_it_succeeds() -> None:
    health = Health()
    for _ in range(2):
        health.failed(100.0)
    assert health.ejected_until_s == 0.0
    out = []
    for _ in range(8):
        health.failed(100.0)
        out.append(health.ejected_until_s - 100.0)
    assert out == [0.5, 1.0, 2.0, 4.0, 8.0, EJECTED_MOST_S, EJECTED_MOST_S, EJECTED_MOST_S]
    health.succeeded(200.0)
    health.failed(200.0)
    assert health.ejected_until_s < 200.0


def test_ejected_servers_are_picked_only_when_there_is_no_other() -> None:
    good, bad = Busy(5), Busy()
    for _ in range(3):
        bad.health.failed(0.0)
    pool = Pool((good, bad))
    assert {id(pool.pick(0.1)) for _ in range(50)} == {id(good)}
    assert pool.pick(0.1, without=good) is bad
    assert pool.pick(0.6) is bad  # A probe, and no other before its answer is due.
    assert {id(pool.pick(0.7)) for _ in range(50)} == {id(good)}
    bad.health.succeeded(0.8)
    shares = [sum(pool.pick(0.8 + after_s) is bad for _ in range(1_000)) / 1_000 for after_s in (0.0, 5.0, 10.0)]
    assert 0.05 < shares[0] < 0.15 and 0.4 < shares[1] < 0.6 and shares[2] == 1.0


def test_there_may_be_no_server_to_pick() -> None:
    one = Busy()
    assert Pool[Busy](()).pick(0.0) is None
    assert Pool((one,)).pick(0.0) is one
    assert Pool((one,)).pick(0.0, without=one) is None


def test_retries_are_a_share_of_requests() -> None:
    budget = RetryBudget(0.1, most=2.0)
    assert [budget.spend() for _ in range(3)] == [True, True, False]
    spent = 0
    for _ in range(1_000):
        budget.earned += 1
        spent += budget.spend()
    assert 98 <= spent <= 100
    for _ in range(1_000):
        budget.earned += 1
    assert [budget.spend() for _ in range(3)] == [True, True, False]
