"""The control plane tells how it stands: health in words, metrics, windows that never came."""

from tests.rollout.conftest import Plane, quick


def test_windows_that_never_came_are_told_of_everywhere(serving: Plane) -> None:
    assert serving.client.get("/v1/health").json()["status"] == "ok"
    first, lost, third = (serving.window(1, 0.5, 10) for _ in range(3))
    serving.report([first])
    serving.report([third])
    assert serving.client.get("/v1/gateways").json()["g"]["missing_windows"] == 1
    health = serving.client.get("/v1/health").json()
    assert (health["status"], health["leads"]) == ("degraded", True)
    assert health["wrong"] == ["1 windows of the gateway g never came"]
    assert "sluice_control_missing_windows 1.0" in serving.client.get("/metrics").text
    serving.report([lost])
    assert serving.client.get("/v1/health").json()["wrong"] == []
    assert "sluice_control_windows_total 3.0" in serving.client.get("/metrics").text


def test_metrics_tell_of_rollouts_ticks_and_the_leader(serving: Plane) -> None:
    key = serving.begin(2, quick()).json()["id"]
    serving.wait_status(key, "shadow")
    told = serving.client.get("/metrics").text
    for line in (
        'sluice_control_rollouts{status="shadow"} 1.0', "sluice_control_leads 1.0",
        "sluice_control_owed_instructions ", "sluice_control_gateways 1.0", "sluice_control_failing_pools 0.0",
    ):  # fmt: skip
        assert line in told
    assert "sluice_control_tick_seconds_bucket" in told and "sluice_control_tick_failures_total 0.0" in told
