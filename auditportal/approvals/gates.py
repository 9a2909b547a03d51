"""Whether a version may be promoted: decided over values, so that a page, a service and a test ask the same function.

A gate that does not hold is a value with what to do about it, never an exception: a refusal is a fact to keep.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from auditportal.approvals.policies import Policy

# What is refused is recorded with its reasons, and an event has a size: a registry may have lost ten thousand blobs.
MOST_FINDINGS, MOST_FINDING = 5, 300


@dataclass(frozen=True, slots=True)
class Condition:
    """One demand of the policy; `todo` says what to do while it does not hold."""

    key: str
    title: str
    holds: bool
    found: str
    todo: str = ""


@dataclass(frozen=True, slots=True)
class Approval:
    """One signature as the gate sees it; a stale one covers digests that have changed since."""

    signer: str
    role: str
    is_stale: bool


@dataclass(frozen=True, slots=True)
class Facts:
    """What is known about the version when the question is asked."""

    manifest_digest: str
    requested_digest: str
    check_state: str
    check_note: str
    checked_at: datetime | None
    open_findings: Sequence[str]
    approvals: Sequence[Approval]
    requester: str
    now: datetime


@dataclass(frozen=True, slots=True)
class Granted:
    pass


@dataclass(frozen=True, slots=True)
class Refused:
    reasons: tuple[str, ...]

    @property
    def summary(self) -> str:
        return "; ".join(self.reasons)


def conditions(policy: Policy, facts: Facts) -> list[Condition]:
    """Every demand, met or not, those about the version first and the signatures last."""
    return [*of_version(policy, facts), of_signatures(policy, facts)]


def of_version(policy: Policy, facts: Facts) -> list[Condition]:
    """The demands that must hold before anybody signs."""
    return [_identity(facts), _bytes(facts), _age(policy, facts), _findings(facts)]


def _identity(facts: Facts) -> Condition:
    digest = facts.manifest_digest
    holds = bool(digest) and digest == facts.requested_digest
    if not digest:
        found = "this version has no manifest digest"
        todo = "Pack it as a ModelKit and push it to the registry; promote that version."
    elif not holds:
        found, todo = "the digest changed since the request", "Withdraw this request and ask anew."
    else:
        found, todo = digest, ""
    return Condition("manifest", "A manifest digest to sign", holds, found, todo)


def _bytes(facts: Facts) -> Condition:
    holds = facts.check_state == "checked"
    return Condition(
        "bytes",
        "Every byte read and matched at the registry",
        holds,
        facts.check_state if holds or not facts.check_note else f"{facts.check_state}: {facts.check_note}",
        "" if holds else "Run a reconciliation of this version, and mend at the registry what it finds.",
    )


def _age(policy: Policy, facts: Facts) -> Condition:
    limit = timedelta(days=policy.check_age_days)
    holds = facts.checked_at is not None and facts.now - facts.checked_at <= limit
    if facts.checked_at is None:
        found = "never read whole"
    else:
        days = max(0, (facts.now - facts.checked_at).days)
        found = "read today" if days == 0 else f"read {days} day{'' if days == 1 else 's'} ago"
    return Condition(
        "fresh",
        f"Read within {policy.check_age_days} days",
        holds,
        found,
        "" if holds else "Run a reconciliation of this version.",
    )


def _findings(facts: Facts) -> Condition:
    holds = not facts.open_findings
    named = [text[:MOST_FINDING] for text in facts.open_findings[:MOST_FINDINGS]]
    more = len(facts.open_findings) - len(named)
    return Condition(
        "findings",
        "No open finding",
        holds,
        "none open" if holds else "; ".join([*named, *([f"and {more} more"] if more else [])]),
        "" if holds else "Mend it at the registry; the next reconciliation closes the finding.",
    )


def of_signatures(policy: Policy, facts: Facts) -> Condition:
    counted = {
        approval.signer
        for approval in facts.approvals
        if not approval.is_stale
        and approval.role in policy.roles
        and not (policy.bars_requester and approval.signer == facts.requester)
    }
    holds = len(counted) >= policy.approvals
    people = "approval" if policy.approvals == 1 else "approvals by different people"
    return Condition(
        "approvals",
        f"{policy.approvals} {people}",
        holds,
        f"{len(counted)} of {policy.approvals}",
        "" if holds else f"Ask somebody with the role {' or '.join(policy.roles)} to sign.",
    )


def evaluate(found: Sequence[Condition]) -> Granted | Refused:
    """Granted when every condition holds."""
    missing = tuple(f"{item.title.lower()}: {item.found}" for item in found if not item.holds)
    return Refused(missing) if missing else Granted()


@dataclass(frozen=True, slots=True)
class Signing:
    """What is known about somebody who wants to sign."""

    signer: str
    role: str
    is_password_right: bool
    is_throttled: bool
    has_signed: bool
    is_open: bool
    is_unchanged: bool  # the digests on the signer's page are those of now
    has_meaning: bool = True  # what the signature means was chosen
    trouble: str = ""  # what the log has otherwise than the request's row


def may_sign(policy: Policy, facts: Facts, signing: Signing, *, intent: str) -> Granted | Refused:
    """Whether this person may sign this now. A rejection needs no gate to hold."""
    reasons: list[str] = []
    if not signing.is_open:
        reasons.append("the request is no longer open")
    if signing.trouble:
        reasons.append(f"the request does not match the log: {signing.trouble}")
    if signing.role not in policy.roles:
        reasons.append(f"the role {signing.role} may not sign; {' and '.join(policy.roles)} may")
    if policy.bars_requester and signing.signer == facts.requester:
        reasons.append("who asks for a promotion may not sign it")
    if signing.has_signed:
        reasons.append("this person has signed already")
    if not reasons:  # whoever may not sign in any case need not say a password, nor have it counted
        if signing.is_throttled:
            reasons.append("too many wrong passwords; wait a quarter of an hour")
        elif not signing.is_password_right:
            reasons.append("the password was wrong")
        if not signing.has_meaning:
            reasons.append("the meaning of the signature was not chosen")
    if not signing.is_unchanged:
        reasons.append("what the signature would cover changed since the page was drawn")
    if intent == "approve":
        reasons += [f"{item.title.lower()}: {item.found}" for item in of_version(policy, facts) if not item.holds]
    return Refused(tuple(reasons)) if reasons else Granted()
