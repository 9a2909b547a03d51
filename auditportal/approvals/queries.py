from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime
from uuid import UUID

from django.db.models import Count, Prefetch, QuerySet

from auditportal.accounts.models import User
from auditportal.approvals import gates, proving
from auditportal.approvals.gates import Approval, Condition, Facts, Refused, Signing
from auditportal.approvals.models import Decision, Promotion
from auditportal.approvals.policies import POLICIES, Policy
from auditportal.catalog.models import Placement, Version
from auditportal.ledger import queries as ledger, search
from auditportal.ledger.drafts import PORTAL
from auditportal.ledger.queries import RecordedEvent
from auditportal.ledger.query import Form, Query, Term, Value
from auditportal.reconciliation import queries as reconciliation
from auditportal.reconciliation.models import Finding
from auditproof.canonical import Json, encode
from auditproof.signatures import sha256_hex

BYTES = ("version__manifest", "version__config", "version__card")  # large, and no list shows them
MOST_QUEUE = 200  # open requests looked through, the oldest first; each of their signatures is verified
NEWEST_PROMOTIONS = 200  # looked through for one that is newer than what stands in an environment


@dataclass(frozen=True, slots=True)
class Signature:
    """A decision with whether what it covers is still what stands there.

    `trouble` is what the log has otherwise than the row; such a signature counts for nothing.
    """

    decision: Decision
    is_stale: bool
    trouble: str = ""

    @property
    def counts(self) -> bool:
        return not self.is_stale and not self.trouble


@dataclass(frozen=True, slots=True)
class Packet:
    """The frozen review packet: what a signature given now would cover, and the conditions as they are now.

    `trouble` is what the log has otherwise than the request's row; then nothing may be decided about it.
    """

    policy: Policy
    facts: Facts
    conditions: list[Condition]
    decisions: list[Signature]
    evidence_digest: str
    trouble: str

    @property
    def fingerprint(self) -> str:
        """What a page carries so that a change behind it is noticed before anything is signed."""
        return sha256_hex(f"{self.facts.manifest_digest} {self.policy.digest} {self.evidence_digest}".encode())

    def is_signed_by(self, user: User) -> bool:
        """Whether a signature of this person counts now."""
        return any(item.counts and item.decision.signer_id == user.pk for item in self.decisions)


def packet(promotion: Promotion, *, now: datetime, fresh: Decision | None = None) -> Packet:
    """What stands about the request, each row compared with its event; `fresh` is not recorded yet, and is believed."""
    version = Version.objects.defer("manifest", "config").get(pk=promotion.version_id)
    policy = POLICIES[promotion.environment]
    findings = reconciliation.findings_of(version)
    digest = evidence_digest(version, findings)
    signed = list(promotion.decisions.select_related("signer__actor").order_by("at"))
    events = _events([promotion.seq, promotion.decided_seq, *(item.seq for item in signed)])
    decisions = [
        Signature(
            item,
            item.policy_digest != policy.digest or item.evidence_digest != digest,
            "" if item == fresh else proving.of_decision(item, promotion, events.get(item.seq)),
        )
        for item in signed
    ]
    approvals = [
        Approval(item.decision.signer.actor.id, item.decision.role, is_stale=not item.counts)
        for item in decisions
        if item.decision.intent == Decision.Intent.APPROVE
    ]
    facts = _facts(version, promotion, [item for item in findings if item.is_open], approvals, now)
    return Packet(policy, facts, gates.conditions(policy, facts), decisions, digest, _trouble(promotion, events))


def _events(seqs: Iterable[int | None]) -> dict[int | None, RecordedEvent]:
    """The events of these rows, each verified; a row without a place has none."""
    return {event.seq: event for event in ledger.recorded(sorted({seq for seq in seqs if seq is not None}))}


def _trouble(promotion: Promotion, events: dict[int | None, RecordedEvent]) -> str:
    return proving.of_request(promotion, events.get(promotion.seq)) or proving.of_end(
        promotion, events.get(promotion.decided_seq)
    )


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
        trouble=packet.trouble,
    )
    verdict = gates.may_sign(packet.policy, packet.facts, signing, intent="reject")
    return verdict.reasons if isinstance(verdict, Refused) else ()


def evidence_digest(version: Version, findings: list[Finding]) -> str:
    """Of what the signers looked at besides the manifest: it changes when they would see something else.

    A finding that opened and closed again has changed it for good: what was signed before never counts again.
    """
    value: dict[str, Json] = {
        "card": version.card_state,
        "config_digest": version.config_digest,
        "findings": [*sorted(f"{item.pk} {'open' if item.is_open else 'closed'}" for item in findings)],
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


@dataclass(frozen=True, slots=True)
class Ended:
    """A request that ended; `trouble` is what the log has otherwise than its row."""

    promotion: Promotion
    trouble: str


def decided(most: int) -> list[Ended]:
    """The requests that ended last, each verified."""
    ended = promotions().exclude(state=Promotion.State.OPEN).select_related("requested_by__actor")
    found = list(ended.order_by("-decided_at")[:most])
    events = _events(seq for item in found for seq in (item.seq, item.decided_seq))
    return [Ended(item, _trouble(item, events)) for item in found]


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
    """An open request as a list shows it; `signed` are the people whose approval counts now.

    `trouble` is what the log has otherwise than the rows of the request and its signatures.
    """

    promotion: Promotion
    signed: frozenset[int]
    needed: int
    stale: int
    trouble: str

    def waits_for(self, user: User) -> bool:
        return (
            user.role in POLICIES[self.promotion.environment].roles
            and user.pk != self.promotion.requested_by_id
            and user.pk not in self.signed
        )


def queue() -> list[Standing]:
    """The open requests, those that wait longest first; as many queries however many there are."""
    given = Decision.objects.filter(intent=Decision.Intent.APPROVE).select_related("signer__actor")
    found = list(
        promotions(state=Promotion.State.OPEN)
        .select_related("requested_by__actor")
        .prefetch_related(Prefetch("decisions", given))
        .order_by("created_at")[:MOST_QUEUE]
    )
    findings = reconciliation.findings_by_version([item.version_id for item in found])
    events = _events(
        seq for item in found for seq in (item.seq, item.decided_seq, *(one.seq for one in item.decisions.all()))
    )
    return [_standing(item, findings.get(item.version_id, []), events) for item in found]


def _standing(promotion: Promotion, findings: list[Finding], events: dict[int | None, RecordedEvent]) -> Standing:
    policy = POLICIES[promotion.environment]
    digest = evidence_digest(promotion.version, findings)
    troubles = {item: proving.of_decision(item, promotion, events.get(item.seq)) for item in promotion.decisions.all()}
    proven = [item for item, trouble in troubles.items() if not trouble]
    signed = frozenset(
        item.signer_id
        for item in proven
        if item.policy_digest == policy.digest and item.evidence_digest == digest and item.role in policy.roles
    )
    trouble = _trouble(promotion, events) or next(filter(None, troubles.values()), "")
    return Standing(promotion, signed, policy.approvals, len({item.signer_id for item in proven} - signed), trouble)


def waiting_for(user: User) -> list[Promotion]:
    """Open requests that this person may sign and has not signed as they stand now, the oldest first."""
    return [item.promotion for item in queue() if item.waits_for(user)]


@dataclass(frozen=True, slots=True)
class Stood:
    """Why a version stands where it does: the promotion's event, and who signed. Nothing where the log does not say.

    `trouble` is what the log has otherwise than the row.
    """

    seq: int | None
    request: UUID | None
    approvers: list[str]
    trouble: str


def explained(placed: Sequence[Placement]) -> dict[int, Stood]:
    """Each placement with what the log says of it; as many queries however many there are."""
    if not placed:
        return {}
    requests = {item.pk: _uuid(item.request) for item in placed}
    found = {
        promotion.pk: promotion
        for promotion in Promotion.objects.filter(pk__in=[item for item in requests.values() if item])
        .select_related("version", "requested_by__actor")
        .defer(*BYTES)
        .prefetch_related(Prefetch("decisions", Decision.objects.select_related("signer__actor").order_by("at")))
    }
    events = _events(
        seq
        for promotion in found.values()
        for seq in (promotion.decided_seq, *(item.seq for item in promotion.decisions.all()))
    )
    newest, is_searched = _newest_promotions(placed)
    result: dict[int, Stood] = {}
    for item in placed:
        pk = requests[item.pk]
        promotion = found.get(pk) if pk else None
        if promotion is None:
            result[item.pk] = Stood(None, None, [], "no request is recorded")
            continue
        event = events.get(promotion.decided_seq)
        trouble = proving.of_placement(item, promotion, event)
        seq = promotion.decided_seq
        if not trouble and not is_searched:
            trouble = "not checked whether another was promoted since: the search took too long"
        elif not trouble and seq is not None and newest.get((item.model.name, item.environment), seq) > seq:
            trouble = "another version was promoted since"
        approvers = _approvers(promotion, events, event) if event is not None and not trouble else []
        result[item.pk] = Stood(None if trouble else seq, promotion.pk, approvers, trouble)
    return result


def _uuid(text: str) -> UUID | None:
    try:
        return UUID(text)
    except ValueError:
        return None


def _approvers(promotion: Promotion, events: dict[int | None, RecordedEvent], promoted: RecordedEvent) -> list[str]:
    """Printed names of those whose signatures the promotion names; each a row that is proven."""
    metadata = (promoted.body or {}).get("metadata", {})
    return [
        item.printed_name
        for item in promotion.decisions.all()
        if item.intent == Decision.Intent.APPROVE
        and item.signer.actor.id in metadata.get("approved_by", ())
        and (item.policy_digest, item.evidence_digest) == (metadata["policy_digest"], metadata["evidence_digest"])
        and not proving.of_decision(item, promotion, events.get(item.seq))
    ]


def _newest_promotions(placed: Sequence[Placement]) -> tuple[dict[tuple[str, str], int], bool]:
    """The newest promotion of each model into each environment, by the portal itself; false when the search gave up."""
    terms = {
        "source": [PORTAL],
        "action": ["promote"],
        "outcome": ["done"],
        "environment": sorted({item.environment for item in placed}),
        "model": sorted({item.model.name for item in placed}),
    }
    query = Query(
        tuple(Term(key, tuple(Value(Form.EXACT, value) for value in values)) for key, values in terms.items())
    )
    now = max(item.since for item in placed)  # no term of time is in the query
    try:
        page = search.page(query, now=now, resolve=lambda _: [], after=None, most=NEWEST_PROMOTIONS)
    except search.SearchTooSlowError:
        return {}, False
    newest: dict[tuple[str, str], int] = {}
    for event in ledger.recorded(page.seqs):
        for model in (event.body or {}).get("models", ()):
            key = (model, str((event.body or {}).get("environment", "")))
            newest[key] = max(event.seq, newest.get(key, -1))
    return newest, True


def promotions_of(version: Version) -> list[Promotion]:
    return list(promotions().filter(version=version))
