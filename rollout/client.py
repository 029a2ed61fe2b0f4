"""Asks the control plane over HTTP, for the command line and whoever drives it from Python."""

from typing import Any

import httpx

from rollout.errors import Code

DEFAULT_URL = "http://127.0.0.1:8080"
TIME_OUT = "time_out"


class ClientError(Exception):
    """The control plane cannot be reached, or refused; the text is what it said. `status` is 0 when not reached.

    `code` is one of `rollout.errors.Code` or TIME_OUT, `hint` says what to do next, and `request_id` finds the request
    in the control plane's log. `code` is empty for a mistake that was seen here, before anything was asked.
    """

    def __init__(self, text: str, status: int = 0, code: str = "", hint: str = "", request_id: str = "") -> None:
        super().__init__(text)
        self.status = status
        self.code = code
        self.hint = hint
        self.request_id = request_id


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

    def rollouts(self, model: str | None = None, limit: int = 50) -> list[dict[str, Any]]:
        """The newest first, each as a list shows it."""
        wanted = {"limit": limit, **({"model": model} if model else {})}
        page: dict[str, Any] = self._ask("GET", "/v1/rollouts", params=wanted)
        found: list[dict[str, Any]] = page["items"]
        return found

    def rollout(self, key: int) -> dict[str, Any]:
        found: dict[str, Any] = self._ask("GET", f"/v1/rollouts/{key}")
        return found

    def order(
        self, key: int, what: str, by: str, reason: str = "", *, expect_stage: int | None = None,
        idempotency_key: str | None = None,
    ) -> dict[str, Any]:  # fmt: skip
        """`what`: hold, resume, approve, promote, rollback or abort; with `expect_stage`, only while it is there."""
        order = {"by": by, "reason": reason, "expect_stage": expect_stage}
        headers = {"idempotency-key": idempotency_key} if idempotency_key else None
        done: dict[str, Any] = self._ask("POST", f"/v1/rollouts/{key}/{what}", json=order, headers=headers)
        return done

    def roll_back(self, model: str, by: str, reason: str = "") -> dict[str, Any]:
        """All of a model's traffic to the release before; the rollout that does it."""
        order = {"by": by, "reason": reason}
        done: dict[str, Any] = self._ask("POST", f"/v1/models/{model}/rollback", json=order)
        return done

    def history(self, key: int) -> list[dict[str, Any]]:
        """All of it, the oldest first."""
        found: list[dict[str, Any]] = []
        wanted: dict[str, Any] = {"limit": 200}
        while True:
            page = self._ask("GET", f"/v1/rollouts/{key}/history", params=wanted)
            found += page["items"]
            if page["next"] is None:
                return found
            wanted["cursor"] = page["next"]

    def get(self, path: str) -> Any:
        """Any other resource, for example /v1/routes."""
        return self._ask("GET", path)

    def _ask(self, method: str, path: str, **given: Any) -> Any:
        try:
            answer = self._http.request(method, path, **given)
        except httpx.TimeoutException as exc:
            raise ClientError(
                f"the control plane at {self._url} did not answer in time", code=TIME_OUT,
                hint="what was asked for may have been done: look before you ask again",
            ) from exc  # fmt: skip
        except httpx.HTTPError as exc:
            raise ClientError(
                f"the control plane at {self._url} cannot be reached ({exc})", code=Code.UNAVAILABLE,
                hint="start it with `sluice up`, or give --url",
            ) from exc  # fmt: skip
        if answer.is_success:
            return answer.json()
        raise _refusal(answer)


def _refusal(answer: httpx.Response) -> ClientError:
    """What an answer that is not a success says, in our form or in another's."""
    try:
        said = answer.json()
        words = {name: str(said[name]) for name in ("code", "hint", "request_id")}
        return ClientError(str(said["message"]), answer.status_code, **words)
    except (ValueError, KeyError, TypeError):
        text = f"the control plane answered {answer.status_code}: {answer.text[:200]}"
        return ClientError(text, answer.status_code, Code.INTERNAL)
