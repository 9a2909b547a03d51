"""The body of an event: what happened, as bytes that are stored and hashed as they are.

A body read back is checked whole: its members, their rules, and that its bytes are the RFC 8785 ones. The same rules
are checked on a value before it is encoded, so that nothing is recorded that a verifier would refuse.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime
from hashlib import sha256
from typing import TYPE_CHECKING, Any, TypeAlias, cast
from uuid import NAMESPACE_URL, UUID, uuid5

from . import canonical, streams
from .errors import HashMismatchError, MalformedError, Name, malformed

if TYPE_CHECKING:
    from collections.abc import Sequence

    from .canonical import Json

VERSION = 1
RESERVED_SOURCE = "auditportal"  # the portal's own events; a verifier takes control events from it alone
RESERVED_ACTIONS = "ledger."
SALT_BYTES = 16
MAX_ID_CHARS = 512
MAX_RELATED = 100
EVENT_NAMESPACE: UUID = uuid5(NAMESPACE_URL, "auditportal/event/v1")

_UUID = re.compile(r"[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}")
_ACTION = re.compile(r"[a-z][a-z0-9_.-]*")
_INSTANT = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9]{2}:[0-9]{2}:[0-9]{2}\.[0-9]{6}Z")
_HEX64 = re.compile(r"[0-9a-f]{64}")
_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f]")
# 80 random bits are 20 hex digits, 16 letters of base32 or 14 of base64url.
_PSEUDONYM = re.compile(r"(?:usr|svc)_[A-Za-z0-9_-]{14,508}")

Rule: TypeAlias = Callable[["Json", str], None]


@dataclass(frozen=True, slots=True, eq=False)
class Body(Mapping[str, Any]):
    """A valid body: the mapping of its members, and its bytes.

    Attributes:
        raw: The exact bytes, over which the commitment is made.
        value: The members; not to be changed.
    """

    raw: bytes
    value: dict[str, Any]

    def __getitem__(self, member: str) -> Any:  # noqa: ANN401 -- the members have many types; the properties tell
        """The member, or KeyError."""
        return self.value[member]

    def __iter__(self) -> Iterator[str]:
        """The names of the members."""
        return iter(self.value)

    def __len__(self) -> int:
        """How many members there are."""
        return len(self.value)

    @property
    def event_id(self) -> str:
        """UUID, lowercase."""
        return cast("str", self.value["event_id"])

    @property
    def action(self) -> str:
        """What was done."""
        return cast("str", self.value["action"])

    @property
    def outcome(self) -> str:
        """`done`, `refused` or `failed`."""
        return cast("str", self.value["outcome"])

    @property
    def actor_id(self) -> str:
        """The actor's pseudonym, `system` or `unknown`."""
        return cast("str", self.value["actor"]["id"])

    @property
    def source_id(self) -> str:
        """Which producer said so."""
        return cast("str", self.value["source"]["id"])

    @property
    def subject(self) -> tuple[str, str]:
        """Type and id of what it was done to."""
        return self.value["subject"]["type"], self.value["subject"]["id"]

    @property
    def models(self) -> list[str]:
        """Every registered model that the event touches, ascending."""
        return cast("list[str]", self.value["models"])

    @property
    def timestamp(self) -> str:
        """When it happened, as the producer says."""
        return cast("str", self.value["timestamp"])

    @property
    def environment(self) -> str | None:
        """Where it happened, if it was said."""
        return self.value.get("environment")

    @property
    def metadata(self) -> dict[str, Any]:
        """The free part; empty if there is none."""
        return cast("dict[str, Any]", self.value.get("metadata", {}))

    @property
    def is_control(self) -> bool:
        """Whether it is one of the log's own events and took effect: right source, action `ledger.*`, done."""
        return self.source_id == RESERVED_SOURCE and self.action.startswith(RESERVED_ACTIONS) and self.outcome == "done"


def parse_body(raw: bytes) -> Body:
    """The body in these bytes.

    Raises:
        MalformedError: The bytes are not RFC 8785, or break a rule of the format.
        HashMismatchError: STREAMS_COMMITMENT, `models` leaves out a model that the event names.
    """
    value = canonical.admit(raw, sealed="allowed")
    check_body(value)
    if canonical.encode(value) != raw:
        raise malformed("", "RFC 8785 bytes", "another spelling of the same value")
    return Body(raw=raw, value=cast("dict[str, Any]", value))


def check_body(value: Json) -> None:
    """The value obeys every rule of a body.

    It must come from `canonical.admit` or be made of such values; what only bytes can break is checked there.

    Raises:
        MalformedError: It breaks one; `place` is the JSON pointer of the member, `expected` the rule.
        HashMismatchError: STREAMS_COMMITMENT, `models` leaves out a model that the event names.
    """
    body = _members(value, "", required=_REQUIRED, optional=_OPTIONAL)
    _check_related(body["related"])
    _check_names(body["models"], "/models")
    _check_models(body)
    _check_sealed_places(body)
    streams.stream_keys(body)


def body_commitment(salt: bytes, body: bytes) -> bytes:
    """What the header says of the body."""
    return sha256(b"auditportal/body/v1\n" + salt + body).digest()


def raw_commitment(salt: bytes, raw: bytes) -> bytes:
    """`source.raw`, before hex: the item as it was received, secrets removed."""
    return sha256(b"auditportal/raw/v1\n" + salt + raw).digest()


def sent_commitment(salt: bytes, sent: bytes, signature: bytes | None = None) -> bytes:
    """`source.sent`, before hex: the event as the producer sent it, with the 64 signature bytes if there are any."""
    return sha256(b"auditportal/sent/v1\n" + salt + sha256(sent).digest() + (signature or b"")).digest()


def signed_message(origin: str, source_id: str, sent: bytes) -> bytes:
    """What a producer signs for `integrity.signature`, given the event as sent (without hash and signature)."""
    return f"auditportal/event/v1\n{origin}\n{source_id}\n".encode() + sha256(sent).digest()


def sent_bytes(submitted: Json) -> bytes:
    """E: the RFC 8785 bytes of a submitted event, without the claims about itself; an emptied `integrity` stays.

    Raises:
        MalformedError: The value is outside the profile.
    """
    if isinstance(submitted, dict) and isinstance(submitted.get("integrity"), dict):
        integrity = cast("dict[str, Json]", submitted["integrity"])
        kept = {member: integrity[member] for member in integrity if member not in {"event_sha256", "signature"}}
        submitted = {**submitted, "integrity": kept}
    return canonical.encode(submitted)


def event_id_of(source_id: str, key: Sequence[str]) -> str:
    """The id of an event whose producer gives no UUID: UUIDv5 of its source and the members that identify it."""
    return str(uuid5(EVENT_NAMESPACE, f"{source_id}\n{canonical.encode(list(key)).decode()}"))


def model_of(version_id: str) -> str:
    """The model's name in a `model_version` id: everything before the last colon."""
    return version_id.rpartition(":")[0]


def check_id(value: Json, place: str) -> None:
    """The value can name something: text, not empty, not too long, without control characters.

    Raises:
        MalformedError: It cannot.
    """
    if not isinstance(value, str):
        raise malformed(place, "text", value)
    if not 0 < len(value) <= MAX_ID_CHARS:
        raise malformed(place, f"1 to {MAX_ID_CHARS} characters", f"{len(value)} characters")
    if not value.isprintable() and _CONTROL.search(value):
        raise malformed(place, "no control characters", value)


def check_hex64(value: Json, place: str) -> None:
    """The value is a SHA-256 digest in lowercase hex.

    Raises:
        MalformedError: It is not.
    """
    if not isinstance(value, str) or not _HEX64.fullmatch(value):
        raise malformed(place, "64 lowercase hex digits", value)


def check_instant(value: Json, place: str) -> None:
    """The value is an instant as the format writes them.

    Raises:
        MalformedError: It has another form, or there is no such instant.
    """
    if not isinstance(value, str) or not is_instant(value):
        raise malformed(place, "an RFC 3339 instant like 2026-05-05T14:03:00.000000Z (UTC, 6 decimals)", value)


def is_instant(text: str) -> bool:
    """Whether the text is a real instant in UTC with 6 decimals; second 60 is none."""
    if not _INSTANT.fullmatch(text):
        return False
    try:
        datetime.fromisoformat(text)
    except ValueError:
        return False
    return True


def members(value: Json, place: str, *, required: Mapping[str, Rule], optional: Mapping[str, Rule]) -> dict[str, Any]:
    """The value as an object that has all required members, maybe optional ones, and no others; each obeys its rule.

    Raises:
        MalformedError: It is something else.
    """
    return _members(value, place, required=required, optional=optional)


def _members(value: Json, place: str, *, required: Mapping[str, Rule], optional: Mapping[str, Rule]) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise malformed(place, "an object", value)
    for member, item in value.items():
        rule = required.get(member) or optional.get(member)
        if rule is None:
            raise malformed(canonical.pointer(place, member), "no such member", member)
        rule(item, f"{place}/{member}")
    for member in required:
        if member not in value:
            raise malformed(f"{place}/{member}", "the member", "nothing")
    return value


def _is(expected: Json) -> Rule:
    def rule(value: Json, place: str) -> None:
        if type(value) is not type(expected) or value != expected:
            raise malformed(place, str(expected), value)

    return rule


def _one_of(*words: str) -> Rule:
    def rule(value: Json, place: str) -> None:
        if not isinstance(value, str) or value not in words:
            raise malformed(place, "one of " + ", ".join(words), value)

    return rule


def _matches(pattern: re.Pattern[str], meaning: str) -> Rule:
    def rule(value: Json, place: str) -> None:
        if not isinstance(value, str) or not pattern.fullmatch(value):
            raise malformed(place, meaning, value)

    return rule


def _object_of(*, required: Mapping[str, Rule], optional: Mapping[str, Rule]) -> Rule:
    def rule(value: Json, place: str) -> None:
        _members(value, place, required=required, optional=optional)

    return rule


def _check_list(value: Json, place: str) -> None:
    if not isinstance(value, list):
        raise malformed(place, "an array", value)


def _check_count(value: Json, place: str) -> None:
    if type(value) is not int or value < 0:
        raise malformed(place, "an integer from 0", value)


def _check_free_object(value: Json, place: str) -> None:
    if not isinstance(value, dict):
        raise malformed(place, "an object", value)
    if canonical.SEALED_MEMBER in value:
        raise malformed(place, "an object (its values may be sealed, itself not)", canonical.SEALED_MEMBER)


def _check_reason(value: Json, place: str) -> None:
    if not isinstance(value, str) and not canonical.is_sealed(value):
        raise malformed(place, "text, or a sealed value", value)


def _check_actor_id(value: Json, place: str) -> None:
    if value not in ("system", "unknown") and not (isinstance(value, str) and _PSEUDONYM.fullmatch(value)):
        raise malformed(place, "a pseudonym of 80 random bits (usr_… or svc_…), or system, or unknown", value)


def _check_subject(value: Json, place: str) -> None:
    subject = _members(value, place, required=_TYPE_AND_ID, optional={})
    _check_version_id(subject, place)


def _check_version_id(subject: Mapping[str, str], place: str) -> None:
    name, _, version = subject["id"].rpartition(":")
    if subject["type"] == "model_version" and not (name and version):
        raise malformed(f"{place}/id", "a model version as name:version", subject["id"])


def _check_related(related: list[Json]) -> None:
    if len(related) > MAX_RELATED:
        raise malformed("/related", f"at most {MAX_RELATED} related subjects", len(related))
    keys = []
    for i, item in enumerate(related):
        subject = _members(item, f"/related/{i}", required=_TYPE_AND_ID, optional=_RELATION)
        _check_version_id(subject, f"/related/{i}")
        keys.append((subject["type"], subject["id"], subject.get("relation", "")))
    _check_sorted(keys, "/related", "sorted by type, id, relation, each once")


def _check_names(names: list[Json], place: str) -> None:
    for i, name in enumerate(names):
        check_id(name, f"{place}/{i}")
    _check_sorted(names, place, "sorted by code point, each once")


def _check_sorted(items: Sequence[Any], place: str, rule: str) -> None:
    for i in range(1, len(items)):
        if items[i] <= items[i - 1]:
            raise malformed(f"{place}/{i}", rule, "another order")


def _check_models(body: Mapping[str, Any]) -> None:
    """An event that names a model belongs to that model's streams, so it cannot hide from an export of them."""
    for subject in (body["subject"], *body["related"]):
        name = {"model": subject["id"], "model_version": model_of(subject["id"])}.get(subject["type"])
        if name is not None and name not in body["models"]:
            raise HashMismatchError(
                Name.STREAMS_COMMITMENT, "/models", f"the model {ascii(name)} that the event names", "others only"
            )


def _check_sealed_places(body: Mapping[str, Any]) -> None:
    """A sealed value has its shape, and stands under metadata or as the reason."""
    try:
        canonical.check_sealed(body.get("metadata"))
    except MalformedError as error:
        raise MalformedError(error.name, f"/metadata{error.place}", error.expected, error.found) from None


_TYPE_AND_ID: Mapping[str, Rule] = {"type": check_id, "id": check_id}
_RELATION: Mapping[str, Rule] = {"relation": check_id}

_REQUIRED: Mapping[str, Rule] = {
    "v": _is(VERSION),
    "event_id": _matches(_UUID, "a UUID in lowercase"),
    "action": _matches(_ACTION, "an action: a lowercase letter, then lowercase letters, digits, _ . -"),
    "outcome": _one_of("done", "refused", "failed"),
    "actor": _object_of(
        required={
            "type": _one_of("user", "service", "system", "unknown"),
            "id": _check_actor_id,
            "assurance": _one_of("verified", "vouched", "claimed", "unknown"),
        },
        optional={"vouched_by": check_id},
    ),
    "timestamp": check_instant,
    "timestamp_kind": _one_of("claimed", "observed"),
    "subject": _check_subject,
    "related": _check_list,
    "models": _check_list,
    "source": _object_of(
        required={"id": check_id},
        optional={"native_id": check_id, "seq": _check_count, "raw": check_hex64, "sent": check_hex64},
    ),
}
_OPTIONAL: Mapping[str, Rule] = {
    "not_before": check_instant,
    "environment": check_id,
    "reason": _check_reason,
    "metadata": _check_free_object,
    "integrity": _object_of(required={}, optional={"artifact_sha256": check_hex64}),
}
