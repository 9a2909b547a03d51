"""Promotions asked for, signed, rejected and withdrawn: one service for every path, and an event for every attempt.

A refusal is recorded and returned, never raised: raising inside the transaction would erase the record of it.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from datetime import datetime, timedelta
from urllib.parse import urlsplit

from django.conf import settings
from django.core.cache import cache
from django.db import IntegrityError, transaction

from auditportal.accounts import services as accounts
from auditportal.accounts.models import User
from auditportal.approvals import gates, queries
from auditportal.approvals.errors import ApprovalError
from auditportal.approvals.gates import Granted, Refused
from auditportal.approvals.models import Decision, Promotion
from auditportal.approvals.policies import POLICIES
from auditportal.approvals.queries import Packet
from auditportal.catalog import services as catalog
from auditportal.catalog.models import Version
from auditportal.ledger import queries as ledger_queries, services as ledger
from auditportal.ledger.drafts import SYSTEM, Draft, Outcome, Related, Subject, instant
from auditproof import approvals, sealed
from auditproof.canonical import encode

SALT_BYTES = NONCE_BYTES = 16
MEANINGS = {
    "approve": ("approved for use", "reviewed and approved", "approved as risk owner"),
    "reject": ("rejected",),
}
MOST_WRONG = 5  # passwords, then no signing for a while, with the right one neither
WRONG_FOR = timedelta(minutes=15)
MOST_REASON = 2_000  # characters


@dataclass(frozen=True, slots=True)
class Signed:
    """The signature stands at `seq`; `promoted` when it was the one that was missing."""

    seq: int
    promoted: bool


@dataclass(frozen=True, slots=True)
class Turned:
    """The attempt was refused, and stands in the log as refused at `seq`."""

    reasons: tuple[str, ...]
    seq: int


@ledger.retried
@transaction.atomic(durable=True)
def open_promotion(*, version: Version, environment: str, reason: str, user: User, now: datetime) -> Promotion:
    """The request stands, open for signatures; the conditions as they were are part of its event.

    Raises:
        ApprovalError: no such environment, no reason, or one is open already.
    """
    policy = POLICIES.get(environment)
    if policy is None:
        raise ApprovalError(f"environments are {', '.join(POLICIES)}")
    if not reason.strip() or len(reason) > MOST_REASON:
        raise ApprovalError(f"give a reason of at most {MOST_REASON} characters")
    try:
        with transaction.atomic():
            promotion = Promotion.objects.create(
                version=version,
                environment=environment,
                reason=reason.strip(),
                requested_by=user,
                manifest_digest=version.manifest_digest,
                created_at=now,
            )
    except IntegrityError as error:
        raise ApprovalError("a request for this version and environment is open already") from error
    packet = queries.packet(promotion, now=now)
    metadata = _covered(promotion, packet) | {"conditions": {item.key: item.holds for item in packet.conditions}}
    draft = Draft(
        action="request",
        actor=accounts.doer(user),
        subject=Subject("model_version", version.label),
        timestamp=now,
        environment=environment,
        reason=promotion.reason,
        metadata=metadata,
    )
    promotion.seq = ledger.append([draft])[0].seq
    promotion.save(update_fields=["seq"])
    return promotion


def _covered(promotion: Promotion, packet: Packet) -> dict[str, object]:
    return {
        "request": str(promotion.pk),
        "manifest_digest": promotion.manifest_digest or "none",
        "policy_digest": packet.policy.digest,
        "evidence_digest": packet.evidence_digest,
    }


def sign(
    *,
    promotion: Promotion,
    user: User,
    intent: str,
    meaning: str,
    comment: str,
    password: str,
    seen: str,
    now: datetime,
) -> Signed | Turned:
    """The person's decision, if they may make it now; in any case the attempt stands in the log.

    `seen` is `Packet.fingerprint` of the page the person looked at. The person is authenticated again by password:
    the weaker way to sign, which the record calls `session`.
    """
    # Outside the transaction: stretching a password takes longer than a row should stay locked.
    is_throttled = _wrong_before(user) >= MOST_WRONG
    is_right = not is_throttled and user.check_password(password)
    if password and not is_right and not is_throttled:
        _note_wrong(user)
    return _sign(
        promotion_id=str(promotion.pk),
        user=user,
        intent=intent,
        meaning=meaning if len(MEANINGS[intent]) > 1 else MEANINGS[intent][0],  # where there is a choice, it is made
        comment=comment.strip()[:MOST_REASON],
        is_right=is_right,
        is_throttled=is_throttled,
        seen=seen,
        now=now,
    )


@ledger.retried
@transaction.atomic(durable=True)
def _sign(
    *,
    promotion_id: str,
    user: User,
    intent: str,
    meaning: str,
    comment: str,
    is_right: bool,
    is_throttled: bool,
    seen: str,
    now: datetime,
) -> Signed | Turned:
    promotion = Promotion.objects.select_for_update().get(pk=promotion_id)
    signer = User.objects.select_for_update().get(pk=user.pk)  # the role held at this moment counts
    # No reading of the version ends between what the gate sees and the commit.
    Version.objects.select_for_update(no_key=True).only("pk").get(pk=promotion.version_id)
    packet = queries.packet(promotion, now=now)
    signing = gates.Signing(
        signer=signer.actor.id,
        role=signer.role if signer.is_active else "none",
        is_password_right=is_right,
        is_throttled=is_throttled,
        has_signed=packet.is_signed_by(signer),
        is_open=promotion.is_open,
        is_unchanged=seen == packet.fingerprint,
        has_meaning=meaning in MEANINGS[intent],
        trouble=packet.trouble,
    )
    verdict = gates.may_sign(packet.policy, packet.facts, signing, intent=intent)
    if isinstance(verdict, Refused):
        return _turn_away(promotion, packet, signer, intent, verdict, now)
    return _record_decision(promotion, packet, signer, intent, meaning, comment, now)


def _turn_away(
    promotion: Promotion, packet: Packet, signer: User, intent: str, verdict: Refused, now: datetime
) -> Turned:
    draft = Draft(
        action=intent,
        actor=accounts.doer(signer),
        subject=Subject("model_version", promotion.version.label),
        timestamp=now,
        outcome=Outcome.REFUSED,
        environment=promotion.environment,
        reason=verdict.summary,
        metadata=_covered(promotion, packet),
    )
    return Turned(verdict.reasons, ledger.append([draft])[0].seq)


def _record_decision(
    promotion: Promotion, packet: Packet, signer: User, intent: str, meaning: str, comment: str, now: datetime
) -> Signed:
    salt = os.urandom(SALT_BYTES)
    statement = make_statement(
        promotion=promotion, packet=packet, signer=signer, intent=intent, meaning=meaning, salt=salt, now=now
    )
    decision = Decision.objects.create(
        promotion=promotion,
        intent=intent,
        signer=signer,
        role=signer.role,
        meaning=meaning,
        comment=comment,
        statement=statement,
        printed_name=signer.printed_name,
        name_salt=salt,
        policy_digest=packet.policy.digest,
        evidence_digest=packet.evidence_digest,
        at=now,
    )
    subject = Subject("model_version", promotion.version.label)
    challenge = approvals.challenge(statement).hex()
    drafts = [
        Draft(
            action=intent,
            actor=accounts.doer(signer),
            subject=subject,
            timestamp=now,
            environment=promotion.environment,
            reason=comment,
            metadata=_covered(promotion, packet)
            | {"meaning": meaning, "approval": {"challenge": challenge, "factors": ["password"]}},
        )
    ]
    after = queries.packet(promotion, now=now, fresh=decision)
    is_promoted = intent == "approve" and isinstance(gates.evaluate(after.conditions), Granted)
    if intent == "reject":
        promotion.state, promotion.decided_at = Promotion.State.REJECTED, now
    elif is_promoted:
        promotion.state, promotion.decided_at = Promotion.State.PROMOTED, now
        drafts.append(_promote(promotion, after, now))
    promotion.save(update_fields=["state", "decided_at"])
    places = ledger.append(drafts)
    Decision.objects.filter(pk=decision.pk).update(seq=places[0].seq)
    if not promotion.is_open:
        Promotion.objects.filter(pk=promotion.pk).update(decided_seq=places[-1].seq)
    return Signed(places[0].seq, is_promoted)


def _promote(promotion: Promotion, packet: Packet, now: datetime) -> Draft:
    """The version takes its place; who approved it stands in the event by their pseudonyms."""
    before = catalog.place(
        version=promotion.version, environment=promotion.environment, request=str(promotion.pk), now=now
    )
    related = [Related("model_version", before.label, "replaces")] if before and before != promotion.version else []
    approvers = sorted({item.signer for item in packet.facts.approvals if not item.is_stale})
    return Draft(
        action="promote",
        actor=SYSTEM,
        subject=Subject("model_version", promotion.version.label),
        timestamp=now,
        environment=promotion.environment,
        related=related,
        reason=f"approved by {len(approvers)} of {packet.policy.approvals}",
        metadata=_covered(promotion, packet) | {"approved_by": approvers},
    )


def make_statement(
    *, promotion: Promotion, packet: Packet, signer: User, intent: str, meaning: str, salt: bytes, now: datetime
) -> bytes:
    """The exact bytes of what is signed (FORMAT.md §6); the printed name only as its commitment."""
    head = ledger_queries.head()
    return encode(
        {
            "v": 1,
            "intent": f"promotion.{intent}",
            "meaning": meaning,
            "log": settings.LOG_ORIGIN,
            "request": str(promotion.pk),
            "environment": promotion.environment,
            "subject": {"id": promotion.version.label, "type": "model_version"},
            "manifest_digest": promotion.manifest_digest,
            "policy_digest": packet.policy.digest,
            "evidence_digest": packet.evidence_digest,
            "signer": {
                "id": signer.actor.id,
                "printed_name": {"$sealed": sealed.commit(salt, signer.printed_name)},
                "role": signer.role,
            },
            "method": "session",
            "rp_id": urlsplit(settings.PUBLIC_URL).hostname or "localhost",
            "checkpoint": {"root": head.root.hex(), "size": head.size},
            "at": instant(now),
            "nonce": os.urandom(NONCE_BYTES).hex(),
        }
    )


@ledger.retried
@transaction.atomic(durable=True)
def withdraw(*, promotion: Promotion, user: User, now: datetime) -> int | Turned:
    """The request is closed by whoever opened it; anybody else is refused, on the record."""
    locked = Promotion.objects.select_for_update().get(pk=promotion.pk)
    packet = queries.packet(locked, now=now)
    reasons = []
    if not locked.is_open:
        reasons.append("the request is no longer open")
    if packet.trouble:
        reasons.append(f"the request does not match the log: {packet.trouble}")
    if locked.requested_by_id != user.pk:
        reasons.append("only who asked may withdraw")
    if reasons:
        return _turn_away(locked, packet, user, "withdraw", Refused(tuple(reasons)), now)
    locked.state, locked.decided_at = Promotion.State.WITHDRAWN, now
    draft = Draft(
        action="withdraw",
        actor=accounts.doer(user),
        subject=Subject("model_version", locked.version.label),
        timestamp=now,
        environment=locked.environment,
        metadata=_covered(locked, packet),
    )
    locked.save(update_fields=["state", "decided_at"])
    seq = ledger.append([draft])[0].seq
    Promotion.objects.filter(pk=locked.pk).update(decided_seq=seq)
    return seq


def _wrong_key(user: User) -> str:
    return f"approvals:wrong-passwords:{user.pk}"


def _wrong_before(user: User) -> int:
    return int(cache.get(_wrong_key(user), 0))


def _note_wrong(user: User) -> None:
    key, lasts = _wrong_key(user), int(WRONG_FOR.total_seconds())
    cache.add(key, 0, lasts)
    try:
        cache.incr(key)
    except ValueError:  # it ran out between the two calls
        cache.set(key, 1, lasts)
