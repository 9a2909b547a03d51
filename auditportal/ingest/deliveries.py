"""Webhooks: stored before they are answered, checked at the source afterwards.

A delivery is a hint. What comes of it is one transaction: events, catalog rows and the delivery's own state, so that
a killed worker leaves it waiting and nothing half done.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from datetime import datetime, timedelta
from typing import Any

from django.db import IntegrityError, transaction
from django.utils import timezone

from auditportal.accounts import services as accounts
from auditportal.catalog import services as catalog
from auditportal.catalog.models import Version
from auditportal.connectors.errors import ConnectorError, MissingError, UnreachableError
from auditportal.ingest import kits, mlflow, oci, pulls, sources
from auditportal.ingest.errors import NotUnderstoodError
from auditportal.ingest.models import Delivery, Source
from auditportal.ingest.oci import Meaning, Notification
from auditportal.jobs.services import ring
from auditportal.ledger import services as ledger
from auditportal.ledger.drafts import UNKNOWN, Actor, Assurance, Draft, Related, Subject
from auditportal.ledger.errors import ConflictError, InvalidEventError
from auditproof.signatures import sha256_hex

KEPT_HEADERS = ("content-type", "user-agent", "x-mlflow-delivery-id", "x-mlflow-timestamp")  # no secrets
MOST_BYTES = 4 * 1024 * 1024  # a notification with the references of a kit of thousands of layers
PATIENCE = (5, 30, 120, 600)  # seconds until a source that did not answer is asked again; then reported only
log = logging.getLogger("auditportal.ingest")


@transaction.atomic
def receive(
    *, source: Source | None, kind: str, native_id: str, headers: Mapping[str, str], body: bytes, now: datetime
) -> Delivery:
    """The raw bytes are safe; what they mean is found out afterwards. A repeated delivery is the one we have."""
    kept = {name: headers[name] for name in KEPT_HEADERS if name in headers}
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
        return Delivery.objects.get(kind=kind, native_id=native_id[:100])
    transaction.on_commit(lambda: ring("ingest.process_deliveries"))
    return delivery


def process_waiting(*, now: Callable[[], datetime] = timezone.now, most: int = 1000) -> int:
    """Works off what waits and is due; how many."""
    for count in range(most):
        if not _process_next(now()):
            return count
    return most


def _process_next(now: datetime) -> bool:
    """One delivery; the network is asked outside the transaction that records it, so nothing waits under locks."""
    with transaction.atomic():
        delivery = (
            Delivery.objects.select_for_update(skip_locked=True)
            .filter(state=Delivery.State.WAITING, next_attempt_at__lte=now)
            .order_by("next_attempt_at", "id")
            .first()
        )
        if delivery is None:
            return False
        # Claimed until then; a killed worker's delivery is taken up again.
        delivery.attempts += 1
        delivery.next_attempt_at = now + timedelta(seconds=120)
        delivery.save(update_fields=["attempts", "next_attempt_at"])
    is_last = delivery.attempts > len(PATIENCE)
    try:
        _understand(delivery, now, is_last=is_last)
    except NotUnderstoodError as error:
        _settle(delivery, Delivery.State.UNKNOWN, str(error), now)
    except (InvalidEventError, ConflictError) as error:
        _settle(delivery, Delivery.State.UNKNOWN, f"no event can be made of it: {error}", now)
    except UnreachableError as error:
        wait = timedelta(seconds=PATIENCE[min(delivery.attempts, len(PATIENCE)) - 1])
        Delivery.objects.filter(pk=delivery.pk).update(note=error.reason[:500], next_attempt_at=now + wait)
    return True


def _settle(delivery: Delivery, state: str, note: str, now: datetime, events: list[int] | None = None) -> None:
    Delivery.objects.filter(pk=delivery.pk).update(state=state, note=note[:500], processed_at=now, events=events or [])


def _understand(delivery: Delivery, now: datetime, *, is_last: bool) -> None:
    if delivery.source is None:
        raise NotUnderstoodError("no configured source signed it")
    if delivery.kind == Source.Kind.OCI:
        _take_notifications(delivery, delivery.source, now, is_last=is_last)
    else:
        _take_hook(delivery, delivery.source, now, is_last=is_last)


def _take_notifications(delivery: Delivery, source: Source, now: datetime, *, is_last: bool) -> None:
    body = bytes(delivery.body)
    items = oci.read(body)
    registry = sources.registry(source)
    fetched: dict[str, catalog.ObservedKit] = {}
    for item in items:
        if item.meaning != Meaning.PUSH:
            continue
        kit = kits.fetch(
            registry, source=source.pk, repository=item.repository, reference=item.digest, digest=item.digest
        )
        if kit.state == Version.Check.UNREACHABLE and kit.manifest is None and not is_last:
            raise UnreachableError(kit.note)
        fetched[item.id] = kit
    with transaction.atomic():
        seqs: list[int] = []
        drafts: list[Draft] = []
        notes: list[str] = []
        for item in items:
            if item.meaning == Meaning.NOTHING:
                notes.append(item.why)
                continue
            drafts.append(_notification_draft(item, source, fetched.get(item.id), body, now))
        if drafts:
            seqs = [recorded.seq for recorded in ledger.append(drafts)]
        state = Delivery.State.RECORDED if seqs else Delivery.State.NOTED
        _settle(delivery, state, "; ".join(dict.fromkeys(notes)), now, seqs)


def _notification_draft(
    item: Notification, source: Source, kit: catalog.ObservedKit | None, raw: bytes, now: datetime
) -> Draft:
    actor = claimed(source.pk, item.actor, now)
    metadata: dict[str, Any] = {"tag": item.tag} if item.tag else {}
    related: list[Related] = []
    if item.meaning == Meaning.PUSH and kit is not None:
        version, _ = catalog.observe_kit(kit, tag=item.tag, now=now)
        before = catalog.observe_tag(
            source=source.pk,
            repository=item.repository,
            tag=item.tag,
            digest=kit.digest,
            now=now,
            actor="" if actor is UNKNOWN else actor.id,
        )
        subject = Subject("model_version", version.label)
        metadata |= {
            "state": "manifest checked" if kit.manifest is not None else kit.state,
            "digests": [{"kind": "oci_manifest", "sha256": kit.digest.removeprefix("sha256:")}],
        }
        if kit.config is not None:
            metadata["digests"].append({"kind": "oci_config", "sha256": sha256_hex(kit.config)})
        if kit.manifest is None:
            metadata["note"] = kit.note
        if version.run_id:
            related.append(Related("run", version.run_id, "packed from, as the Kitfile says"))
        if before is not None and before.digest:
            metadata["tag_was"] = before.digest
        return oci.draft(
            item, source_id=source.pk, actor=actor, subject=subject, related=related, raw=raw, metadata=metadata
        )
    return oci.draft(
        item,
        source_id=source.pk,
        actor=actor,
        subject=_subject(item, source),
        related=related,
        raw=raw,
        metadata={**metadata, "state": "reported only", **({"digest": item.digest} if item.digest else {})},
    )


def _subject(item: Notification, source: Source) -> Subject:
    """The version with this manifest where we know it, else the model by its repository."""
    if item.digest:
        known = Version.objects.filter(
            source=source.pk, repository=item.repository, manifest_digest=item.digest
        ).first()
        if known is not None:
            return Subject("model_version", known.label)
    return Subject("model", item.repository)


def claimed(source_id: str, name: str, now: datetime) -> Actor:
    """The pseudonym of whom the source names; nobody where it names nobody."""
    if not name:
        return UNKNOWN
    known = accounts.actor_for_alias(source_id=source_id, name=name[:512], type="user", now=now)
    return Actor(type="user", id=known.id, assurance=Assurance.CLAIMED)


def _take_hook(delivery: Delivery, source: Source, now: datetime, *, is_last: bool) -> None:
    body = bytes(delivery.body)
    hook = mlflow.read(body)
    if hook.is_test:
        _settle(delivery, Delivery.State.TEST, f"a test delivery of {hook.name}", now)
        return
    if hook.name in mlflow.MARKS:
        draft = mlflow.mark_draft(hook, source_id=source.pk, delivery_id=delivery.native_id, raw=body)
        with transaction.atomic():
            seqs = [recorded.seq for recorded in ledger.append([draft])]
            _settle(delivery, Delivery.State.RECORDED, "", now, seqs)
        return
    if hook.name not in ("registered_model.created", "model_version.created"):
        _settle(delivery, Delivery.State.NOTED, f"{hook.name} is not recorded by this release", now)
        return
    value, note = _ask(hook, source, is_last=is_last)
    with transaction.atomic():
        if hook.name == "registered_model.created":
            drafts = pulls.take_model(value, source=source, raw=body, now=now)
        else:
            drafts = pulls.take_version(value, source=source, raw=body, now=now)
        seqs = [recorded.seq for recorded in ledger.append(drafts)]
        _settle(delivery, Delivery.State.RECORDED, note, now, seqs)


def _ask(hook: mlflow.Hook, source: Source, *, is_last: bool) -> tuple[dict[str, Any], str]:
    """The object as the server tells it now; as the delivery told it when the server does not answer, or lost it."""
    name, version = str(hook.data.get("name") or ""), str(hook.data.get("version") or "")
    if not name or (hook.name == "model_version.created" and not version):
        raise NotUnderstoodError(f"{hook.name} without a name or version")
    server = sources.mlflow(source)
    try:
        if hook.name == "registered_model.created":
            return server.registered_model(name), ""
        return server.version(name, version), ""
    except MissingError as error:
        note = f"gone from the server since: {error.reason}"
    except ConnectorError as error:
        if not is_last:
            raise UnreachableError(error.reason) from error
        note = f"the server did not answer: {error.reason}"
    told = {key: item for key, item in hook.data.items() if key != "tags"}
    moment = datetime.fromisoformat(hook.timestamp)
    return told | {"creation_timestamp": int(moment.timestamp() * 1000)}, note
