"""Rows of this app against the events that the log has of them: what a table says alone is no fact.

Pure: a row and its event go in; out comes what does not hold, as words for a page, or nothing when the row is proven.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from auditportal.approvals.models import Decision, Promotion
from auditportal.catalog.models import Placement
from auditportal.ledger.drafts import instant
from auditportal.ledger.queries import RecordedEvent
from auditproof import approvals, sealed

ENDS = {
    Promotion.State.PROMOTED: "promote",
    Promotion.State.REJECTED: "reject",
    Promotion.State.WITHDRAWN: "withdraw",
}


def of_request(promotion: Promotion, event: RecordedEvent | None) -> str:
    """What was asked, by whom and when, as the event that asked has it."""
    body, trouble = _body(event)
    if body is None:
        return trouble
    return _told(
        _wrong(body, promotion, action="request")
        | {
            "who asked": body["actor"]["id"] != promotion.requested_by.actor.id,
            "the reason": body.get("reason", "") != promotion.reason,
            "the time": body["timestamp"] != instant(promotion.created_at),
        }
    )


def of_end(promotion: Promotion, event: RecordedEvent | None) -> str:
    """That the request is open, or how and when it ended, as the event that ended it has it."""
    if promotion.is_open:
        return "" if promotion.decided_seq is None else "it stands as open, and ended in the log"
    body, trouble = _body(event)
    if body is None:
        return trouble
    when = promotion.decided_at
    return _told(
        _wrong(body, promotion, action=ENDS[Promotion.State(promotion.state)])
        | {"the time it ended": when is None or body["timestamp"] != instant(when)}
    )


def of_decision(item: Decision, promotion: Promotion, event: RecordedEvent | None) -> str:
    """Who signed what with which meaning, and the statement's bytes, which the event names by their challenge."""
    body, trouble = _body(event)
    if body is None:
        return trouble
    metadata, statement = body["metadata"], bytes(item.statement)
    wrong = _wrong(body, promotion, action=item.intent) | {
        "the signer": body["actor"]["id"] != item.signer.actor.id,
        "the meaning": metadata.get("meaning") != item.meaning,
        "the comment": body.get("reason", "") != item.comment,
        "the time": body["timestamp"] != instant(item.at),
        "the policy": metadata.get("policy_digest") != item.policy_digest,
        "the evidence": metadata.get("evidence_digest") != item.evidence_digest,
    }
    named = metadata.get("approval")
    if not isinstance(named, dict) or named.get("challenge") != approvals.challenge(statement).hex():
        return _told(wrong | {"the statement": True})
    signer = json.loads(statement)["signer"]  # the log vouches for these bytes, so they are our own
    name = {"$sealed": sealed.commit(bytes(item.name_salt), item.printed_name)}
    return _told(wrong | {"the role": signer["role"] != item.role, "the printed name": signer["printed_name"] != name})


def of_placement(placed: Placement, promotion: Promotion, event: RecordedEvent | None) -> str:
    """Which version stands where, since when and by which request, as the event that put it there has it."""
    body, trouble = _body(event)
    if body is None:
        return trouble
    return _told(
        _wrong(body, promotion, action="promote")
        | {
            "the version": body["subject"] != {"id": placed.version.label, "type": "model_version"},
            "the environment": body.get("environment") != placed.environment,
            "the request": body["metadata"].get("request") != placed.request,
            "the time": body["timestamp"] != instant(placed.since),
        }
    )


def _body(event: RecordedEvent | None) -> tuple[dict[str, Any] | None, str]:
    if event is None:
        return None, "the log has no entry of it"
    if event.body is None:
        return None, f"its entry in the log is broken: {event.failure}" if event.is_broken else "its entry is erased"
    return event.body, ""


def _wrong(body: Mapping[str, Any], promotion: Promotion, *, action: str) -> dict[str, bool]:
    """What every event about a request says of it."""
    metadata = body.get("metadata", {})
    return {
        "the act": (body["action"], body["outcome"]) != (action, "done"),
        "the version": body["subject"] != {"id": promotion.version.label, "type": "model_version"},
        "the environment": body.get("environment") != promotion.environment,
        "the request": metadata.get("request") != str(promotion.pk),
        "the manifest": metadata.get("manifest_digest") != (promotion.manifest_digest or "none"),
    }


def _told(wrong: Mapping[str, bool]) -> str:
    names = [name for name, is_wrong in wrong.items() if is_wrong]
    return f"the log has it otherwise: {', '.join(names)}" if names else ""
