"""What people may order of a rollout: the verb in API and shell, what it does, and the fact that the engine is told."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from rollout.decision.events import Aborted, Approved, Event, Held, Promoted, Resumed, RolledBack


@dataclass(frozen=True, slots=True)
class Order:
    """`fact` takes by whom and why."""

    fact: Callable[[str, str], Event]
    said: str


ORDERS: Mapping[str, Order] = {
    "hold": Order(Held, "Keep a rollout where it is. Harm still takes it back."),
    "resume": Order(Resumed, "Let a held rollout go on."),
    "approve": Order(Approved, "Approve a rollout's next step, where its plan asks for it; each person counts once."),
    "promote": Order(
        Promoted, "Give all traffic to the candidate now, whatever the evidence says; while it warms, once it is ready."
    ),
    "rollback": Order(RolledBack, "End a rollout now since its candidate is bad; all traffic goes back to stable."),
    "abort": Order(Aborted, "End a rollout now, without a finding; all traffic goes back to stable."),
}
