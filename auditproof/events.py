"""The body of an event: what happened (FORMAT.md §1).

A body is stored and hashed as the exact RFC 8785 bytes it was admitted with. `check_body` holds every rule of its
members; `parse_body` is the reader for stored bytes and refuses any that are not their own canonical spelling.
"""

from __future__ import annotations

import hashlib
import itertools
import re
import uuid
from collections.abc import Callable, Sequence
from datetime import datetime
from typing import Any, TypeAlias

from . import canonical
from .errors import ChainError, HashMismatchError, Name, malformed, show
from .signatures import verify_ed25519

Body: TypeAlias = dict[str, Any]

MAX_ID_CHARS = 512
MAX_RELATED = 100
SALT_BYTES = 16
PORTAL = "auditportal"
NAMESPACE = uuid.uuid5(uuid.NAMESPACE_URL, "auditportal/event/v1")

_UUID = re.compile(r"[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}")
_ACTION = re.compile(r"[a-z][a-z0-9_.-]*")
_TYPE = re.compile(r"[a-z][a-z0-9_]*")
_HEX32 = re.compile(r"[0-9a-f]{64}")
_TIME = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9]{2}:[0-9]{2}:[0-9]{2}\.[0-9]{6}Z")
_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f]")
_PSEUDONYM = re.compile(r"(usr|svc)_[0-9a-z]{16,64}")

_REQUIRED = frozenset(
    {
        "v",
        "event_id",
        "action",
        "outcome",
        "actor",
        "timestamp",
        "timestamp_kind",
        "subject",
        "related",
        "models",
        "source",
    }
)
_OPTIONAL = frozenset({"not_before", "environment", "reason", "metadata", "integrity"})
_ACTOR = frozenset({"type", "id", "assurance"})
_VOUCHED_BY = frozenset({"vouched_by"})
_SUBJECT = frozenset({"type", "id"})
_RELATION = frozenset({"relation"})
_SOURCE = frozenset({"id"})
_OF_SOURCE = frozenset({"native_id", "seq", "raw", "sent"})
_NONE: frozenset[str] = frozenset()


def parse_body(raw: bytes) -> Body:
    """The members of a stored body.

    Raises:
        MalformedError: not the canonical bytes of a body that keeps every rule of FORMAT.md §1.
        HashMismatchError: STREAMS_COMMITMENT, when `models` lacks the model of its subject or of a related object.
    """
    value = canonical.admit(raw, sealed="allowed")
    if canonical.encode(value) != raw:
        raise malformed("", "RFC 8785 bytes", "another spelling of the same value")
    return check_body(value)


def check_size(raw: bytes) -> None:
    """The encoded body is at most 256 KiB.

    Raises:
        MalformedError: otherwise.
    """
    if len(raw) > canonical.MAX_BYTES:
        raise malformed("", f"a body of at most {canonical.MAX_BYTES} bytes", len(raw))


def check_body(value: object) -> Body:
    """The value, if it is the members of a body; the rules of its numbers and texts are `canonical`'s.

    Raises:
        MalformedError: `place` is the JSON pointer of the member, `expected` the rule.
        HashMismatchError: STREAMS_COMMITMENT, when `models` lacks the model of its subject or of a related object.
    """
    body = _object(value, "", _REQUIRED, _OPTIONAL)
    if type(body["v"]) is not int or body["v"] != 1:
        raise malformed("/v", "format version 1", body["v"])
    _match(body["event_id"], "/event_id", _UUID, "a UUID in lower case, 8-4-4-4-12")
    _match(body["action"], "/action", _ACTION, "a letter, then letters, digits, `_`, `.` and `-`, all lower case")
    _one_of(body["outcome"], "/outcome", ("done", "refused", "failed"))
    _check_actor(body["actor"])
    check_time(body["timestamp"], "/timestamp")
    _one_of(body["timestamp_kind"], "/timestamp_kind", ("claimed", "observed"))
    if "not_before" in body:
        check_time(body["not_before"], "/not_before")
    _check_subject(body["subject"], "/subject", _NONE)
    _check_related(body["related"])
    _check_models(body)
    _check_free_members(body)
    _check_source(body)
    return body


def check_time(value: object, place: str) -> str:
    """RFC 3339, UTC, six decimals, `Z`, a real instant.

    Raises:
        MalformedError: otherwise.
    """
    text = _match(value, place, _TIME, "RFC 3339 in UTC with 6 decimals and Z")
    try:
        datetime.fromisoformat(text)
    except ValueError as error:
        raise malformed(place, "a real instant (years 0001 to 9999, no second 60)", str(error)) from None
    return text


def _object(value: object, place: str, required: frozenset[str], optional: frozenset[str]) -> Body:
    if not isinstance(value, dict):
        raise malformed(place, "an object", value)
    if value.keys() == required:
        return value
    further = value.keys() - required
    if len(value) - len(further) != len(required):
        for name in sorted(required - value.keys()):
            raise malformed(canonical.pointer(place, name), "this member", "nothing")
    if not further <= optional:
        for name in sorted(further - optional, key=str):
            raise malformed(canonical.pointer(place, str(name)), "only the members of the format", show(name))
    return value


def _match(value: object, place: str, pattern: re.Pattern[str], rule: str, member: str = "") -> str:
    if not isinstance(value, str) or pattern.fullmatch(value) is None:
        raise malformed(place + member, rule, value)
    return value


def _one_of(value: object, place: str, allowed: tuple[str, ...]) -> None:
    if not isinstance(value, str) or value not in allowed:
        raise malformed(place, "one of " + ", ".join(allowed), value)


def _identifier(value: object, place: str, member: str = "") -> str:
    # What is printable holds no control character; the search is for the rest, such as a no-break space.
    if (
        not isinstance(value, str)
        or not 0 < len(value) <= MAX_ID_CHARS
        or (not value.isprintable() and _CONTROL.search(value))
    ):
        raise malformed(place + member, f"1 to {MAX_ID_CHARS} characters, none of them a control character", value)
    return value


def _check_actor(value: object) -> None:
    actor = _object(value, "/actor", _ACTOR, _VOUCHED_BY)
    _one_of(actor["type"], "/actor/type", ("user", "service", "system", "unknown"))
    _one_of(actor["assurance"], "/actor/assurance", ("verified", "vouched", "claimed", "unknown"))
    _identifier(actor["id"], "/actor/id")
    if "vouched_by" in actor:
        _identifier(actor["vouched_by"], "/actor/vouched_by")
    if actor["type"] in ("system", "unknown") and actor["id"] != actor["type"]:
        raise malformed("/actor/id", f"{actor['type']}, as the type says", actor["id"])
    if actor["type"] in ("user", "service") and _PSEUDONYM.fullmatch(actor["id"]) is None:
        raise malformed("/actor/id", "a pseudonym: usr_ or svc_ and at least 80 random bits", actor["id"])


def _check_subject(value: object, place: str, optional: frozenset[str]) -> Body:
    subject = _object(value, place, _SUBJECT, optional)
    _match(subject["type"], place, _TYPE, "lower-case letters, digits and `_`", "/type")
    _identifier(subject["id"], place, "/id")
    if subject["type"] == "model_version" and not _is_version(subject["id"]):
        raise malformed(f"{place}/id", "name:version", subject["id"])
    return subject


def _is_version(text: str) -> bool:
    name, colon, version = text.rpartition(":")
    return bool(name and colon and version)


def _check_related(value: object) -> None:
    if not isinstance(value, list) or len(value) > MAX_RELATED:
        raise malformed("/related", f"a list of at most {MAX_RELATED}", value)
    keys = []
    for index, item in enumerate(value):
        place = f"/related/{index}"
        related = _check_subject(item, place, _RELATION)
        if "relation" in related:
            _identifier(related["relation"], place, "/relation")
        keys.append((related["type"], related["id"], related.get("relation", "")))
    _ascending(keys, "/related", "sorted by type, id and relation, without a repetition")


def _check_models(body: Body) -> None:
    models = body["models"]
    if not isinstance(models, list):
        raise malformed("/models", "a list", models)
    for index, model in enumerate(models):
        _identifier(model, f"/models/{index}")
    _ascending(models, "/models", "sorted, without a repetition")
    for item in (body["subject"], *body["related"]):
        named = _model_of(item)
        if named is not None and named not in models:
            raise HashMismatchError(Name.STREAMS_COMMITMENT, "/models", show(named), "left out")


def _model_of(item: Body) -> str | None:
    """The name of the model that a subject or related object belongs to: everything before the last `:`."""
    if item["type"] == "model":
        return str(item["id"])
    return str(item["id"]).rpartition(":")[0] if item["type"] == "model_version" else None


def _ascending(keys: Sequence[Any], place: str, rule: str) -> None:
    for index, (left, right) in enumerate(itertools.pairwise(keys)):
        if left >= right:
            raise malformed(f"{place}/{index + 1}", rule, "another order")


def _check_free_members(body: Body) -> None:
    if "environment" in body:
        _identifier(body["environment"], "/environment")
    if "reason" in body and not (isinstance(body["reason"], str) or canonical.is_sealed(body["reason"])):
        raise malformed("/reason", "a text, or a sealed value", body["reason"])
    if "metadata" in body and not isinstance(body["metadata"], dict):
        raise malformed("/metadata", "an object", body["metadata"])
    if "integrity" in body:
        integrity = _object(body["integrity"], "/integrity", frozenset(), frozenset({"artifact_sha256"}))
        if "artifact_sha256" in integrity:
            _match(integrity["artifact_sha256"], "/integrity/artifact_sha256", _HEX32, "64 lower-case hex digits")


def _check_source(body: Body) -> None:
    source = _object(body["source"], "/source", _SOURCE, _OF_SOURCE)
    _identifier(source["id"], "/source/id")
    if "native_id" in source:
        _identifier(source["native_id"], "/source/native_id")
    if "seq" in source and (type(source["seq"]) is not int or source["seq"] < 0):
        raise malformed("/source/seq", "a whole number from 0", source["seq"])
    for name in ("raw", "sent"):
        if name in source:
            _match(source[name], f"/source/{name}", _HEX32, "64 lower-case hex digits")
    if body["action"].startswith("ledger.") and source["id"] != PORTAL:
        raise malformed("/action", f"an action that source {show(source['id'])} may record", body["action"])


def _salted(prefix: bytes) -> Callable[[bytes, bytes], bytes]:
    def commitment(salt: bytes, content: bytes) -> bytes:
        return hashlib.sha256(prefix + salt + content).digest()

    return commitment


_body_commitment = _salted(b"auditportal/body/v1\n")
_raw_commitment = _salted(b"auditportal/raw/v1\n")
_sent_commitment = _salted(b"auditportal/sent/v1\n")


def body_commitment(salt: bytes, body: bytes) -> bytes:
    r"""`H("auditportal/body/v1\\n" || salt || body)`, 32 bytes; the salt has 16."""
    return _body_commitment(salt, body)


def raw_commitment(salt: bytes, raw: bytes) -> bytes:
    """What `source.raw` says in hex: the item as received, secrets removed, under a salt."""
    return _raw_commitment(salt, raw)


def sent_hash(sent: bytes) -> bytes:
    """`H(E)`: the hash a producer claims as `integrity.event_sha256`."""
    return hashlib.sha256(sent).digest()


def sent_commitment(salt: bytes, sent: bytes, signature: bytes | None = None) -> bytes:
    """What `source.sent` says in hex: the event as sent and the signature it came with, if any."""
    return _sent_commitment(salt, sent_hash(sent) + (signature or b""))


def signed_message(origin: str, source_id: str, sent: bytes) -> bytes:
    """The bytes a producer signs: they bind the event to this log and this source."""
    return f"auditportal/event/v1\n{origin}\n{source_id}\n".encode() + sent_hash(sent)


def verify_sent(*, origin: str, source_id: str, sent: bytes, signature: bytes, public_key: bytes) -> None:
    """The producer's Ed25519 signature holds for this log, source and event.

    Raises:
        SignatureError: otherwise.
    """
    verify_ed25519(public_key, signature, signed_message(origin, source_id, sent), place="/integrity/signature")


def event_id_of(source_id: str, key: Sequence[str]) -> str:
    """The id of an event whose producer gives no UUID: UUIDv5 over source and native key (FORMAT.md §1)."""
    return str(uuid.uuid5(NAMESPACE, source_id + "\n" + canonical.encode(list(key)).decode("utf-8")))


def check_origin(found: str, expected: str, place: str) -> None:
    """The header belongs to the log that is verified.

    Raises:
        ChainError: ORIGIN.
    """
    if found != expected:
        raise ChainError(Name.ORIGIN, place, show(expected), show(found))
