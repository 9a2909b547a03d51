"""Notifications of a Distribution registry (CNCF Distribution 2.8): read, told apart, and turned into drafts.

Pure. A notification is a hint: the manifest it names is fetched and hashed before anything is said of it, and what
could not be fetched stands as reported only.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from enum import StrEnum
from typing import Any

from auditportal.connectors.http import USER_AGENT
from auditportal.connectors.modelkit import is_signature_tag
from auditportal.connectors.oci import DIGEST, MANIFEST_TYPES, REPOSITORY, TAG
from auditportal.ingest.errors import NotUnderstoodError
from auditportal.ledger.drafts import Actor, Draft, Related, Subject, instant
from auditproof import events
from auditproof.canonical import encode

MOST_EVENTS = 1_000  # of one envelope; one was always seen
_TIME = re.compile(r"(\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d)(?:\.(\d{1,12}))?(Z|[+-]\d\d:\d\d)")


class Meaning(StrEnum):
    PUSH = "push"  # of a tagged manifest
    PULL = "pull"  # of a manifest, by somebody else
    DELETE = "delete"
    NOTHING = "nothing"  # to record; `why` says why


@dataclass(frozen=True, slots=True)
class Notification:
    """One event of an envelope."""

    id: str
    meaning: Meaning
    why: str
    timestamp: str
    repository: str
    tag: str
    digest: str
    actor: str  # as the registry names it, empty when nobody signed in
    request_id: str
    user_agent: str


def read(raw: bytes, *, own_account: str = "") -> list[Notification]:
    """The events of an envelope, each with what it means to us. `own_account` is who we are to the registry.

    Raises:
        NotUnderstoodError: it is no envelope of notifications.
    """
    try:
        value = json.loads(raw)
    except (ValueError, RecursionError) as error:
        raise NotUnderstoodError("the body is not JSON") from error
    found = value.get("events") if isinstance(value, dict) else None
    if not isinstance(found, list) or not found:
        raise NotUnderstoodError("the body has no list of events, as a registry's notification has")
    if len(found) > MOST_EVENTS:
        raise NotUnderstoodError(f"more than {MOST_EVENTS} events in one envelope")
    return [_read(item, index, own_account) for index, item in enumerate(found)]


def _read(item: Any, index: int, own_account: str) -> Notification:  # noqa: ANN401 -- any JSON
    if not isinstance(item, dict) or not isinstance(item.get("target"), dict):
        raise NotUnderstoodError(f"event {index} has no target")
    target, request = item["target"], item.get("request")
    request = request if isinstance(request, dict) else {}
    named = item.get("actor")
    repository, tag, digest = (_text(target.get(name)) for name in ("repository", "tag", "digest"))
    if not REPOSITORY.fullmatch(repository) or len(repository) > 255:  # noqa: PLR2004 -- as the catalog keeps it
        raise NotUnderstoodError(f"event {index} names no repository")
    if (digest and not DIGEST.fullmatch(digest)) or (tag and not TAG.fullmatch(tag)):
        raise NotUnderstoodError(f"event {index} names a digest or tag that cannot be")
    identity = _text(item.get("id"))
    if not identity:
        raise NotUnderstoodError(f"event {index} has no id")
    actor = _text(named.get("name")) if isinstance(named, dict) else ""
    meaning, why = _meaning(item, target, request, tag, digest)
    if meaning == Meaning.PULL and _text(request.get("useragent")) == USER_AGENT and actor in ("", own_account):
        # A user agent is anyone's word: it hides a look of ours, never a push, a delete, or somebody else's pull.
        meaning, why = Meaning.NOTHING, "our own pull"
    return Notification(
        id=identity,
        meaning=meaning,
        why=why,
        timestamp=_time(item.get("timestamp"), index),
        repository=repository,
        tag=tag,
        digest=digest,
        actor=actor,
        request_id=_text(request.get("id")) or identity,
        user_agent=_text(request.get("useragent")),
    )


def _meaning(
    item: Mapping[str, Any], target: Mapping[str, Any], request: Mapping[str, Any], tag: str, digest: str
) -> tuple[Meaning, str]:
    action, media_type = item.get("action"), _text(target.get("mediaType"))
    if action == "delete":
        return Meaning.DELETE, ""
    if media_type not in MANIFEST_TYPES:
        return Meaning.NOTHING, f"{action} of a blob"
    if action == "push":
        if not tag:
            return Meaning.NOTHING, "push by digest, without a tag: no version"
        if is_signature_tag(tag):
            return Meaning.NOTHING, "push of a signature's tag: no version"
        return (Meaning.PUSH, "") if digest else (Meaning.NOTHING, "push without a digest")
    if action == "pull":
        if request.get("method") == "HEAD":
            return Meaning.NOTHING, "a look (HEAD), no pull"
        return (Meaning.PULL, "") if digest else (Meaning.NOTHING, "pull without a digest")
    return Meaning.NOTHING, f"{_text(action) or 'an act'} that changes no version"


def _time(value: Any, index: int) -> str:  # noqa: ANN401 -- any JSON
    """Go writes up to nine decimals; six are kept, cut and not rounded."""
    match = _TIME.fullmatch(value) if isinstance(value, str) else None
    if match is None:
        raise NotUnderstoodError(f"event {index} has no time")
    offset = "+00:00" if match[3] == "Z" else match[3]
    try:
        moment = datetime.fromisoformat(f"{match[1]}.{(match[2] or '')[:6].ljust(6, '0')}{offset}")
        return instant(moment.astimezone(UTC))
    except (ValueError, OverflowError) as error:
        raise NotUnderstoodError(f"event {index} has a time that cannot be") from error


def _text(value: Any) -> str:  # noqa: ANN401 -- any JSON
    if not isinstance(value, str):
        return ""
    return "".join(c for c in value.encode("utf-8", "replace").decode() if c.isprintable())[: events.MAX_ID_CHARS]


def draft(
    item: Notification,
    *,
    source_id: str,
    actor: Actor,
    subject: Subject,
    related: list[Related],
    raw: bytes | None,
    metadata: Mapping[str, Any],
) -> Draft:
    """The event of one notification. What was found at the source stands in `metadata`."""
    action = {Meaning.PUSH: "package", Meaning.PULL: "access.download", Meaning.DELETE: "delete"}[item.meaning]
    # One API delete is told in two events, by digest and by tag, under one request: it is one act.
    key = [item.request_id, "delete"] if item.meaning == Meaning.DELETE else [item.id]
    native = {"id": item.id, "useragent": item.user_agent}
    return Draft(
        action=action,
        actor=actor,
        subject=subject,
        timestamp=item.timestamp,
        timestamp_kind="claimed",
        event_id=events.event_id_of(source_id, key),
        native_id=item.id,
        related=related,
        metadata={**metadata, "repository": item.repository, "native": native},
        source_id=source_id,
        raw=raw,
        submitted=encode(
            [*key, item.repository]
            if item.meaning == Meaning.DELETE
            else [*key, item.repository, str(item.meaning), item.tag, item.digest]
        ),
    )
