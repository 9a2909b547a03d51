"""What a caller says happened, before it is a body: values with names instead of dictionaries."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from enum import StrEnum
from typing import Any

PORTAL = "auditportal"  # the reserved source of the portal's own acts


class Outcome(StrEnum):
    DONE = "done"
    REFUSED = "refused"
    FAILED = "failed"


class Assurance(StrEnum):
    """How well we know the actor: we authenticated it, a system we trust did, a payload says so, nobody said."""

    VERIFIED = "verified"
    VOUCHED = "vouched"
    CLAIMED = "claimed"
    UNKNOWN = "unknown"


@dataclass(frozen=True, slots=True)
class Actor:
    """A pseudonym and how sure it is; names live in the actor directory, never in an event."""

    type: str
    id: str
    assurance: str = Assurance.VERIFIED
    vouched_by: str = ""

    def member(self) -> dict[str, Any]:
        value: dict[str, Any] = {"assurance": str(self.assurance), "id": self.id, "type": self.type}
        return value | {"vouched_by": self.vouched_by} if self.vouched_by else value


SYSTEM = Actor(type="system", id="system")
UNKNOWN = Actor(type="unknown", id="unknown", assurance=Assurance.UNKNOWN)


@dataclass(frozen=True, slots=True)
class Subject:
    type: str
    id: str

    def member(self) -> dict[str, str]:
        return {"id": self.id, "type": self.type}


@dataclass(frozen=True, slots=True)
class Related:
    type: str
    id: str
    relation: str = ""

    def member(self) -> dict[str, str]:
        value = {"id": self.id, "type": self.type}
        return value | {"relation": self.relation} if self.relation else value


@dataclass(frozen=True, slots=True)
class Sealed:
    """A value that must not stand in a body: only its salted commitment does (FORMAT.md §2)."""

    value: Any


@dataclass(frozen=True, slots=True)
class Sent:
    """The event as the producer sent it, kept aside with the signature it came with (FORMAT.md §1)."""

    canonical: bytes
    signature: bytes | None = None


@dataclass(slots=True, kw_only=True)  # not frozen: that would triple the time to make one, and a batch makes thousands
class Draft:
    """One event to be recorded.

    Without `event_id` the event gets a fresh random one. `submitted` is the canonical JSON of what was submitted; it
    decides whether a repeated id is the same event. `models` adds to what subject and related already name.
    """

    action: str
    actor: Actor
    subject: Subject
    timestamp: datetime | str
    outcome: str = Outcome.DONE
    event_id: str = ""
    timestamp_kind: str = "observed"
    not_before: datetime | str | None = None
    related: Sequence[Related] = ()
    models: Sequence[str] = ()
    environment: str = ""
    reason: str | Sealed = ""
    metadata: Mapping[str, Any] = field(default_factory=dict)
    source_id: str = PORTAL
    native_id: str = ""
    source_seq: int | None = None
    raw: bytes | None = None
    sent: Sent | None = None
    artifact_sha256: str = ""
    submitted: bytes | None = None


def instant(value: datetime | str) -> str:
    """RFC 3339, UTC, six decimals, `Z`: the only form of time in a body or header."""
    if isinstance(value, str):
        return value
    return value.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ").rjust(27, "0")


def parse_instant(text: str) -> datetime:
    """The inverse of `instant`, for values already checked."""
    return datetime.fromisoformat(text)
