"""Pulls: MLflow's runs and registry read as they stand, and compared with what was seen before.

A job. Each chunk is one transaction, alone for its source, and recording is idempotent, so a killed pull is simply
begun again. An ordinary pull reads the registry whole and the runs that ended since the last one; a full one reads all
runs again, since MLflow lets anyone change a finished run, and clients state its end time.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from datetime import datetime
from itertools import islice
from typing import Any, Protocol

from django.db import transaction
from django.utils import timezone

from auditportal.accounts import services as accounts
from auditportal.catalog import services as catalog
from auditportal.catalog.models import Snapshot, Version
from auditportal.catalog.services import pairs
from auditportal.connectors.errors import ConnectorError, MissingError
from auditportal.connectors.foreign import clean
from auditportal.connectors.mlflow import Server
from auditportal.ingest import mlflow, sources
from auditportal.ingest.errors import NotUnderstoodError
from auditportal.ingest.mlflow import ADOPTED_MS, TOLD
from auditportal.ingest.models import Delivery, Source
from auditportal.jobs import services as jobs
from auditportal.jobs.errors import JobError
from auditportal.jobs.models import Job
from auditportal.jobs.services import Running
from auditportal.ledger import services as ledger
from auditportal.ledger.drafts import SYSTEM, UNKNOWN, Actor, Assurance, Draft, Subject
from auditportal.ledger.errors import ConflictError, InvalidEventError
from auditproof.canonical import encode
from auditproof.errors import ProofError
from auditproof.signatures import sha256_hex

KIND = "pull"
FULL = "full"
ERROR_CHARS = 500
CHUNK = 200  # objects looked at in one transaction
RUN, MODEL, VERSION = "run", "registered_model", "model_version"  # types of snapshots


def request(source: Source, *, actor: Actor = SYSTEM, is_full: bool = False) -> Job:
    """The source is pulled by the next free worker."""
    # A full pull waits its own turn: one that is running already may be an ordinary one.
    key = f"{source.pk} {FULL}" if is_full else source.pk
    return jobs.enqueue(kind=KIND, key=key, actor=actor, parameters={"source": source.pk, FULL: is_full})


def request_all(*, is_full: bool = False) -> int:
    """Every active MLflow server is pulled; how many."""
    found = Source.objects.filter(kind=Source.Kind.MLFLOW, is_active=True)
    return len([request(source, is_full=is_full) for source in found])


def run(running: Running) -> Mapping[str, Any]:
    """The pull itself.

    Raises:
        JobError: the server does not answer; the source says so, and the next pull tries again.
    """
    source = Source.objects.get(pk=running.parameters["source"])
    if source.kind != Source.Kind.MLFLOW:
        raise JobError("a registry is not pulled: reconciliation reads it")
    if not source.is_active:
        raise JobError("the source is switched off")
    server = sources.mlflow(source)
    is_full = bool(running.parameters[FULL])
    try:
        counts = _Pull(source, server, running).all(is_full=is_full)
    except ConnectorError as error:
        Source.objects.filter(pk=source.pk).update(pull_error=error.reason[:ERROR_CHARS])
        raise JobError(error.reason) from error
    Source.objects.filter(pk=source.pk).update(pull_error="", pulled_at=timezone.now())
    return counts


class Take(Protocol):
    """The object is in the catalog; the events of its creation and of what changed since it was last seen."""

    def __call__(self, value: Mapping[str, Any], *, source: Source, raw: bytes, now: datetime) -> list[Draft]: ...


class _Pull:
    """One pull, and what it counted."""

    def __init__(self, source: Source, server: Server, running: Running) -> None:
        self.source, self.server, self.running = source, server, running
        self.counts = {"runs": 0, "new": 0, "changed": 0, "gone": 0, "not_understood": 0}

    def all(self, *, is_full: bool) -> dict[str, int]:
        self._runs(is_full=is_full)
        models = [item for item in self.server.registered_models() if mlflow.PROMPT_TAG not in pairs(item.get("tags"))]
        self.running.step(note=f"{len(models)} models", now=True)
        names = {item.get("name") for item in models}
        versions = [item for item in self.server.versions() if item.get("name") in names]
        self.running.step(note=f"{len(models)} models, {len(versions)} versions", now=True)
        present = {MODEL: self._take(MODEL, models, take_model), VERSION: self._take(VERSION, versions, take_version)}
        for kind, ids in present.items():
            self._note_gone(kind, ids)
        return self.counts

    def _runs(self, *, is_full: bool) -> None:
        """Ends of runs since the last one read, or all of them."""
        ids = [str(item["experiment_id"]) for item in self.server.experiments() if item.get("experiment_id")]
        since = int(self.source.watermark.get("end_time", 0))
        present: set[str] = set()
        for batch in self.server.finished_runs(ids, since_ms=0 if is_full else since):
            self.running.step(note=f"{self.counts['runs']} new runs")
            before = self.counts["new"]
            present |= self._take(RUN, batch, take_run)
            self.counts["runs"] += self.counts["new"] - before
            self.counts["new"] = before
            # End times are the clients' word: one far in the future must not hide what ends before it.
            latest = max((value["info"]["end_time"] for value in batch), default=0)
            since = max(since, min(latest, int(timezone.now().timestamp() * 1000)))
            Source.objects.filter(pk=self.source.pk).update(watermark={"end_time": since})
        if is_full:
            self._note_gone(RUN, present)

    def _take(self, kind: str, values: Iterable[dict[str, Any]], take: Take) -> set[str]:
        """All of them, in chunks; the native ids of those that were there."""
        present: set[str] = set()
        for chunk in _chunks(values, CHUNK):
            self.running.step()
            usable = [value for value in chunk if self._is_usable(kind, value)]
            present |= {native_id(kind, value) for value in usable}
            fresh = self._without_unchanged(kind, usable)
            try:
                self._record(fresh, take)
            except (InvalidEventError, ConflictError, NotUnderstoodError, ProofError):
                for value in fresh:  # one of them is bad; it must not keep the others out
                    self._record_alone(value, take)
        return present

    def _is_usable(self, kind: str, value: Mapping[str, Any]) -> bool:
        try:
            mlflow.check_names(kind, value)
        except NotUnderstoodError as error:
            self._keep_aside(value, str(error))
            return False
        return True

    def _without_unchanged(self, kind: str, values: Sequence[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
        """Those of which something must be said; the others are noted as seen, all at once."""
        known = {
            snapshot.native_id: snapshot
            for snapshot in Snapshot.objects.filter(
                source=self.source.pk, type=kind, native_id__in=[native_id(kind, value) for value in values]
            ).only("native_id", "sha256", "is_gone")
        }
        fresh, same = [], []
        for value in values:
            snapshot = known.get(native_id(kind, value))
            if snapshot is None or snapshot.is_gone or snapshot.sha256 != _hash(mlflow.kept(kind, value)):
                fresh.append(value)
            else:
                same.append(snapshot.pk)
        Snapshot.objects.filter(pk__in=same).update(seen_at=timezone.now())
        return fresh

    def _record(self, values: Sequence[Mapping[str, Any]], take: Take) -> None:
        if not values:
            return
        now = timezone.now()
        with transaction.atomic():
            sources.lock(self.source)
            drafts = [
                draft for value in values for draft in take(value, source=self.source, raw=raw_of(value), now=now)
            ]
            recorded = ledger.append(drafts)
        for draft, place in zip(drafts, recorded, strict=True):
            if draft.action == "source.changed_object":
                self.counts["changed"] += 1
            elif place.is_new:
                self.counts["new"] += 1

    def _record_alone(self, value: Mapping[str, Any], take: Take) -> None:
        try:
            self._record([value], take)
        except (InvalidEventError, ConflictError, NotUnderstoodError, ProofError) as error:
            self._keep_aside(value, f"no event can be made of it: {error}")

    def _keep_aside(self, value: Mapping[str, Any], note: str) -> None:
        """What cannot be recorded is kept among the deliveries, once, where people see it."""
        self.counts["not_understood"] += 1
        try:
            body = raw_of(value)
        except ProofError:
            body = str(value).encode("utf-8", "replace")
        now = timezone.now()
        Delivery.objects.get_or_create(
            kind=self.source.kind,
            native_id=f"pulled {sha256_hex(self.source.pk.encode() + body)}",
            defaults={
                "source": self.source,
                "body": body,
                "received_at": now,
                "next_attempt_at": now,
                "processed_at": now,
                "state": Delivery.State.UNKNOWN,
                "note": f"pulled: {note}"[:ERROR_CHARS],
            },
        )

    def _note_gone(self, kind: str, present: set[str]) -> None:
        """What the server no longer tells of was deleted; MLflow itself keeps no trace of it.

        A list read page by page while objects are deleted skips others, so each absence is asked for by name first.
        """
        known = Snapshot.objects.filter(source=self.source.pk, type=kind, is_gone=False)
        absent = [item for item in known.values_list("native_id", "sha256") if item[0] not in present]
        gone = {item for item, sha256 in absent if self._is_gone(kind, item, is_told=sha256 == _hash(TOLD))}
        now = timezone.now()
        with transaction.atomic():
            sources.lock(self.source)
            drafts = [
                mlflow.change_draft(
                    subject=_subject(self.source, kind, snapshot.native_id),
                    source_id=self.source.pk,
                    before=snapshot.sha256,
                    after="",
                    changes={"deleted": ({}, {"after": "no longer at the source"})},
                    last_seen=snapshot.seen_at,
                    now=now,
                )
                for snapshot in catalog.mark_gone(source=self.source.pk, type=kind, native_ids=gone)
            ]
            ledger.append(drafts)
        self.counts["gone"] += len(drafts)

    def _is_gone(self, kind: str, identity: str, *, is_told: bool) -> bool:
        self.running.step()
        try:
            if kind == RUN:
                self.server.run(identity)
                return False
            name, _, created = identity.rpartition(":")
            if kind == MODEL:
                found = self.server.registered_model(name)
            else:
                name, _, number = name.rpartition(":")
                found = self.server.version(name, number)
        except MissingError:
            return True
        stated = found.get("creation_timestamp")
        return not (_is_near(stated, created) if is_told else str(stated) == created)


def native_id(kind: str, value: Mapping[str, Any]) -> str:
    """By what an object is known again. A name can be made anew, so the creation time belongs to it."""
    if kind == RUN:
        return str(value["info"]["run_id"])
    number = f":{value['version']}" if kind == VERSION else ""
    return f"{value['name']}{number}:{value.get('creation_timestamp')}"


def raw_of(value: Mapping[str, Any]) -> bytes:
    """What a pull received: the object in canonical form, numbers beyond its profile as text."""
    return encode(catalog.plain(dict(value)))


def claimed(source_id: str, name: str, now: datetime) -> Actor:
    """The pseudonym of whom the source names; nobody where it names nobody."""
    if not name or not name.isprintable():
        return UNKNOWN
    known = accounts.actor_for_alias(source_id=source_id, name=name[:512], type="user", now=now)
    return Actor(type="user", id=known.id, assurance=Assurance.CLAIMED)


def take_run(value: Mapping[str, Any], *, source: Source, raw: bytes, now: datetime) -> list[Draft]:
    """As `Take`; each end of a run is an event of its own, and what is changed after it another."""
    identity = native_id(RUN, value)
    tags = mlflow.data_of(value, "tags")
    name = value["info"].get("user_id") or tags.get("mlflow.user") or ""
    actor = claimed(source.pk, name if isinstance(name, str) else "", now)
    draft = mlflow.run_draft(value, actor=actor, source_id=source.pk, raw=raw)
    return [draft, *_changes(source, RUN, identity, Subject("run", identity), value, now)]


def take_model(
    value: Mapping[str, Any], *, source: Source, raw: bytes, now: datetime, told: mlflow.Mark | None = None
) -> list[Draft]:
    """As `Take`; `told` is the change that a delivery tells of by itself."""
    catalog.model_named(value["name"], now)
    identity = native_id(MODEL, value)
    is_new = not _adopt(source, MODEL, value) and not catalog.has_snapshot(
        source=source.pk, type=MODEL, native_id=identity
    )
    drafts = [mlflow.model_draft(value, source_id=source.pk, raw=raw)] if is_new else []
    return drafts + _changes(source, MODEL, identity, Subject("model", value["name"]), value, now, told)


def take_version(
    value: Mapping[str, Any], *, source: Source, raw: bytes, now: datetime, told: mlflow.Mark | None = None
) -> list[Draft]:
    """As `take_model`, for a version."""
    _adopt(source, VERSION, value)
    version, is_new = catalog.observe_mlflow_version(value, source=source.pk, now=now)
    drafts = [mlflow.version_draft(value, label=version.label, source_id=source.pk, raw=raw)] if is_new else []
    subject = Subject("model_version", version.label)
    return drafts + _changes(source, VERSION, native_id(VERSION, value), subject, value, now, told)


def _adopt(source: Source, kind: str, value: Mapping[str, Any]) -> bool:
    """An object known only from a delivery gets the creation time that the server states; whether there was one.

    While the server did not answer it was recorded under the delivery's own time, a moment after its creation.
    """
    created = value.get("creation_timestamp")
    identity = native_id(kind, value)
    if value.get("told") or catalog.has_snapshot(source=source.pk, type=kind, native_id=identity):
        return False
    prefix = identity.rpartition(":")[0] + ":"
    for snapshot in Snapshot.objects.filter(source=source.pk, type=kind, native_id__startswith=prefix, value=TOLD):
        told = snapshot.native_id.removeprefix(prefix)
        if not _is_near(created, told):
            continue
        if kind == VERSION:
            Version.objects.filter(
                kind=Version.Kind.MLFLOW,
                source=source.pk,
                model__name=value["name"],
                native_version=value["version"],
                native_created=int(told),
            ).update(native_created=created)
        snapshot.native_id, snapshot.is_gone = identity, False
        snapshot.save(update_fields=["native_id", "is_gone"])
        return True
    return False


def told_as(kind: str, value: Mapping[str, Any], *, source: Source, sent_ms: int) -> dict[str, Any]:
    """The object as a delivery alone tells of it: created when it was sent, unless we saw it created just then."""
    told = {**value, "told": True, "creation_timestamp": sent_ms}
    prefix = native_id(kind, told).removesuffix(str(sent_ms))
    seen = Snapshot.objects.filter(source=source.pk, type=kind, native_id__startswith=prefix)
    for identity in seen.values_list("native_id", flat=True):
        created = identity.removeprefix(prefix)
        if _is_near(sent_ms, created):
            told["creation_timestamp"] = int(created)
    return told


def _is_near(created: object, told: str) -> bool:
    if type(created) is not int or not told.isdecimal():
        return str(created) == told
    return abs(created - int(told)) <= ADOPTED_MS


def _changes(
    source: Source,
    kind: str,
    identity: str,
    subject: Subject,
    value: Mapping[str, Any],
    now: datetime,
    told: mlflow.Mark | None = None,
) -> list[Draft]:
    """The event of what changed since the object was last seen, if anything did that nobody told of."""
    before = Snapshot.objects.filter(source=source.pk, type=kind, native_id=identity).first()
    members = mlflow.kept(kind, value)
    if value.get("told") and before is not None:
        return []  # a late delivery knows less than what was seen
    found = catalog.observe_snapshot(source=source.pk, type=kind, native_id=identity, value=members, now=now)
    if before is None or before.value == TOLD:
        return []
    changes = mlflow.differences(found.changed if found else {})
    if told is not None and told.is_so(members):
        changes.pop(told.place, None)
    if before.is_gone:
        changes["restored"] = ({}, {"after": "told of again by the source"})
    if not changes:
        return []
    return [
        mlflow.change_draft(
            subject=subject,
            source_id=source.pk,
            before=before.sha256,
            after=found.after_sha256 if found else before.sha256,
            changes=changes,
            last_seen=before.seen_at,
            now=now,
        )
    ]


def _subject(source: Source, kind: str, identity: str) -> Subject:
    if kind == RUN:
        return Subject("run", identity)
    name, _, created = identity.rpartition(":")
    if kind == MODEL:
        return Subject("model", name)
    name, _, native = name.rpartition(":")
    known = Version.objects.filter(
        source=source.pk,
        kind=Version.Kind.MLFLOW,
        model__name=name,
        native_version=native,
        native_created=int(created) if created.isdecimal() else None,
    ).first()
    return Subject("model_version", known.label if known else f"{name}:{native}")


def _hash(members: Mapping[str, Any]) -> str:
    """As the catalog hashes a snapshot: what is equal here needs no further look."""
    return sha256_hex(encode(catalog.plain(clean(dict(members)))))


def _chunks(values: Iterable[dict[str, Any]], size: int) -> Iterator[list[dict[str, Any]]]:
    source = iter(values)
    while chunk := list(islice(source, size)):
        yield chunk
