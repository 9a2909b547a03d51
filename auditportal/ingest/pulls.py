"""Pulls: MLflow's runs and registry read as they stand, and compared with what was seen before.

A job. Each batch is one transaction, and recording is idempotent, so a killed pull is simply begun again.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Any

from django.db import transaction
from django.utils import timezone

from auditportal.accounts import services as accounts
from auditportal.catalog import services as catalog
from auditportal.catalog.models import Version
from auditportal.catalog.services import pairs
from auditportal.connectors.errors import ConnectorError
from auditportal.connectors.mlflow import Server
from auditportal.ingest import mlflow, sources
from auditportal.ingest.models import Source
from auditportal.jobs import services as jobs
from auditportal.jobs.errors import JobError
from auditportal.jobs.models import Job
from auditportal.jobs.services import Running
from auditportal.ledger import services as ledger
from auditportal.ledger.drafts import SYSTEM, UNKNOWN, Actor, Assurance, Draft, Subject
from auditproof.canonical import encode

KIND = "pull"
ERROR_CHARS = 500


def request(source: Source, *, actor: Actor = SYSTEM) -> Job:
    """The source is pulled by the next free worker."""
    return jobs.enqueue(kind=KIND, key=source.pk, actor=actor)


def request_all() -> int:
    """Every active MLflow server is pulled; how many."""
    found = Source.objects.filter(kind=Source.Kind.MLFLOW, is_active=True)
    return len([request(source) for source in found])


def run(running: Running) -> Mapping[str, Any]:
    """The pull itself.

    Raises:
        JobError: the server does not answer; the source says so, and the next pull tries again.
    """
    source = Source.objects.get(pk=running.key)
    server = sources.mlflow(source)
    try:
        counts = {"runs": _pull_runs(source, server, running), **_pull_registry(source, server, running)}
    except ConnectorError as error:
        Source.objects.filter(pk=source.pk).update(pull_error=error.reason[:ERROR_CHARS])
        raise JobError(error.reason) from error
    Source.objects.filter(pk=source.pk).update(pull_error="", pulled_at=timezone.now())
    return counts


def _pull_runs(source: Source, server: Server, running: Running) -> int:
    """New ends of runs since the last one read; how many were new."""
    ids = [str(item["experiment_id"]) for item in server.experiments() if item.get("experiment_id") is not None]
    since = int(source.watermark.get("end_time", 0))
    new = 0
    for batch in server.finished_runs(ids, since_ms=since):
        running.step(note=f"{new} new runs")
        now = timezone.now()
        with transaction.atomic():
            drafts = [_run_draft(value, source, now) for value in batch]
            new += sum(recorded.is_new for recorded in ledger.append(drafts))
            # End times are the clients' word: one far in the future must not hide what ends before it.
            ends = [end for end in (value["info"].get("end_time") for value in batch) if isinstance(end, int)]
            until = min(max(ends, default=since), int(now.timestamp() * 1000))
            Source.objects.filter(pk=source.pk).update(watermark={"end_time": max(since, until)})
    return new


def _run_draft(value: Mapping[str, Any], source: Source, now: datetime) -> Draft:
    tags = pairs((value.get("data") or {}).get("tags"))
    name = str(value["info"].get("user_id") or tags.get("mlflow.user") or "")
    actor = UNKNOWN
    if name and name.isprintable():
        known = accounts.actor_for_alias(source_id=source.pk, name=name[:512], type="user", now=now)
        actor = Actor(type="user", id=known.id, assurance=Assurance.CLAIMED)
    return mlflow.run_draft(value, actor=actor, source_id=source.pk, raw=_raw(value))


def _raw(value: Mapping[str, Any]) -> bytes:
    """What a pull received: the object in canonical form, numbers beyond its profile as text."""
    return encode(catalog.plain(value))


def _pull_registry(source: Source, server: Server, running: Running) -> dict[str, int]:
    """Models and versions, whole: new ones, changed ones, and those that are gone."""
    now = timezone.now()
    models = [item for item in server.registered_models() if mlflow.PROMPT_TAG not in pairs(item.get("tags"))]
    names = {str(item["name"]) for item in models}
    versions = [item for item in server.versions() if str(item.get("name")) in names]
    running.step(note=f"{len(models)} models, {len(versions)} versions")
    taken = [(take_model, value) for value in models] + [(take_version, value) for value in versions]
    new = changed = 0
    for take, value in taken:
        running.step()
        with transaction.atomic():
            drafts = take(value, source=source, raw=_raw(value), now=now)
            ledger.append(drafts)
        changes = sum(draft.action == "source.changed_object" for draft in drafts)
        new, changed = new + len(drafts) - changes, changed + changes
    gone = _note_gone(source, models, versions, now)
    return {"new": new, "changed": changed, "gone": gone}


def take_model(value: Mapping[str, Any], *, source: Source, raw: bytes, now: datetime) -> list[Draft]:
    """The model is in the catalog; the events of its creation and of what changed since it was last seen."""
    name = str(value["name"])
    catalog.model_named(name, now)
    is_known = catalog.has_snapshot(source=source.pk, type="registered_model", native_id=name)
    drafts = [] if is_known else [mlflow.model_draft(value, source_id=source.pk, raw=raw)]
    kept = {
        "description": value.get("description") or "",
        "tags": pairs(value.get("tags")),
        "aliases": {
            str(item.get("alias")): str(item.get("version"))
            for item in value.get("aliases") or []
            if isinstance(item, dict)
        },
    }
    if "aliases" not in value and "tags" not in value and "last_updated_timestamp" not in value:
        return drafts  # the delivery's own word, without what the server keeps
    return drafts + _changes(source, "registered_model", name, Subject("model", name), [name], kept, now)


def take_version(value: Mapping[str, Any], *, source: Source, raw: bytes, now: datetime) -> list[Draft]:
    """As `take_model`, for a version."""
    version, is_new = catalog.observe_mlflow_version(value, source=source.pk, now=now)
    drafts = [mlflow.version_draft(value, label=version.label, source_id=source.pk, raw=raw)] if is_new else []
    if "last_updated_timestamp" not in value:
        return drafts
    kept = {
        "description": value.get("description") or "",
        "tags": pairs(value.get("tags")),
        "stage": value.get("current_stage") or "",
        "artifact": value.get("source") or "",
        "run_id": value.get("run_id") or "",
        "status": value.get("status") or "",
    }
    subject = Subject("model_version", version.label)
    return drafts + _changes(source, "model_version", _native_id(value), subject, [version.model.name], kept, now)


def _native_id(value: Mapping[str, Any]) -> str:
    return f"{value['name']}:{value['version']}:{value.get('creation_timestamp')}"[:600]


def _changes(
    source: Source,
    kind: str,
    native_id: str,
    subject: Subject,
    models: list[str],
    kept: Mapping[str, Any],
    now: datetime,
) -> list[Draft]:
    found = catalog.observe_snapshot(source=source.pk, type=kind, native_id=native_id, value=kept, now=now)
    if found is None:
        return []
    # Texts may hold personal data, so the event names the fields; before and after stand by hash and in the catalog.
    return [
        mlflow.change_draft(
            subject=subject,
            models=models,
            source_id=source.pk,
            before=found.before_sha256,
            after=found.after_sha256,
            fields=list(found.changed),
            detail={},
            last_seen=found.last_seen,
            now=now,
        )
    ]


def _note_gone(source: Source, models: list[dict[str, Any]], versions: list[dict[str, Any]], now: datetime) -> int:
    """What the server no longer tells of was deleted between two pulls; MLflow itself keeps no trace of it."""
    count = 0
    present = {
        "registered_model": {str(item["name"]) for item in models},
        "model_version": {_native_id(item) for item in versions},
    }
    for kind, ids in present.items():
        with transaction.atomic():
            gone = catalog.mark_gone(source=source.pk, type=kind, present=ids)
            drafts = [
                mlflow.change_draft(
                    subject=_gone_subject(source, kind, snapshot.native_id),
                    models=[snapshot.native_id.split(":")[0] if kind == "model_version" else snapshot.native_id],
                    source_id=source.pk,
                    before=snapshot.sha256,
                    after="",
                    fields=["deleted"],
                    detail={"change": "deleted at the source"},
                    last_seen=snapshot.seen_at,
                    now=now,
                )
                for snapshot in gone
            ]
            if drafts:
                ledger.append(drafts)
            count += len(gone)
    return count


def _gone_subject(source: Source, kind: str, native_id: str) -> Subject:
    if kind == "registered_model":
        return Subject("model", native_id)
    name, native, created = native_id.rsplit(":", 2)
    known = Version.objects.filter(
        source=source.pk,
        kind=Version.Kind.MLFLOW,
        model__name=name,
        native_version=native,
        native_created=int(created) if created.isdigit() else None,
    ).first()
    return Subject("model_version", known.label if known else f"{name}:{native}")
