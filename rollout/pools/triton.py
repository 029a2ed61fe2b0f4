"""One Triton that is already running, as whoever loads models into it sees it.

Knows Triton's repository API over gRPC (a load over HTTP would stall the connections of its thread,
shared/facts/triton.md section 2). Must not know which releases are wanted, nor whether their answers are right.
"""

import json
from collections.abc import Iterable
from dataclasses import dataclass

from tritonclient.grpc import InferenceServerClient
from tritonclient.utils import InferenceServerException

from rollout.pools import v2
from rollout.pools.errors import PoolStartError
from rollout.pools.published import Settings

ANSWER_TIMEOUT_S = 2.0
_CHANNEL = [
    ("grpc.enable_http_proxy", 0),
    # Else a new client waits as long as an old one had learned to, although the server is back.
    ("grpc.use_local_subchannel_pool", 1),
    ("grpc.max_receive_message_length", 2**31 - 1),
]


@dataclass(frozen=True, slots=True)
class Triton:
    """Its addresses, HOST:PORT."""

    http: str
    grpc: str

    def check(self) -> None:
        """Raises PoolStartError when one of its addresses does not answer as a Triton's."""
        if not v2.is_live(self.http, ANSWER_TIMEOUT_S):
            raise self._unreachable(self.http, "HTTP")
        try:
            with self._client() as client:
                client.is_server_live(client_timeout=ANSWER_TIMEOUT_S)
        except InferenceServerException as exc:
            raise self._unreachable(self.grpc, "gRPC") from exc

    def load(self, model: str, settings: Settings, numbers: Iterable[int], timeout_s: float) -> None:
        """Have exactly these versions of a model served; those that are served already go on. All of them or no change.

        Raises:
            PoolStartError: with Triton's own words.
        """
        policy = {"version_policy": {"specific": {"versions": sorted(numbers)}}}
        try:
            with self._client() as client:
                client.load_model(model, config=json.dumps({**settings, **policy}), client_timeout=timeout_s)
        except InferenceServerException as exc:
            raise PoolStartError(f"the Triton at {self.grpc} did not load {model}: {_said(exc)}") from exc

    def unload(self, model: str) -> None:
        """Have no version of a model served. Raises PoolStartError."""
        try:
            with self._client() as client:
                client.unload_model(model, client_timeout=ANSWER_TIMEOUT_S)
        except InferenceServerException as exc:
            raise PoolStartError(f"the Triton at {self.grpc} did not unload {model}: {_said(exc)}") from exc

    def _client(self) -> InferenceServerClient:
        return InferenceServerClient(self.grpc, channel_args=_CHANNEL)

    @staticmethod
    def _unreachable(address: str, protocol: str) -> PoolStartError:
        return PoolStartError(
            f"no Triton answers {protocol} at {address}: is it running, and is this its {protocol} address "
            "in [[control.triton]]?"
        )


def _said(exc: InferenceServerException) -> str:
    text = " ".join(str(exc.message()).split())
    if "failed to poll" in text:
        return (
            f"{text} (does it read the repository that the control plane writes, with --model-control-mode=explicit?)"
        )
    return text
