"""Evidence from mirrored requests, where both releases answered the same one: the guards `agreement`, `difference`
and `quality`.

Knows the two e-processes of each and their caps. Knows nothing of stages or of what a verdict leads to.
"""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from typing import Any, Generic, Self, TypeVar

from rollout.decision.agreement import AgreementProcess
from rollout.decision.betting import BettingProcess, DifferenceProcess, Side
from rollout.decision.cap import CappedSides
from rollout.decision.counts import Agreement, Differences, PairedLabels
from rollout.decision.guards import Guard
from rollout.decision.rules import Plan

Process = TypeVar("Process", AgreementProcess, DifferenceProcess, BettingProcess)


@dataclass(frozen=True, slots=True)
class PairedEvidence(Generic[Process]):
    """Both processes have seen the same pairs; their counts are all there is to know of them."""

    harm: Process
    clear: Process
    capped: CappedSides

    @property
    def log_harm(self) -> float:
        return self.capped.harm.log_e

    @property
    def log_clear(self) -> float:
        return self.capped.clear.peak

    @property
    def log_late(self) -> float:
        """Baking has no copies to compare."""
        return 0.0

    @property
    def size(self) -> int:
        """How many pairs were compared."""
        return self.harm.seen.total

    def _with(self, block: int, harm: Process, clear: Process) -> Self:
        return replace(self, harm=harm, clear=clear, capped=self.capped.add(block, harm.log_e, clear.log_e))

    def to_json(self) -> dict[str, Any]:
        return {"seen": asdict(self.harm.seen), "capped": self.capped.to_json()}

    def _restored(self, seen: Any, data: Mapping[str, Any]) -> Self:
        """With these stored counts, and the caps."""
        harm, clear = replace(self.harm, seen=seen), replace(self.clear, seen=seen)
        return replace(self, harm=harm, clear=clear, capped=self.capped.restored(data["capped"]))


@dataclass(frozen=True, slots=True)
class AgreementEvidence(PairedEvidence[AgreementProcess]):
    """How often candidate and stable gave different answers."""

    @staticmethod
    def begin(plan: Plan) -> "AgreementEvidence":
        rules = plan.guards.agreement
        return AgreementEvidence(
            AgreementProcess(Side.HARM, rules.harm),
            AgreementProcess(Side.CLEAR, rules.clear),
            CappedSides.needing(plan.cap_blocks, plan.alpha_of(Guard.AGREEMENT), plan.beta),
        )

    def add(self, block: int, counts: Agreement) -> "AgreementEvidence":
        return self._with(block, self.harm.add(counts), self.clear.add(counts))

    @property
    def seen(self) -> Agreement:
        return self.harm.seen

    def restored(self, data: Mapping[str, Any]) -> "AgreementEvidence":
        return self._restored(Agreement(**data["seen"]), data)


@dataclass(frozen=True, slots=True)
class DifferenceEvidence(PairedEvidence[DifferenceProcess]):
    """How far the answers of candidate and stable lay apart."""

    @staticmethod
    def begin(plan: Plan) -> "DifferenceEvidence":
        rules = plan.guards.difference
        return DifferenceEvidence(
            DifferenceProcess(Side.HARM, rules.harm),
            DifferenceProcess(Side.CLEAR, rules.clear),
            CappedSides.needing(plan.cap_blocks, plan.alpha_of(Guard.DIFFERENCE), plan.beta),
        )

    def add(self, block: int, differences: Differences) -> "DifferenceEvidence":
        return self._with(block, self.harm.add(differences), self.clear.add(differences))

    @property
    def seen(self) -> Differences:
        return self.harm.seen

    def to_json(self) -> dict[str, Any]:
        return {"seen": [[b, n] for b, n in sorted(self.seen.bins.items())], "capped": self.capped.to_json()}

    def restored(self, data: Mapping[str, Any]) -> "DifferenceEvidence":
        return self._restored(Differences({int(b): int(n) for b, n in data["seen"]}), data)


@dataclass(frozen=True, slots=True)
class QualityEvidence(PairedEvidence[BettingProcess]):
    """How often only one of candidate and stable was right, where a label told."""

    @staticmethod
    def begin(plan: Plan) -> "QualityEvidence":
        rules = plan.guards.quality
        return QualityEvidence(
            BettingProcess(Side.HARM, rules.harm),
            BettingProcess(Side.CLEAR, rules.clear),
            CappedSides.needing(plan.cap_blocks, plan.alpha_of(Guard.QUALITY), plan.beta),
        )

    def add(self, block: int, labels: PairedLabels) -> "QualityEvidence":
        return self._with(block, self.harm.add(labels), self.clear.add(labels))

    @property
    def seen(self) -> PairedLabels:
        return self.harm.seen

    def restored(self, data: Mapping[str, Any]) -> "QualityEvidence":
        return self._restored(PairedLabels(**data["seen"]), data)
