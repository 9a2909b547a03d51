"""Plain keyword-only functions; each gives something valid that a test then bends."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

from django.db import transaction

from auditportal.ledger import services as ledger
from auditportal.ledger.drafts import Actor, Draft, Related, Subject
from auditportal.ledger.services import Recorded

NOON = datetime(2026, 11, 20, 12, 0, tzinfo=UTC)
ERIN = Actor(type="user", id="usr_00000000000000000000")


def make_draft(**changes: Any) -> Draft:
    given: dict[str, Any] = {
        "action": "train",
        "actor": ERIN,
        "subject": Subject("run", "c07d2e"),
        "related": [Related("dataset", "DS:2026-11"), Related("model_version", "churn:14", "trained")],
        "timestamp": NOON,
        "timestamp_kind": "claimed",
        "source_id": "ci-train",
        "metadata": {"auc": 0.921},
    }
    return Draft(**(given | changes))


def record(*drafts: Draft) -> list[Recorded]:
    with transaction.atomic():
        return ledger.append(list(drafts) or [make_draft()])


def record_many(count: int, **changes: Any) -> list[Recorded]:
    return record(*(make_draft(timestamp=NOON + timedelta(seconds=n), **changes) for n in range(count)))
