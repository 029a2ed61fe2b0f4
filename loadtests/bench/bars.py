"""What must be reached, by row. The one table of bars; changed only by an issue, never to make a run pass."""

from collections.abc import Mapping

BARS: Mapping[str, float] = {
    "small_json.cpu_ratio_to_envoy": 0.65,
    "small_json.cpu_ratio_to_nginx": 1.6,
    "small_json.cpu_ratio_to_fastapi_httpx": 0.25,
    "small_json.p99_ratio_to_envoy": 1.0,
    "small_json.p99_ratio_to_fastapi_httpx": 1.0,
    "binary_602k.cpu_ratio_to_envoy": 1.0,
    "binary_602k_64.peak_mb.sluice": 150.0,
}
