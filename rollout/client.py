"""Asks the control plane over HTTP, for the command line and whoever drives it from Python."""

from typing import Any

import httpx

DEFAULT_URL = "http://127.0.0.1:8080"


class ClientError(Exception):
    """The control plane cannot be reached, or refused; the text is what it said. `status` is 0 when not reached."""

    def __init__(self, text: str, status: int = 0) -> None:
        super().__init__(text)
        self.status = status


class ControlClient:
    """One control plane. Every method raises ClientError."""

    def __init__(self, url: str = DEFAULT_URL, timeout_s: float = 10.0) -> None:
        self._url = url
        self._http = httpx.Client(base_url=url, timeout=timeout_s, trust_env=False)

    def __enter__(self) -> "ControlClient":
        return self

    def __exit__(self, *_: object) -> None:
        self._http.close()

    def releases(self, model: str | None = None) -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = self._ask("GET", "/v1/releases", params={"model": model} if model else None)
        return found

    def begin(self, model: str, release: int, plan: dict[str, Any], by: str, reason: str = "") -> dict[str, Any]:
        order = {"model": model, "release": release, "plan": plan, "by": by, "reason": reason}
        begun: dict[str, Any] = self._ask("POST", "/v1/rollouts", json=order)
        return begun

    def rollouts(self, model: str | None = None) -> list[dict[str, Any]]:
        """The newest first."""
        found: list[dict[str, Any]] = self._ask("GET", "/v1/rollouts", params={"model": model} if model else None)
        return found

    def rollout(self, key: int) -> dict[str, Any]:
        found: dict[str, Any] = self._ask("GET", f"/v1/rollouts/{key}")
        return found

    def order(self, key: int, what: str, by: str, reason: str = "") -> dict[str, Any]:
        """`what`: hold, resume, approve or abort."""
        done: dict[str, Any] = self._ask("POST", f"/v1/rollouts/{key}/{what}", json={"by": by, "reason": reason})
        return done

    def history(self, key: int) -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = self._ask("GET", f"/v1/rollouts/{key}/history")
        return found

    def get(self, path: str) -> Any:
        """Any other resource, for example /v1/routes."""
        return self._ask("GET", path)

    def _ask(self, method: str, path: str, **given: Any) -> Any:
        try:
            answer = self._http.request(method, path, **given)
        except httpx.HTTPError as exc:
            raise ClientError(
                f"the control plane at {self._url} cannot be reached ({exc}): start it with `sluice up`, or give --url"
            ) from exc
        if answer.is_success:
            return answer.json()
        raise ClientError(_said(answer), answer.status_code)


def _said(answer: httpx.Response) -> str:
    """The error text of an answer: ours, or what FastAPI says of a request that is not valid."""
    try:
        data = answer.json()
    except ValueError:
        return f"the control plane answered {answer.status_code}: {answer.text[:200]}"
    if "error" in data:
        return str(data["error"])
    details = data.get("detail")
    if isinstance(details, list):
        return "; ".join(f"{'.'.join(map(str, one['loc'][1:]))}: {one['msg']}" for one in details)
    return str(details)
