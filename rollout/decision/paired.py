"""Evidence from mirrored requests, where both releases answered the same one: the guards `agreement` and `quality`.

Knows the two e-processes of each and their caps. Knows nothing of stages or of what a verdict leads to.
"""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from typing import Any

from rollout.decision.agreement import AgreementProcess
from rollout.decision.betting import BettingProcess, Side
from rollout.decision.cap import CappedSides
from rollout.decision.counts import Agreement, PairedLabels
from rollout.decision.rules import Guard, Plan


@dataclass(frozen=True, slots=True)
class AgreementEvidence:
    """How often candidate and stable gave different answers."""

    harm: AgreementProcess
    clear: AgreementProcess
    capped: CappedSides

    @staticmethod
    def begin(plan: Plan) -> "AgreementEvidence":
        rules = plan.guards.agreement
        return AgreementEvidence(
            AgreementProcess(Side.HARM, rules.harm),
            AgreementProcess(Side.CLEAR, rules.clear),
            CappedSides.needing(plan.cap_blocks, plan.alpha_of(Guard.AGREEMENT), plan.beta),
        )

    def add(self, block: int, counts: Agreement) -> "AgreementEvidence":
        harm, clear = self.harm.add(counts), self.clear.add(counts)
        return AgreementEvidence(harm, clear, self.capped.add(block, harm.log_e, clear.log_e))

    @property
    def log_harm(self) -> float:
        return self.capped.harm.log_e

    @property
    def log_clear(self) -> float:
        return self.capped.clear.log_e

    @property
    def seen(self) -> Agreement:
        return self.harm.seen

    @property
    def size(self) -> int:
        """How many mirrored answers were compared."""
        return self.seen.total

    def to_json(self) -> dict[str, Any]:
        return {"seen": asdict(self.seen), "capped": self.capped.to_json()}

    def restored(self, data: Mapping[str, Any]) -> "AgreementEvidence":
        seen, capped = Agreement(**data["seen"]), self.capped.restored(data["capped"])
        return AgreementEvidence(replace(self.harm, seen=seen), replace(self.clear, seen=seen), capped)


@dataclass(frozen=True, slots=True)
class QualityEvidence:
    """How often only one of candidate and stable was right."""

    harm: BettingProcess
    clear: BettingProcess
    capped: CappedSides

    @staticmethod
    def begin(plan: Plan) -> "QualityEvidence":
        rules = plan.guards.quality
        return QualityEvidence(
            BettingProcess(Side.HARM, rules.harm),
            BettingProcess(Side.CLEAR, rules.clear),
            CappedSides.needing(plan.cap_blocks, plan.alpha_of(Guard.QUALITY), plan.beta),
        )

    def add(self, block: int, labels: PairedLabels) -> "QualityEvidence":
        harm, clear = self.harm.add(labels), self.clear.add(labels)
        return QualityEvidence(harm, clear, self.capped.add(block, harm.log_e, clear.log_e))

    @property
    def log_harm(self) -> float:
        return self.capped.harm.log_e

    @property
    def log_clear(self) -> float:
        return self.capped.clear.log_e

    @property
    def labels(self) -> PairedLabels:
        return self.harm.labels

    @property
    def size(self) -> int:
        """How many mirrored requests have a label."""
        return self.labels.total

    def to_json(self) -> dict[str, Any]:
        return {"labels": asdict(self.labels), "capped": self.capped.to_json()}

    def restored(self, data: Mapping[str, Any]) -> "QualityEvidence":
        labels, capped = PairedLabels(**data["labels"]), self.capped.restored(data["capped"])
        return QualityEvidence(replace(self.harm, labels=labels), replace(self.clear, labels=labels), capped)
