"""Webhooks: stored before they are answered, checked at the source afterwards.

A delivery is a hint. What comes of it is one transaction: events, catalog rows and the delivery's own state, so that
a killed worker leaves it waiting and nothing half done. That transaction is alone for its source, and goes through only
while the delivery is still its worker's: nothing is recorded twice.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from django.db import IntegrityError, transaction
from django.db.models import Q
from django.utils import timezone

from auditportal.catalog import services as catalog
from auditportal.catalog.models import Snapshot, TagObservation, Version
from auditportal.connectors.errors import ConnectorError, MissingError, UnreachableError
from auditportal.connectors.mlflow import Server
from auditportal.connectors.oci import Registry
from auditportal.ingest import kits, mlflow, oci, pulls, services, sources
from auditportal.ingest.errors import NotUnderstoodError
from auditportal.ingest.models import Delivery, Source
from auditportal.ingest.oci import Meaning, Notification
from auditportal.jobs.services import ring
from auditportal.ledger import services as ledger
from auditportal.ledger.drafts import SYSTEM, UNKNOWN, Actor, Draft, Related, Subject
from auditportal.ledger.errors import ConflictError, InvalidEventError
from auditproof.signatures import sha256_hex

KEPT_HEADERS = ("content-type", "user-agent", "x-mlflow-delivery-id", "x-mlflow-timestamp")  # no secrets
KEPT_CHARS = 500  # of a header
# References repeat the manifest, which registries bound at 4 MiB, in indented JSON; a larger body is no notification.
MOST_BYTES = 16 * 1024 * 1024
MOST_RAW = 16 * 1024 * 1024  # of an envelope, counted once for each of its events; else the delivery alone holds it
PATIENCE = (5, 30, 120, 600)  # seconds until a source that did not answer is asked again; then reported only
LEASE = timedelta(seconds=300)  # a killed worker's delivery is taken up by another after it
MOST_ATTEMPTS = 8  # a delivery that kills its worker each time is not given to a ninth
NOTE_CHARS = 500
log = logging.getLogger("auditportal.ingest")


class _TakenOverError(Exception):
    """Another worker has the delivery now; this one writes nothing more."""


@transaction.atomic
def receive(
    *, source: Source | None, kind: str, native_id: str, headers: Mapping[str, str], body: bytes, now: datetime
) -> Delivery:
    """The raw bytes are safe; what they mean is found out afterwards. A repeated delivery is the one we have."""
    kept = {name: headers[name][:KEPT_CHARS] for name in KEPT_HEADERS if name in headers}
    try:
        with transaction.atomic():
            delivery = Delivery.objects.create(
                source=source,
                kind=kind,
                native_id=native_id[:100],
                headers=kept,
                body=body,
                received_at=now,
                next_attempt_at=now,
            )
    except IntegrityError:
        return Delivery.objects.get(kind=kind, source=source, native_id=native_id[:100])
    transaction.on_commit(lambda: ring("ingest.process_deliveries"))
    return delivery


@ledger.retried
@transaction.atomic
def disclose(delivery: Delivery, *, actor: Actor, is_download: bool, now: datetime) -> bytes:
    """The bytes as they came. They may name people, so that they were looked at is an event."""
    ledger.append(
        [
            Draft(
                action="access.download" if is_download else "access.view",
                actor=actor,
                subject=Subject("delivery", str(delivery.pk)),
                timestamp=now,
                metadata={"source": delivery.source_id or "unknown", "sha256": sha256_hex(bytes(delivery.body))},
            )
        ]
    )
    return bytes(delivery.body)


def process_waiting(*, now: Callable[[], datetime] = timezone.now, most: int = 1000) -> int:
    """Works off what waits and is due; how many."""
    for count in range(most):
        if not _process_next(now()):
            return count
    return most


def _process_next(now: datetime) -> bool:
    """One delivery; the network is asked outside the transaction that records it, so nothing waits under locks."""
    delivery = _claim(now)
    if delivery is None:
        return False
    is_last = delivery.attempts > len(PATIENCE)
    try:
        if delivery.attempts > MOST_ATTEMPTS:
            raise NotUnderstoodError(f"given up: its worker died {MOST_ATTEMPTS} times")  # noqa: TRY301 -- as any other reason
        _understand(delivery, now, is_last=is_last)
    except NotUnderstoodError as error:
        _put_aside(delivery, str(error), now)
    except InvalidEventError as error:
        _put_aside(delivery, f"no event can be made of it: {error}", now)
    except ConflictError as error:
        seq = services.record_conflict(error.conflicts, source_id=_source_id(delivery), submitter=SYSTEM, now=now)
        _put_aside(delivery, f"its id is recorded with other content; see event {seq}", now)
    except UnreachableError as error:
        _postpone(delivery, error.reason, now)
    except _TakenOverError:
        log.warning("another worker took the delivery over", extra={"delivery": delivery.pk})
    except Exception:
        # The top of a worker loop: what happened is in the log, and the next delivery gets its turn.
        log.exception("a delivery failed", extra={"delivery": delivery.pk})
        if is_last:
            _put_aside(delivery, "it failed inside; the worker's log says how", now)
        else:
            _postpone(delivery, "it failed inside; the worker's log says how", now)
    return True


def _claim(now: datetime) -> Delivery | None:
    """The next delivery that is due, ours until its lease ends. What a source that is switched off sent waits."""
    with transaction.atomic():
        delivery = (
            Delivery.objects.select_for_update(skip_locked=True, of=("self",))
            .filter(Q(source=None) | Q(source__is_active=True), state=Delivery.State.WAITING, next_attempt_at__lte=now)
            .order_by("next_attempt_at", "id")
            .first()
        )
        if delivery is None:
            return None
        delivery.attempts += 1
        delivery.next_attempt_at = now + LEASE
        delivery.save(update_fields=["attempts", "next_attempt_at"])
        return delivery


def _source_id(delivery: Delivery) -> str:
    return delivery.source_id or delivery.kind


def _put_aside(delivery: Delivery, note: str, now: datetime) -> None:
    _mine(delivery).update(state=Delivery.State.UNKNOWN, note=note[:NOTE_CHARS], processed_at=now)


def _postpone(delivery: Delivery, reason: str, now: datetime) -> None:
    wait = timedelta(seconds=PATIENCE[min(delivery.attempts, len(PATIENCE)) - 1])
    _mine(delivery).update(note=reason[:NOTE_CHARS], next_attempt_at=now + wait)


def _mine(delivery: Delivery) -> Any:  # noqa: ANN401 -- a query set of one
    return Delivery.objects.filter(pk=delivery.pk, state=Delivery.State.WAITING, attempts=delivery.attempts)


@contextmanager
def _recording(delivery: Delivery, source: Source) -> Iterator[None]:
    """The transaction that records what came of the delivery.

    Raises:
        _TakenOverError: the lease ran out, and another worker has it.
    """
    with transaction.atomic():
        sources.lock(source)
        if _mine(delivery).select_for_update().first() is None:
            raise _TakenOverError
        yield


def _settle(delivery: Delivery, state: str, note: str, now: datetime, events: Sequence[int] = ()) -> None:
    _mine(delivery).update(state=state, note=note[:NOTE_CHARS], processed_at=now, events=list(events))


def _understand(delivery: Delivery, now: datetime, *, is_last: bool) -> None:
    if delivery.source is None:
        raise NotUnderstoodError("no configured source is behind it")
    if delivery.kind == Source.Kind.OCI:
        _take_notifications(delivery, delivery.source, now, is_last=is_last)
    else:
        _take_hook(delivery, delivery.source, now, is_last=is_last)


# Registries


@dataclass(frozen=True, slots=True)
class _Found:
    """What the registry said when it was asked: the kit, and the digest at which the tag stands now.

    `stands` is empty when the tag is gone, None when nobody knows.
    """

    kit: catalog.ObservedKit | None = None
    stands: str | None = None


def _take_notifications(delivery: Delivery, source: Source, now: datetime, *, is_last: bool) -> None:
    body = bytes(delivery.body)
    items = oci.read(body, own_account=source.username)
    wanted = [item for item in items if item.meaning != Meaning.NOTHING]
    registry = sources.registry(source)
    found = {item.id: _ask_registry(item, registry, source, is_last=is_last) for item in wanted}
    raw = body if len(body) * len(wanted) <= MOST_RAW else None
    notes = list(dict.fromkeys(item.why for item in items if item.why))
    with _recording(delivery, source):
        drafts = [_notification_draft(item, source, found[item.id], raw, now) for item in wanted]
        seqs = [recorded.seq for recorded in ledger.append(drafts)]
        state = Delivery.State.RECORDED if seqs else Delivery.State.NOTED
        _settle(delivery, state, "; ".join(notes), now, seqs)


def _ask_registry(item: Notification, registry: Registry, source: Source, *, is_last: bool) -> _Found:
    """What a push or delete is checked against.

    Raises:
        UnreachableError: the registry gives no usable answer, and is to be asked again.
    """
    if item.meaning == Meaning.PULL:
        return _Found()
    kit = None
    if item.meaning == Meaning.PUSH:
        kit = kits.fetch(
            registry, source=source.pk, repository=item.repository, reference=item.digest, digest=item.digest
        )
        if kit.state == Version.Check.UNREACHABLE and not is_last:
            raise UnreachableError(kit.note)
    stands = None
    if item.tag:
        try:
            stands = registry.manifest(item.repository, item.tag).digest
        except MissingError:
            stands = ""
        except ConnectorError:
            stands = None  # then the notification's word about the tag is all there is
    return _Found(kit, stands)


def _notification_draft(item: Notification, source: Source, found: _Found, raw: bytes | None, now: datetime) -> Draft:
    actor = pulls.claimed(source.pk, item.actor, now)
    kit = found.kit
    metadata: dict[str, Any] = {"state": "reported only"}
    related: list[Related] = []
    subject = _subject(item, source)
    if kit is not None:
        version, _ = catalog.observe_kit(kit, tag=item.tag, now=now)
        subject = Subject("model_version", version.label)
        metadata = _of_kit(kit)
        if version.run_id:
            related.append(Related("run", version.run_id, "packed from, as the Kitfile says"))
    elif item.digest:
        metadata["digest"] = item.digest
        if item.meaning == Meaning.PULL and subject.type == "model":
            metadata["caution"] = "no version with this digest is known"
    if item.tag:
        metadata["tag"] = item.tag
    if item.tag and item.meaning != Meaning.PULL:
        metadata |= _move_tag(item, source, found.stands, now, "" if actor is UNKNOWN else actor.id)
    return oci.draft(
        item, source_id=source.pk, actor=actor, subject=subject, related=related, raw=raw, metadata=metadata
    )


def _of_kit(kit: catalog.ObservedKit) -> dict[str, Any]:
    """Digests that we computed stand as such; one that we were only told of does not."""
    if kit.manifest is None:
        return {"state": kit.state, "note": kit.note, "digest": kit.digest}
    digests = [{"kind": "oci_manifest", "sha256": kit.digest.removeprefix("sha256:")}]
    if kit.config is None:
        return {"state": "manifest checked", "note": kit.note, "digests": digests}
    return {
        "state": "manifest checked",
        "digests": [*digests, {"kind": "oci_config", "sha256": sha256_hex(kit.config)}],
    }


def _move_tag(item: Notification, source: Source, stands: str | None, now: datetime, actor: str) -> dict[str, str]:
    """Notes where the tag stands. Notifications come in any order, and a late one does not turn the history back."""
    digest = item.digest if item.meaning == Meaning.PUSH else ""
    facts = {} if stands in (None, digest) else {"tag_now": stands or "gone"}
    if facts and _tag_seen(item, source) == stands:
        return facts
    before = catalog.observe_tag(
        source=source.pk, repository=item.repository, tag=item.tag, digest=digest, now=now, actor=actor
    )
    return facts | ({"tag_was": before.digest} if before is not None and before.digest else {})


def _tag_seen(item: Notification, source: Source) -> str | None:
    """The digest at which the tag was last seen."""
    seen = TagObservation.objects.filter(source=source.pk, repository=item.repository, tag=item.tag)
    return seen.order_by("-id").values_list("digest", flat=True).first()


def _subject(item: Notification, source: Source) -> Subject:
    """The version with this manifest where we know it, else the model by its repository."""
    digest = item.digest or (_tag_seen(item, source) if item.tag else "")
    if digest:
        known = Version.objects.filter(source=source.pk, repository=item.repository, manifest_digest=digest).first()
        if known is not None:
            return Subject("model_version", known.label)
    return Subject("model", item.repository)


# MLflow


def _take_hook(delivery: Delivery, source: Source, now: datetime, *, is_last: bool) -> None:
    hook = mlflow.read(bytes(delivery.body))
    if hook.is_test:
        _settle(delivery, Delivery.State.TEST, f"a test delivery of {hook.name}", now)
    elif hook.name in mlflow.MARKS:
        _take_mark(delivery, source, hook, now, is_last=is_last)
    elif hook.name in ("registered_model.created", "model_version.created"):
        _take_creation(delivery, source, hook, now, is_last=is_last)
    else:
        _settle(delivery, Delivery.State.NOTED, f"{hook.name} is not recorded by this release", now)


def _take_creation(delivery: Delivery, source: Source, hook: mlflow.Hook, now: datetime, *, is_last: bool) -> None:
    kind = pulls.MODEL if hook.name == "registered_model.created" else pulls.VERSION
    name, version = mlflow.names(hook)
    if kind == pulls.VERSION and not version:
        raise NotUnderstoodError(f"{hook.name} without a version")
    value, note = _ask_mlflow(sources.mlflow(source), kind, name, version, is_last=is_last)
    with _recording(delivery, source):
        if value is None:
            moment = int(datetime.fromisoformat(hook.timestamp).timestamp() * 1000)
            said = {"name": name, "version": version, "source": hook.data.get("source")}
            value = pulls.told_as(kind, said, source=source, sent_ms=moment)
        mlflow.check_names(kind, value)
        take = pulls.take_model if kind == pulls.MODEL else pulls.take_version
        drafts = take(value, source=source, raw=bytes(delivery.body), now=now)
        seqs = [recorded.seq for recorded in ledger.append(drafts)]
        _settle(delivery, Delivery.State.RECORDED if seqs else Delivery.State.NOTED, note or _known(seqs), now, seqs)


def _known(seqs: Sequence[int]) -> str:
    return "" if seqs else "a pull had recorded it already"


def _take_mark(delivery: Delivery, source: Source, hook: mlflow.Hook, now: datetime, *, is_last: bool) -> None:
    """An alias or tag: told with its time by the delivery alone, compared with what the server shows now."""
    said = mlflow.mark(hook)
    name, number = mlflow.names(hook)
    kind = pulls.MODEL if said.field == "aliases" else pulls.VERSION
    if kind == pulls.VERSION and not number:
        raise NotUnderstoodError(f"{hook.name} without a version")
    value, note = _ask_mlflow(sources.mlflow(source), kind, name, number, is_last=is_last)
    raw = bytes(delivery.body)
    with _recording(delivery, source):
        changes: list[Draft] = []
        before, stands = None, None
        if value is not None:
            mlflow.check_names(kind, value)
            before = _seen_before(source, kind, value, said)
            stands = said.is_so(mlflow.kept(kind, value))
            take = pulls.take_model if kind == pulls.MODEL else pulls.take_version
            changes = take(value, source=source, raw=pulls.raw_of(value), now=now, told=said)
        draft = mlflow.mark_draft(
            hook,
            label=_label(source, name, number),
            before=before,
            stands=stands,
            source_id=source.pk,
            delivery_id=delivery.native_id,
            raw=raw,
        )
        seqs = [recorded.seq for recorded in ledger.append([draft, *changes])]
        _settle(delivery, Delivery.State.RECORDED, note, now, seqs)


def _seen_before(source: Source, kind: str, value: Mapping[str, Any], said: mlflow.Mark) -> str | None:
    seen = Snapshot.objects.filter(source=source.pk, type=kind, native_id=pulls.native_id(kind, value)).first()
    members = seen.value.get(said.field) if seen is not None else None
    return members.get(said.key) if isinstance(members, dict) else None


def _label(source: Source, name: str, number: str) -> str:
    """The version that bears this number now; a number given again belongs to the version made last."""
    if not number:
        return ""
    known = Version.objects.filter(
        source=source.pk, kind=Version.Kind.MLFLOW, model__name=name, native_version=number
    ).order_by("-native_created", "-id")
    return known.values_list("label", flat=True).first() or f"{name}:{number}"


def _ask_mlflow(
    server: Server, kind: str, name: str, version: str, *, is_last: bool
) -> tuple[dict[str, Any] | None, str]:
    """The object as the server tells it now; None with a note when it lost it, or does not answer in the end.

    Raises:
        UnreachableError: the server gives no usable answer, and is to be asked again.
    """
    try:
        return (server.registered_model(name) if kind == pulls.MODEL else server.version(name, version)), ""
    except MissingError as error:
        return None, f"gone from the server since: {error.reason}"
    except ConnectorError as error:
        if not is_last:
            raise UnreachableError(error.reason) from error
        return None, f"reported only, the server did not answer: {error.reason}"
