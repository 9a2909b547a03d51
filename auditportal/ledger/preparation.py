"""From a draft to the bytes of a body, with all that does not need the head lock (FORMAT.md §1, §2)."""

from __future__ import annotations

import hashlib
import os
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from auditportal.ledger import canonical, drafts
from auditportal.ledger.drafts import Actor, Draft, Related, Sealed, Subject
from auditportal.ledger.errors import Fault, InvalidEventError
from auditproof import events, sealed, streams
from auditproof.errors import ProofError

SALT_BYTES = 16
SEALABLE = frozenset({"reason", "metadata"})


@dataclass(frozen=True, slots=True)
class SealedItem:
    pointer: str
    salt: bytes
    value: bytes


@dataclass(frozen=True, slots=True)
class KeptItem:
    kind: str
    salt: bytes
    content: bytes
    signature: bytes | None = None


@dataclass(slots=True)  # not frozen: that would triple the time to make one, and a batch makes thousands
class Prepared:
    """Everything of one entry but its place: what `append` needs under the lock."""

    event_id: str
    source: str
    body: bytes
    salt: bytes
    commitment: bytes
    stream_hashes: bytes
    streams_commitment: bytes
    fingerprint: bytes
    submitted: bytes
    sealed: tuple[SealedItem, ...]
    kept: tuple[KeptItem, ...]


def prepare_all(items: Sequence[Draft], *, actors: Sequence[Actor] | None = None) -> list[Prepared]:
    """Prepares each draft; `actors` take the place of those that the drafts name.

    Raises:
        InvalidEventError: with every fault of every draft.
    """
    faults: list[Fault] = []
    prepared: list[Prepared] = []
    salts = os.urandom(SALT_BYTES * len(items))
    for index, draft in enumerate(items):
        try:
            salt = salts[index * SALT_BYTES : (index + 1) * SALT_BYTES]
            prepared.append(prepare(draft, salt, actor=draft.actor if actors is None else actors[index]))
        except ProofError as error:
            faults.append(Fault(index, error.place, f"{error.expected}; found {error.found}"))
    if faults:
        raise InvalidEventError(tuple(faults))
    return prepared


def prepare(draft: Draft, salt: bytes, *, actor: Actor) -> Prepared:
    """The bytes and commitments of one draft.

    Raises:
        auditproof.errors.ProofError: the event breaks a rule of FORMAT.md §1 or §2.
    """
    sealing: list[SealedItem] = []
    kept: list[KeptItem] = []
    value = _body_value(draft, actor, kept)
    is_usual = _is_usual(draft)
    if not is_usual:  # only then something in it may be `Sealed`
        value |= {name: _seal(value[name], f"/{name}", sealing) for name in SEALABLE & value.keys()}
    events.check_body(value)
    # Once checked, all that is not looked at by `_is_usual` is text.
    body = canonical.write(value) if is_usual else canonical.encode(value)
    events.check_size(body)
    hashes = sorted(map(streams.stream_hash, streams.stream_keys(value)))
    submitted = draft.submitted if draft.submitted is not None else body
    return Prepared(
        event_id=value["event_id"],
        source=draft.source_id,
        body=body,
        salt=salt,
        commitment=events.body_commitment(salt, body),
        stream_hashes=b"".join(hashes),
        streams_commitment=streams.streams_commitment(hashes),
        fingerprint=fingerprint(salt, submitted),
        submitted=submitted,
        sealed=tuple(sealing),
        kept=tuple(kept),
    )


def _is_usual(draft: Draft) -> bool:
    """Whether nothing in it needs sealing or the exact encoder."""
    seq = draft.source_seq
    return (
        type(draft.reason) is str
        and (seq is None or (type(seq) is int and seq < canonical.EXACT_INTEGERS))
        and canonical.is_usual(draft.metadata, depth=2)
    )


def fingerprint(salt: bytes, submitted: bytes) -> bytes:
    """Recognises a repeated submission; salted, so that it gives nothing away once the salt is erased."""
    return hashlib.sha256(b"auditportal/submission/v1\n" + salt + submitted).digest()


def _body_value(draft: Draft, actor: Actor, kept: list[KeptItem]) -> dict[str, Any]:
    value: dict[str, Any] = {
        "action": draft.action,
        "actor": actor.member(),
        "event_id": draft.event_id or str(uuid.uuid4()),
        "models": _models(draft),
        "outcome": str(draft.outcome),
        "related": _related(draft),
        "source": _source(draft, kept),
        "subject": draft.subject.member(),
        "timestamp": drafts.instant(draft.timestamp),
        "timestamp_kind": draft.timestamp_kind,
        "v": 1,
    }
    if draft.not_before is not None:
        value["not_before"] = drafts.instant(draft.not_before)
    if draft.environment:
        value["environment"] = draft.environment
    if draft.reason:
        value["reason"] = draft.reason
    if draft.metadata:
        value["metadata"] = draft.metadata
    if draft.artifact_sha256:
        value["integrity"] = {"artifact_sha256": draft.artifact_sha256}
    return value


def _models(draft: Draft) -> list[str]:
    named = set(draft.models)
    touched: list[Subject | Related] = [draft.subject, *draft.related]
    for item in touched:
        if item.type == "model":
            named.add(item.id)
        elif item.type == "model_version" and ":" in item.id:
            named.add(item.id.rpartition(":")[0])
    return sorted(named)


def _related(draft: Draft) -> list[dict[str, str]]:
    ordered = sorted({(item.type, item.id, item.relation) for item in draft.related})
    return [Related(*key).member() for key in ordered]


def _source(draft: Draft, kept: list[KeptItem]) -> dict[str, Any]:
    source: dict[str, Any] = {"id": draft.source_id}
    if draft.native_id:
        source["native_id"] = draft.native_id
    if draft.source_seq is not None:
        source["seq"] = draft.source_seq
    if draft.raw is not None:
        item = KeptItem("raw", os.urandom(SALT_BYTES), draft.raw)
        kept.append(item)
        source["raw"] = events.raw_commitment(item.salt, item.content).hex()
    if draft.sent is not None:
        item = KeptItem("sent", os.urandom(SALT_BYTES), draft.sent.canonical, draft.sent.signature)
        kept.append(item)
        source["sent"] = events.sent_commitment(item.salt, item.content, item.signature).hex()
    return source


def _seal(value: Any, pointer: str, sealing: list[SealedItem]) -> Any:  # noqa: ANN401 -- JSON is any of seven types
    """The value with each `Sealed` in it replaced by its commitment, the openings noted in `sealing`."""
    if isinstance(value, Sealed):
        item = SealedItem(pointer, os.urandom(SALT_BYTES), canonical.encode(value.value))
        sealing.append(item)
        return {"$sealed": sealed.commit(item.salt, value.value)}
    if isinstance(value, Mapping):
        return {key: _seal(item, f"{pointer}/{_escaped(key)}", sealing) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_seal(item, f"{pointer}/{index}", sealing) for index, item in enumerate(value)]
    return value


def _escaped(key: str) -> str:
    return key.replace("~", "~0").replace("/", "~1")  # RFC 6901 §3
