"""The portal's own JSON: what a producer posts to `/api/v1/events`, read into drafts.

Strict where it must be (a wrong member is named, with its rule) and kind where it can be: `model:churn:v2` is read as
the version it names, an id that is no UUID becomes the native id and is hashed, a time is brought to UTC.
"""

from __future__ import annotations

import re
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from auditportal.ledger import actions, canonical
from auditportal.ledger.drafts import Actor, Draft, Related, Sent, Subject, instant
from auditportal.ledger.errors import Fault
from auditproof import events
from auditproof.errors import ProofError

MOST_EVENTS = 5_000  # of a batch
MOST_BYTES = 16 * 1024 * 1024
DEEPEST = 33  # an event may nest to 32; the batch around it is one more
MEMBERS = frozenset(
    {
        "v", "event_id", "action", "outcome", "actor", "timestamp", "timestamp_kind", "not_before", "subject",
        "related", "environment", "reason", "metadata", "source", "integrity",
    }
)  # fmt: skip
REQUIRED = ("action", "subject", "timestamp")
RESERVED_MEMBERS = {
    "models": "no such member: the portal names the models itself, from subject and related",
    "seq": "no such member: the portal gives each event its place",
    "recorded_at": "no such member: the portal's own clock says when it recorded",
}
_TIME = re.compile(r"(\d{4}-\d\d-\d\d)[Tt ](\d\d:\d\d:\d\d)(?:\.(\d{1,18}))?([Zz]|[+-]\d\d:\d\d)")
_SHA256 = re.compile(r"[0-9a-f]{64}")
_TYPE_AND_ID = frozenset({"type", "id"})
_ACTION = re.compile(r"[a-z][a-z0-9_.-]*")
_TYPE = re.compile(r"[a-z][a-z0-9_]{0,63}")
_UUID = re.compile(r"[0-9a-fA-F]{8}(-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}")


class FaultyInputError(Exception):
    """Input of which nothing is stored; `faults` say where and why."""

    def __init__(self, faults: Sequence[Fault], *, is_batch: bool) -> None:
        super().__init__("; ".join(f"{fault.member or 'body'}: {fault.rule}" for fault in faults))
        self.faults = tuple(faults)
        self.is_batch = is_batch


class TooLargeError(Exception):
    """More events or bytes than one request may carry."""


@dataclass(frozen=True, slots=True)
class NamedActor:
    """An actor as the producer named it; the directory turns it into a pseudonym."""

    type: str
    name: str


@dataclass(frozen=True, slots=True)
class Submission:
    """One event as posted, read and checked; `actor` is None when the producer named nobody."""

    draft: Draft
    actor: NamedActor | None


@dataclass(slots=True)
class _Reader:
    """Collects the faults of one event, so that a producer sees all of them at once."""

    index: int
    faults: list[Fault] = field(default_factory=list)

    def fault(self, member: str, rule: str) -> None:
        self.faults.append(Fault(self.index, member, rule))


def read(raw: bytes, *, source_id: str, nobody: Actor) -> tuple[list[Submission], bool]:
    """The events of a request body, and whether it was a batch.

    Raises:
        TooLargeError: over 5,000 events or 16 MiB.
        FaultyInputError: with every fault of every event; nothing of it may be stored.
    """
    if len(raw) > MOST_BYTES:
        raise TooLargeError(f"at most {MOST_BYTES} bytes; split the batch")
    try:
        reading = canonical.read(raw, max_bytes=MOST_BYTES, max_depth=DEEPEST)
    except ProofError as error:
        is_batch = raw.lstrip()[:1] == b"["
        raise FaultyInputError([_fault_of(error, is_batch=is_batch)], is_batch=is_batch) from error
    value = reading.value
    is_batch = isinstance(value, list)
    items: list[Any] = value if isinstance(value, list) else [value]
    # In a batch an event nests no deeper than the writer takes it, so what was seen while reading need not be again.
    encode = canonical.write if is_batch and reading.is_usual else canonical.encode
    if len(items) > MOST_EVENTS:
        raise TooLargeError(f"at most {MOST_EVENTS} events; split the batch")
    if not items:
        raise FaultyInputError([Fault(0, "", "at least one event")], is_batch=True)
    faults: list[Fault] = []
    submissions: list[Submission] = []
    for index, item in enumerate(items):
        reader = _Reader(index)
        submission = _read_event(item, reader, source_id=source_id, nobody=nobody, encode=encode)
        faults += reader.faults
        if submission is not None:
            submissions.append(submission)
    if faults:
        raise FaultyInputError(faults, is_batch=is_batch)
    return submissions, is_batch


def _fault_of(error: ProofError, *, is_batch: bool) -> Fault:
    """The place of a strictness error, with the index of the event in front taken off."""
    rule = f"{error.expected}; found {error.found}"
    match = re.fullmatch(r"/(\d+)(/.*)?", error.place) if is_batch else None
    if match:
        return Fault(int(match[1]), match[2] or "", rule)
    return Fault(0, error.place, rule)


def _read_event(
    item: Any,  # noqa: ANN401 -- any JSON
    reader: _Reader,
    *,
    source_id: str,
    nobody: Actor,
    encode: Callable[[Any], bytes],
) -> Submission | None:
    if not isinstance(item, dict):
        reader.fault("", "an event is a JSON object")
        return None
    _check_members(item, reader)
    named = _actor(item.get("actor"), reader)
    subject = _subject(item.get("subject"), reader, "/subject") if "subject" in item else None
    related = tuple(_related(item.get("related", []), reader))
    timestamp, native_time = _time(item.get("timestamp"), reader, "/timestamp") if "timestamp" in item else ("", "")
    not_before = _time(item["not_before"], reader, "/not_before")[0] if "not_before" in item else None
    metadata = _metadata(item.get("metadata", {}), native_time, reader)
    source = _source(item.get("source", {}), source_id, reader)
    integrity = item.get("integrity", {})
    sent = _integrity(item, integrity, reader)
    action = _action(item.get("action"), reader)
    event_id, native_id = _event_id(item.get("event_id"), source_id, source.native_id, reader)
    if reader.faults or subject is None:
        return None
    draft = Draft(
        action=action,
        actor=nobody,
        subject=subject,
        timestamp=timestamp,
        outcome=item.get("outcome", "done"),
        event_id=event_id,
        timestamp_kind=item.get("timestamp_kind", "claimed"),
        not_before=not_before,
        related=related,
        environment=item.get("environment", ""),
        reason=item.get("reason", ""),
        metadata=metadata,
        source_id=source_id,
        native_id=native_id,
        source_seq=source.seq,
        sent=sent,
        artifact_sha256=integrity.get("artifact_sha256", ""),
        submitted=encode(item),
    )
    return Submission(draft, named)


def _check_members(item: Mapping[str, Any], reader: _Reader) -> None:
    for name in () if MEMBERS.issuperset(item) else sorted(item.keys() - MEMBERS):
        reader.fault(f"/{name}", RESERVED_MEMBERS.get(name, "no such member; what is your own belongs into metadata"))
    for name in REQUIRED:
        if name not in item:
            reader.fault(f"/{name}", "is required")
    if item.get("v", 1) != 1:
        reader.fault("/v", "the format version is 1")
    for name in ("environment", "reason"):
        if name in item and not (isinstance(item[name], str) and item[name]):
            reader.fault(f"/{name}", "a text, or left out")
    if item.get("outcome", "done") not in ("done", "refused", "failed"):
        reader.fault("/outcome", "done, refused or failed")
    if item.get("timestamp_kind", "claimed") not in ("claimed", "observed"):
        reader.fault("/timestamp_kind", "claimed or observed")


def _action(value: Any, reader: _Reader) -> str:  # noqa: ANN401 -- any JSON
    if value is None:
        return ""  # its absence is already said
    if not isinstance(value, str) or not _ACTION.fullmatch(value):
        reader.fault("/action", "a verb of lower-case letters, digits, `_`, `.` and `-`")
        return ""
    if value.startswith("ledger.") or (not actions.is_custom(value) and actions.describe(value).is_reserved):
        reader.fault("/action", f"{value} is reserved for the portal's own acts")
    return value


def _actor(value: Any, reader: _Reader) -> NamedActor | None:  # noqa: ANN401 -- any JSON
    if value is None:
        return None
    if isinstance(value, str):
        value = {"id": value}
    if not isinstance(value, dict) or value.keys() - {"type", "id"} or not _is_id(value.get("id")):
        reader.fault("/actor", 'a name, or {"type": "user" or "service", "id": name}; the portal judges its assurance')
        return None
    kind = value.get("type", "user")
    if kind not in ("user", "service"):
        reader.fault("/actor/type", "user or service")
        return None
    return NamedActor(kind, value["id"])


def _is_id(value: Any) -> bool:  # noqa: ANN401 -- any JSON
    return isinstance(value, str) and 0 < len(value) <= events.MAX_ID_CHARS and value.isprintable()


def _subject(value: Any, reader: _Reader, place: str) -> Subject | None:  # noqa: ANN401 -- any JSON
    if isinstance(value, str):
        kind, colon, name = value.partition(":")
        value = {"type": kind, "id": name} if colon else None
    if not isinstance(value, dict) or value.keys() != _TYPE_AND_ID:
        reader.fault(place, 'type:id, or {"type": …, "id": …}')
        return None
    kind, name = value["type"], value["id"]
    if not isinstance(kind, str) or not _TYPE.fullmatch(kind):
        reader.fault(f"{place}/type", "lower-case letters, digits and `_`")
        return None
    if not _is_id(name):
        reader.fault(f"{place}/id", "1 to 512 printable characters")
        return None
    # The form people write: `model:churn:v2` means the version v2 of churn.
    return Subject("model_version" if kind == "model" and ":" in name else kind, name)


def _related(value: Any, reader: _Reader) -> Iterator[Related]:  # noqa: ANN401 -- any JSON
    if not isinstance(value, list):
        reader.fault("/related", "a list")
        return
    for index, item in enumerate(value):
        place = f"/related/{index}"
        relation: Any = ""
        plain = item
        if isinstance(item, dict) and "relation" in item:
            plain = dict(item)
            relation = plain.pop("relation")
        if not isinstance(relation, str):
            reader.fault(f"{place}/relation", "a text")
            continue
        subject = _subject(plain, reader, place)
        if subject is not None:
            yield Related(subject.type, subject.id, relation)


def _time(value: Any, reader: _Reader, place: str) -> tuple[str, str]:  # noqa: ANN401 -- any JSON
    """The time in UTC with six decimals, and the native text where that loses something."""
    match = _TIME.fullmatch(value) if isinstance(value, str) else None
    if match is None:
        reader.fault(place, "RFC 3339 with an offset, for example 2026-05-05T14:30:00Z")
        return "", ""
    day, clock, fraction, offset = match.groups()
    text = f"{day}T{clock}.{(fraction or '')[:6].ljust(6, '0')}"
    is_utc = offset in "Zz"
    try:
        moment = datetime.fromisoformat(text + ("+00:00" if is_utc else offset))
        told = f"{text}Z" if is_utc and clock < "24" else instant(moment)
    except (ValueError, OverflowError):
        reader.fault(place, "a real instant (no 30 February, no second 60)")
        return "", ""
    return told, value if len(fraction or "") > 6 or not is_utc else ""  # noqa: PLR2004 -- six decimals


def _metadata(value: Any, native_time: str, reader: _Reader) -> dict[str, Any]:  # noqa: ANN401 -- any JSON
    if not isinstance(value, dict):
        reader.fault("/metadata", "a JSON object")
        return {}
    if not native_time:
        return value
    native = value.get("native", {})
    return value | {"native": {"timestamp": native_time} | native} if isinstance(native, dict) else value


@dataclass(frozen=True, slots=True)
class _Source:
    native_id: str
    seq: int | None


def _source(value: Any, source_id: str, reader: _Reader) -> _Source:  # noqa: ANN401 -- any JSON
    if not isinstance(value, dict) or value.keys() - {"id", "native_id", "seq"}:
        reader.fault("/source", "an object of native_id and seq; the id comes from the token")
        return _Source("", None)
    if value.get("id", source_id) != source_id:
        reader.fault("/source/id", f"this token writes as {source_id}")
    native_id, seq = value.get("native_id", ""), value.get("seq")
    if native_id != "" and not _is_id(native_id):
        reader.fault("/source/native_id", "1 to 512 printable characters")
    if seq is not None and (type(seq) is not int or seq < 0):
        reader.fault("/source/seq", "a counter: a whole number from 0")
    return _Source(native_id, seq)


def _event_id(value: Any, source_id: str, native_id: str, reader: _Reader) -> tuple[str, str]:  # noqa: ANN401 -- any JSON
    """The UUID of the event, and its native id: an id that is no UUID is hashed into one (FORMAT.md §1)."""
    if value is None:
        return (events.event_id_of(source_id, [native_id]), native_id) if native_id else (str(uuid.uuid4()), "")
    if not _is_id(value):
        reader.fault("/event_id", "1 to 512 printable characters, best a UUID")
        return "", native_id
    if _UUID.fullmatch(value):
        return value.lower(), native_id
    if native_id and native_id != value:
        reader.fault("/event_id", "no UUID, so it is the native id; source.native_id says another one")
    return events.event_id_of(source_id, [value]), value


def _integrity(item: Mapping[str, Any], value: Any, reader: _Reader) -> Sent | None:  # noqa: ANN401 -- any JSON
    if not isinstance(value, dict) or value.keys() - {"artifact_sha256", "event_sha256", "signature"}:
        reader.fault("/integrity", "an object of artifact_sha256, event_sha256 and signature")
        return None
    for name in ("artifact_sha256", "event_sha256"):
        if name in value and not (isinstance(value[name], str) and _SHA256.fullmatch(value[name])):
            reader.fault(f"/integrity/{name}", "64 lower-case hex digits")
            return None
    if "signature" in value:
        reader.fault("/integrity/signature", "no key is registered for this source, so a signature cannot be checked")
        return None
    if "event_sha256" not in value:
        return None
    claimed = {name: part for name, part in value.items() if name != "event_sha256"}
    sent = canonical.encode(dict(item) | {"integrity": claimed})
    if events.sent_hash(sent).hex() != value["event_sha256"]:
        reader.fault(
            "/integrity/event_sha256", f"is not the hash of this event, which is {events.sent_hash(sent).hex()}"
        )
        return None
    return Sent(sent)
