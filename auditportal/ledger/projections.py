"""From a body to its search rows: pure, so that what is stored can be compared with what the log says."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from auditportal.ledger import drafts

LONGEST_WORD = 200  # characters; longer runs are cut, they are data rather than words
MOST_WORDS = 2_000  # of one event; a body of 256 KiB may hold more, its further words are not indexed
_WORDS = re.compile(r"[^\W_]+", re.UNICODE)


@dataclass(frozen=True, slots=True)
class EventRow:
    """The columns of `Event`, in their order."""

    seq: int
    event_id: str
    source: str
    native_id: str
    action: str
    outcome: str
    actor: str
    actor_type: str
    assurance: str
    timestamp: datetime
    timestamp_kind: str
    recorded_at: datetime
    subject_type: str
    subject_id: str
    environment: str


COLUMNS = tuple(EventRow.__slots__)


def event_row(seq: int, recorded_at: str, body: dict[str, Any]) -> EventRow:
    return EventRow(
        seq=seq,
        event_id=body["event_id"],
        source=body["source"]["id"],
        native_id=body["source"].get("native_id", ""),
        action=body["action"],
        outcome=body["outcome"],
        actor=body["actor"]["id"],
        actor_type=body["actor"]["type"],
        assurance=body["actor"]["assurance"],
        timestamp=drafts.parse_instant(body["timestamp"]),
        timestamp_kind=body["timestamp_kind"],
        recorded_at=drafts.parse_instant(recorded_at),
        subject_type=body["subject"]["type"],
        subject_id=body["subject"]["id"],
        environment=body.get("environment", ""),
    )


def related_rows(body: dict[str, Any]) -> list[tuple[str, str, str]]:
    """(type, id, relation) of the subject, whose relation is empty, and of each related object."""
    subject = body["subject"]
    rows = [(subject["type"], subject["id"], "")]
    rows += [(item["type"], item["id"], item.get("relation", "related")) for item in body["related"]]
    return rows


def words(body: dict[str, Any]) -> list[str]:
    """What a text search finds: identifiers whole and split, and every word of reason and metadata; lower case."""
    found: set[str] = set(_marks(body))
    for text in _texts(body):
        found.update(split_words(text))
        if 0 < len(text) <= LONGEST_WORD and " " not in text:  # an identifier; only marks have a space
            found.add(text.lower())
        if len(found) >= MOST_WORDS:
            break
    return sorted(found)[:MOST_WORDS]


def mark(name: str) -> str:
    """The word that stands for a property of an event, as a tsquery term; no text can contain it (it has a space)."""
    return "'has " + name.replace("\\", "").replace("'", "") + "'"


def _marks(body: dict[str, Any]) -> Iterator[str]:
    if body["action"] == "attest" and isinstance(body.get("metadata", {}).get("kind"), str):
        yield f"has attestation.{body['metadata']['kind'].lower()}"[:LONGEST_WORD]
    if "reason" in body:
        yield "has reason"
    if _is_any_sealed(body.get("metadata", {})) or _is_any_sealed(body.get("reason", "")):
        yield "has sealed"


def _is_any_sealed(value: Any) -> bool:  # noqa: ANN401 -- JSON is any of seven types
    if isinstance(value, dict):
        return "$sealed" in value or any(map(_is_any_sealed, value.values()))
    return isinstance(value, list) and any(map(_is_any_sealed, value))


def split_words(text: str) -> set[str]:
    return {word.lower()[:LONGEST_WORD] for word in _WORDS.findall(text)}


def _texts(body: dict[str, Any]) -> Iterator[str]:
    yield body["action"]
    yield body["event_id"]
    yield body["source"].get("native_id", "")
    for kind, object_id, _ in related_rows(body):
        yield kind
        yield object_id
    yield from body["models"]
    yield body.get("environment", "")
    yield from _strings(body.get("reason", ""))
    yield from _strings(body.get("metadata", {}))


def _strings(value: Any) -> Iterator[str]:  # noqa: ANN401 -- JSON is any of seven types
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict):
        if "$sealed" in value:
            return  # a commitment is nothing a person searches for
        for key, item in value.items():
            yield key
            yield from _strings(item)
    elif isinstance(value, list):
        for item in value:
            yield from _strings(item)


def rollup_keys(row: EventRow) -> list[tuple[str, str]]:
    """(dimension, value) pairs this event is counted under; '' counts all."""
    keys = [("", ""), ("action", row.action), ("outcome", row.outcome), ("actor", row.actor), ("source", row.source)]
    if row.environment:
        keys.append(("environment", row.environment))
    return keys
