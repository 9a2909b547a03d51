from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

from django.db.models import Count, QuerySet

from auditportal.accounts.models import User
from auditportal.approvals import gates
from auditportal.approvals.gates import Approval, Condition, Facts, Refused, Signing
from auditportal.approvals.models import Decision, Promotion
from auditportal.approvals.policies import POLICIES, Policy
from auditportal.catalog.models import Version
from auditportal.reconciliation import queries as reconciliation
from auditportal.reconciliation.models import Finding
from auditproof.canonical import Json, encode
from auditproof.signatures import sha256_hex

BYTES = ("version__manifest", "version__config", "version__card")  # large, and no list shows them


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

    def is_signed_by(self, user: User) -> bool:
        """Whether a signature of this person counts now."""
        return any(not item.is_stale and item.decision.signer_id == user.pk for item in self.decisions)


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


def bars(promotion: Promotion, packet: Packet, user: User) -> tuple[str, ...]:
    """Why this person may not decide here, whatever the password: shown before the button is pressed."""
    signing = Signing(
        signer=user.actor.id,
        role=user.role,
        is_password_right=True,
        is_throttled=False,
        has_signed=packet.is_signed_by(user),
        is_open=promotion.is_open,
        is_unchanged=True,
    )
    verdict = gates.may_sign(packet.policy, packet.facts, signing, intent="reject")
    return verdict.reasons if isinstance(verdict, Refused) else ()


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
    found = (
        Promotion.objects.select_related("version", "version__model", "requested_by")
        .defer(*BYTES)
        .annotate(signatures=Count("decisions"))
    )
    return (found.filter(state=state) if state else found).order_by("-created_at")


def decided(most: int) -> list[Promotion]:
    """The requests that ended last."""
    return list(promotions().exclude(state=Promotion.State.OPEN).order_by("-decided_at")[:most])


def find(promotion_id: object) -> Promotion | None:
    return (
        Promotion.objects.select_related("version__model", "requested_by__actor")
        .defer(*BYTES)
        .filter(pk=str(promotion_id))
        .first()
    )


def offered_labels(most: int) -> list[str]:
    """The newest versions that have a digest to sign, to choose from while typing."""
    found = Version.objects.exclude(manifest_digest="").order_by("-id")
    return list(found.values_list("label", flat=True)[:most])


def open_request(version: Version, environment: str) -> Promotion | None:
    return Promotion.objects.filter(version=version, environment=environment, state=Promotion.State.OPEN).first()


@dataclass(frozen=True, slots=True)
class Standing:
    """An open request as a list shows it; `signed` are the people whose approval counts now."""

    promotion: Promotion
    signed: frozenset[int]
    needed: int
    stale: int

    def waits_for(self, user: User) -> bool:
        return (
            user.role in POLICIES[self.promotion.environment].roles
            and user.pk != self.promotion.requested_by_id
            and user.pk not in self.signed
        )


def queue() -> list[Standing]:
    """The open requests, those that wait longest first, in three queries however many."""
    found = list(promotions(state=Promotion.State.OPEN).order_by("created_at"))
    findings = reconciliation.open_finding_ids([item.version_id for item in found])
    decisions: defaultdict[object, list[Decision]] = defaultdict(list)
    for decision in Decision.objects.filter(promotion__in=found, intent=Decision.Intent.APPROVE).defer("statement"):
        decisions[decision.promotion_id].append(decision)
    return [_standing(item, decisions[item.pk], findings.get(item.version_id, [])) for item in found]


def _standing(promotion: Promotion, decisions: Sequence[Decision], findings: list[int]) -> Standing:
    policy = POLICIES[promotion.environment]
    digest = evidence_digest(promotion.version, findings)
    signed = frozenset(
        item.signer_id
        for item in decisions
        if item.policy_digest == policy.digest and item.evidence_digest == digest and item.role in policy.roles
    )
    return Standing(promotion, signed, policy.approvals, len({item.signer_id for item in decisions} - signed))


def waiting_for(user: User) -> list[Promotion]:
    """Open requests that this person may sign and has not signed as they stand now, the oldest first."""
    return [item.promotion for item in queue() if item.waits_for(user)]


def promotions_of(version: Version) -> list[Promotion]:
    return list(promotions().filter(version=version))
