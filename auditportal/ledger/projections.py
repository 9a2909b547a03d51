"""From a body to its search rows: pure, so that what is stored can be compared with what the log says."""

from __future__ import annotations

import re
from datetime import datetime
from typing import Any, NamedTuple

from auditportal.ledger import drafts

LONGEST_WORD = 200  # characters; longer runs are cut, they are data rather than words
MOST_WORDS = 2_000  # of one event; a body of 256 KiB may hold more, its further words are not indexed
_WORDS = re.compile(r"[^\W_]+", re.UNICODE)
_TO_WORDS = "".join(char if char.isalnum() else " " for char in map(chr, range(128)))


class EventRow(NamedTuple):
    """The columns of `Event`, in their order; a tuple, since verification compares one with each row of the table."""

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


COLUMNS = EventRow._fields
SELECTED = ", ".join(COLUMNS).replace("event_id", "event_id::text")
SELECTED_TEXTS = re.sub(
    r"\b(timestamp|recorded_at)\b", r"""to_char(\1 AT TIME ZONE 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS.US"Z"')""", SELECTED
)


def event_row(seq: int, recorded_at: str, body: dict[str, Any]) -> EventRow:
    return EventRow._make(event_texts(seq, recorded_at, body))._replace(
        timestamp=drafts.parse_instant(body["timestamp"]), recorded_at=drafts.parse_instant(recorded_at)
    )


def event_texts(seq: int, recorded_at: str, body: dict[str, Any]) -> tuple[Any, ...]:
    """As `event_row`, with the times as the log writes them."""
    source, actor, subject = body["source"], body["actor"], body["subject"]
    return (
        seq,
        body["event_id"],
        source["id"],
        source.get("native_id", ""),
        body["action"],
        body["outcome"],
        actor["id"],
        actor["type"],
        actor["assurance"],
        body["timestamp"],
        body["timestamp_kind"],
        recorded_at,
        subject["type"],
        subject["id"],
        body.get("environment", ""),
    )


def related_rows(body: dict[str, Any]) -> list[tuple[str, str, str]]:
    """(type, id, relation) of the subject, whose relation is empty, and of each related object."""
    subject = body["subject"]
    rows = [(subject["type"], subject["id"], "")]
    rows += [(item["type"], item["id"], item.get("relation", "related")) for item in body["related"]]
    return rows


def words(body: dict[str, Any]) -> list[str]:
    """What a text search finds: identifiers whole and split, and every word of reason and metadata; lower case."""
    texts: list[str] = []
    is_sealed = _gather_texts(body, texts)
    marks = _marks(body, is_sealed=is_sealed)
    usual = _usual_words(marks, texts)
    return sorted(_all_words(marks, texts) if usual is None else usual)[:MOST_WORDS]


def _usual_words(marks: list[str], texts: list[str]) -> set[str] | None:
    """As `_all_words`, all texts at once; None where a text is not plain ASCII or a limit is reached."""
    joined = "\n".join(texts)
    if not joined.isascii() or joined.count("\n") != len(texts) - 1:
        return None
    lower = joined.lower()
    found = {*marks, *lower.translate(_TO_WORDS).split()}
    found.update([text for text in lower.split("\n") if text and " " not in text])
    return found if len(found) < MOST_WORDS and max(map(len, found), default=0) <= LONGEST_WORD else None


def _all_words(marks: list[str], texts: list[str]) -> set[str]:
    found = set(marks)
    for text in texts:
        found.update(split_words(text))
        if 0 < len(text) <= LONGEST_WORD and " " not in text:  # an identifier; only marks have a space
            found.add(text.lower())
        if len(found) >= MOST_WORDS:
            break
    return found


def vector(found: list[str]) -> str:
    """The words, ascending, as PostgreSQL writes a tsvector of them."""
    text = "\0".join(found)  # no text has U+0000
    if "'" in text or "\\" in text:
        text = text.replace("'", "''").replace("\\", "\\\\")
    return "'" + text.replace("\0", "' '") + "'" if found else ""


def mark(name: str) -> str:
    """The word that stands for a property of an event, as a tsquery term; no text can contain it (it has a space)."""
    return "'has " + name.replace("\\", "").replace("'", "") + "'"


def _marks(body: dict[str, Any], *, is_sealed: bool) -> list[str]:
    found = ["has sealed"] if is_sealed else []
    if body["action"] == "attest" and isinstance(body.get("metadata", {}).get("kind"), str):
        found.append(f"has attestation.{body['metadata']['kind'].lower()}"[:LONGEST_WORD])
    if "reason" in body:
        found.append("has reason")
    return found


def split_words(text: str) -> set[str]:
    return {word.lower()[:LONGEST_WORD] for word in _WORDS.findall(text)}


def _gather_texts(body: dict[str, Any], found: list[str]) -> bool:
    """Adds every text that is searched for; whether a value of the event is sealed."""
    found += (body["action"], body["event_id"], body["source"].get("native_id", ""))
    for item in (body["subject"], *body["related"]):
        found += (item["type"], item["id"])
    found += body["models"]
    found.append(body.get("environment", ""))
    is_sealed = _gather(body.get("reason", ""), found)
    return _gather(body.get("metadata", {}), found) or is_sealed


def _gather(value: Any, found: list[str]) -> bool:  # noqa: ANN401 -- JSON is any of seven types
    """Adds every text in the value, and the names of members; whether something in it is sealed."""
    if type(value) is str:
        found.append(value)
        return False
    is_sealed = False
    if type(value) is dict:
        if "$sealed" in value:
            return True  # a commitment is nothing a person searches for
        for key, item in value.items():
            found.append(key)
            if type(item) is str:
                found.append(item)
            elif _gather(item, found):
                is_sealed = True
    elif type(value) is list:
        for item in value:
            if _gather(item, found):
                is_sealed = True
    return is_sealed


def rollup_keys(row: EventRow) -> list[tuple[str, str]]:
    """(dimension, value) pairs this event is counted under; '' counts all."""
    keys = [("", ""), ("action", row.action), ("outcome", row.outcome), ("actor", row.actor), ("source", row.source)]
    if row.environment:
        keys.append(("environment", row.environment))
    return keys
