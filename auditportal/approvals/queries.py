from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from django.db.models import Count, QuerySet

from auditportal.accounts.models import User
from auditportal.approvals import gates
from auditportal.approvals.gates import Approval, Condition, Facts
from auditportal.approvals.models import Decision, Promotion
from auditportal.approvals.policies import POLICIES, Policy
from auditportal.catalog.models import Version
from auditportal.reconciliation import queries as reconciliation
from auditportal.reconciliation.models import Finding
from auditproof.canonical import Json, encode
from auditproof.signatures import sha256_hex


@dataclass(frozen=True, slots=True)
class Signature:
    """A decision with whether what it covers is still what stands there."""

    decision: Decision
    is_stale: bool


@dataclass(frozen=True, slots=True)
class Packet:
    """The frozen review packet: what a signature given now would cover, and the conditions as they are now."""

    policy: Policy
    facts: Facts
    conditions: list[Condition]
    decisions: list[Signature]
    evidence_digest: str

    @property
    def fingerprint(self) -> str:
        """What a page carries so that a change behind it is noticed before anything is signed."""
        return sha256_hex(f"{self.facts.manifest_digest} {self.policy.digest} {self.evidence_digest}".encode())


def packet(promotion: Promotion, *, now: datetime) -> Packet:
    version = Version.objects.defer("manifest", "config").get(pk=promotion.version_id)
    policy = POLICIES[promotion.environment]
    findings = reconciliation.open_findings_of(version)
    digest = evidence_digest(version, [finding.pk for finding in findings])
    decisions = [
        Signature(item, item.policy_digest != policy.digest or item.evidence_digest != digest)
        for item in promotion.decisions.select_related("signer__actor").order_by("at")
    ]
    approvals = [
        Approval(item.decision.signer.actor.id, item.decision.role, item.is_stale)
        for item in decisions
        if item.decision.intent == Decision.Intent.APPROVE
    ]
    facts = _facts(version, promotion, findings, approvals, now)
    return Packet(policy, facts, gates.conditions(policy, facts), decisions, digest)


def preview(version: Version, environment: str, *, user: User, now: datetime) -> list[Condition]:
    """The conditions as they would stand for a request made now."""
    promotion = Promotion(version=version, environment=environment, requested_by=user)
    promotion.manifest_digest = version.manifest_digest
    facts = _facts(version, promotion, reconciliation.open_findings_of(version), [], now)
    return gates.conditions(POLICIES[environment], facts)


def _facts(
    version: Version, promotion: Promotion, findings: list[Finding], approvals: list[Approval], now: datetime
) -> Facts:
    return Facts(
        manifest_digest=version.manifest_digest,
        requested_digest=promotion.manifest_digest,
        check_state=version.check_state,
        check_note=version.check_note,
        checked_at=version.checked_at,
        open_findings=[f"{finding.kind}: {finding.title}" for finding in findings],
        approvals=approvals,
        requester=promotion.requested_by.actor.id,
        now=now,
    )


def evidence_digest(version: Version, findings: list[int]) -> str:
    """Of what the signers looked at besides the manifest: it changes when they would see something else."""
    value: dict[str, Json] = {
        "card": version.card_state,
        "config_digest": version.config_digest,
        "findings": [*sorted(findings)],
        "manifest_digest": version.manifest_digest,
        "metrics": {name: repr(number) for name, number in version.metrics.items()},
        "run": version.run_id,
    }
    return "sha256:" + sha256_hex(encode(value))


def promotions(*, state: str = "") -> QuerySet[Promotion]:
    found = Promotion.objects.select_related("version", "version__model", "requested_by").annotate(
        signatures=Count("decisions")
    )
    return (found.filter(state=state) if state else found).order_by("-created_at")


def find(promotion_id: object) -> Promotion | None:
    return (
        Promotion.objects.select_related("version__model", "requested_by__actor").filter(pk=str(promotion_id)).first()
    )


def waiting_for(user: User) -> list[Promotion]:
    """Open requests that this person may sign and has not signed."""
    found = promotions(state=Promotion.State.OPEN).exclude(requested_by=user).exclude(decisions__signer=user)
    return [item for item in found if user.role in POLICIES[item.environment].roles]


def promotions_of(version: Version) -> list[Promotion]:
    return list(promotions().filter(version=version))
