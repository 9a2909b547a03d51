"""Registry against record: versions read whole, findings opened and closed, each transition an event."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from datetime import datetime
from typing import Any

from django.db import transaction
from django.db.models import QuerySet
from django.utils import timezone

from auditportal.catalog import queries as catalog_queries, services as catalog
from auditportal.catalog.models import Version
from auditportal.connectors.errors import ConnectorError, MissingError
from auditportal.connectors.oci import Registry
from auditportal.ingest import kits, sources
from auditportal.ingest.models import Source
from auditportal.jobs import services as jobs
from auditportal.jobs.errors import JobError
from auditportal.jobs.models import Job
from auditportal.jobs.services import Running
from auditportal.ledger import services as ledger
from auditportal.ledger.drafts import SYSTEM, UNKNOWN, Actor, Draft, Outcome, Related, Subject
from auditportal.reconciliation.examine import MANIFEST, Examiner, Result, overall
from auditportal.reconciliation.models import Check, Finding, Verdict

KIND = "reconcile"
EVERYTHING, NEW = "everything", "new versions"


@ledger.retried
@transaction.atomic
def request_run(*, actor: Actor, now: datetime, version: Version | None = None) -> Job:
    """A run over everything, or over one version, waits for a worker; that it was asked for is an event."""
    key = EVERYTHING if version is None else f"version:{version.pk}"
    before = Job.objects.filter(kind=KIND, key=key, state__in=Job.ACTIVE).first()
    if before is not None:
        return before
    parameters: dict[str, Any] = {"recorded": True} | ({"version": version.pk} if version else {})
    job = jobs.enqueue(kind=KIND, key=key, actor=actor, parameters=parameters)
    ledger.append([_job_draft("job.started", job, actor, now, version)])
    return job


@ledger.retried
@transaction.atomic
def cancel_run(*, job: Job, actor: Actor, now: datetime) -> bool:
    """The run stops at its next step, and who stopped it stands in the log. False when it had ended."""
    locked = Job.objects.select_for_update().get(pk=job.pk)
    if not locked.is_active:
        return False
    if not locked.cancel_asked:
        locked.parameters |= {"cancel_recorded": True}
        locked.save(update_fields=["parameters"])
        version = Version.objects.filter(pk=locked.parameters.get("version")).first()
        ledger.append([_job_draft("job.cancelled", locked, actor, now, version)])
        jobs.cancel(locked.pk)
    return True


def request_new() -> Job | None:
    """Versions that were never read whole are read now, without waiting for the night."""
    if not _never_read().exists():
        return None
    return jobs.enqueue(kind=KIND, key=NEW, actor=SYSTEM, parameters={"new": True})


def _never_read() -> QuerySet[Version]:
    return Version.objects.filter(kind=Version.Kind.MODELKIT, attempted_at=None)


def ended(job: Job) -> None:
    """That a run which somebody asked for has ended is an event too, with what it found."""
    if not job.parameters.get("recorded"):
        return
    version = Version.objects.filter(pk=job.parameters.get("version")).first()
    is_news = job.state == Job.State.CANCELLED and not job.parameters.get("cancel_recorded")
    action = "job.cancelled" if is_news else "job.finished"
    ledger.append([_job_draft(action, job, SYSTEM, timezone.now(), version)])


def _job_draft(action: str, job: Job, actor: Actor, now: datetime, version: Version | None) -> Draft:
    metadata: dict[str, Any] = {"kind": KIND, "scope": version.label if version else job.key}
    if not job.is_active:
        metadata |= {"result": job.result, "state": job.state}
    return Draft(
        action=action,
        actor=actor,
        subject=Subject("job", f"{KIND}-{job.pk}"),
        timestamp=now,
        outcome=Outcome.FAILED if job.state == Job.State.FAILED else Outcome.DONE,
        reason=job.error,
        related=[Related("model_version", version.label, "reconciles")] if version else [],
        metadata=metadata,
    )


def run(running: Running) -> Mapping[str, Any]:
    """Reads every version of the run's scope; goes on behind what an earlier attempt has read.

    Raises:
        JobError: a version that is gone from the catalog.
    """
    versions = _scope(running)
    done = set(Check.objects.filter(job_id=running.id).values_list("version_id", flat=True))
    off = set(Source.objects.filter(is_active=False).values_list("pk", flat=True))
    examiners: dict[str, Examiner] = {}
    counts: Counter[str] = Counter()
    for number, version in enumerate(versions):
        running.step(number, len(versions), version.label, now=True)
        if version.pk in done:
            continue
        examiner = examiners.get(version.source) or _examiner(version.source, running)
        examiners[version.source] = examiner
        results = [_not_asked(version)] if version.source in off else _examine(version, examiner)
        _store(running, version, results)
    if not running.parameters.get("new"):
        for source, repository in sorted({(version.source, version.repository) for version in versions}):
            if source in off:
                continue
            running.step(len(versions), len(versions), f"tags of {repository}", now=True)
            _check_tags(source, repository, running, {version.pk for version in versions})
    if running.key == EVERYTHING:
        _look_for_new(running)
    running.step(len(versions), len(versions), now=True)
    read = 0  # by all attempts together
    for verdict, size in Check.objects.filter(job_id=running.id).values_list("verdict", "bytes_read").iterator():
        counts[verdict] += 1
        read += size
    return {"versions": len(versions), "bytes": read, "verdicts": dict(sorted(counts.items()))}


def _scope(running: Running) -> list[Version]:
    known = Version.objects.filter(kind=Version.Kind.MODELKIT).select_related("model").order_by("pk")
    if "version" in running.parameters:
        found = list(known.filter(pk=running.parameters["version"]))
        if not found:
            raise JobError("this version is no ModelKit, or is gone from the catalog")
        return found
    if running.parameters.get("new"):
        started = Check.objects.filter(job_id=running.id).values("version_id")
        return list(known.filter(attempted_at=None) | known.filter(pk__in=started))
    return list(known)


def _examiner(source_id: str, running: Running) -> Examiner:
    return Examiner(_registry(source_id), beat=lambda _: running.step())


def _registry(source_id: str) -> Registry:
    source = Source.objects.filter(pk=source_id).first()
    if source is None:
        raise JobError(f"the source {source_id} is not configured")
    return sources.registry(source)


def _not_asked(version: Version) -> Result:
    """A source that is switched off is asked nothing: what it holds is unreachable, neither a match nor missing."""
    return Result(
        MANIFEST,
        "Manifest",
        Verdict.UNREACHABLE,
        expected=version.manifest_digest,
        found="not asked",
        detail="its source is switched off",
    )


def _examine(version: Version, examiner: Examiner) -> list[Result]:
    if version.manifest is None:
        _fetch_again(version, examiner.registry)
    titles = {version.config_digest: "Config"}
    for layer in catalog_queries.layers(version):
        titles[layer.digest] = f"{layer.kind}: {layer.name or layer.path or layer.media_type}"
    return list(examiner.examine(repository=version.repository, digest=version.manifest_digest, titles=titles))


def _fetch_again(version: Version, registry: Registry) -> None:
    """A version that could not be read when it was pushed is filled in at the next reading."""
    kit = kits.fetch(
        registry,
        source=version.source,
        repository=version.repository,
        reference=version.manifest_digest,
        digest=version.manifest_digest,
    )
    if kit.manifest is not None:
        with transaction.atomic():
            catalog.observe_kit(kit, tag="", now=timezone.now())


def _store(running: Running, version: Version, results: list[Result]) -> None:
    """Checks, the version's state and findings of one version: one transaction, so a killed run repeats no half."""
    now = timezone.now()
    state, note = overall(results)
    with transaction.atomic():
        locked = Version.objects.select_for_update(no_key=True).get(pk=version.pk)
        if Check.objects.filter(job_id=running.id, version=version).exclude(object__startswith="tag:").exists():
            return  # another worker has the run, and was here
        Check.objects.bulk_create(_check(running.id, version, result, now) for result in results)
        answered = all(result.verdict != Verdict.UNREACHABLE for result in results)
        catalog.note_check(locked, state=state, note=note, now=now, is_complete=answered)
        settle(locked, results, now=now)


def _check(job_id: int, version: Version, result: Result, now: datetime) -> Check:
    return Check(
        job_id=job_id,
        version=version,
        object=result.object,
        title=result.title[:512],
        verdict=result.verdict,
        expected=result.expected[:200],
        found=result.found[:200],
        detail=result.detail[:500],
        bytes_read=result.bytes_read,
        at=now,
    )


def settle(version: Version, results: Iterable[Result], *, now: datetime) -> None:
    """Findings follow the results: bad ones open, good ones close, unreachable ones change nothing.

    Inside the caller's transaction, as its last statements. One event for each transition, none while a state lasts.
    """
    # A signature holds the same lock: it stands in the log before the finding, or sees it.
    Version.objects.select_for_update(no_key=True).only("pk").get(pk=version.pk)
    drafts: list[Draft] = []
    opened: list[tuple[Finding, int]] = []
    closed: list[tuple[Finding, int]] = []
    is_open = {
        (finding.object, finding.kind): finding
        for finding in Finding.objects.select_for_update().filter(version=version, closed_at=None)
    }
    for result in results:
        if result.verdict == Verdict.UNREACHABLE:
            continue
        for (name, kind), finding in list(is_open.items()):
            if name == result.object and kind != result.verdict:
                closed.append((is_open.pop((name, kind)), len(drafts)))
                drafts.append(_finding_draft("finding.closed", version, finding, now))
        if result.verdict == Verdict.OK:
            continue
        known = is_open.get((result.object, result.verdict))
        if known is not None:
            known.last_seen_at = now
            known.save(update_fields=["last_seen_at"])
            continue
        finding = _open(version, result, now)
        opened.append((finding, len(drafts)))
        drafts.append(_finding_draft("finding.opened", version, finding, now))
    for finding, _ in closed:
        finding.closed_at = now
        finding.save(update_fields=["closed_at"])
    if not drafts:
        return
    places = ledger.append(drafts)
    for finding, index in opened:
        Finding.objects.filter(pk=finding.pk).update(opened_seq=places[index].seq)
    for finding, index in closed:
        Finding.objects.filter(pk=finding.pk).update(closed_seq=places[index].seq)


def _open(version: Version, result: Result, now: datetime) -> Finding:
    good = Check.objects.filter(version=version, object=result.object, verdict=Verdict.OK).order_by("-at").first()
    return Finding.objects.create(
        version=version,
        object=result.object,
        title=result.title[:512],
        kind=result.verdict,
        expected=result.expected[:200],
        found=result.found[:200],
        detail=result.detail[:500],
        opened_at=now,
        last_seen_at=now,
        last_good_at=good.at if good else None,
    )


def _finding_draft(action: str, version: Version, finding: Finding, now: datetime) -> Draft:
    return Draft(
        action=action,
        actor=SYSTEM,
        subject=Subject("model_version", version.label),
        timestamp=now,
        metadata={
            "finding": finding.pk,
            "kind": finding.kind,
            "object": finding.object,
            "expected": finding.expected,
            "found": finding.found,
            "source": version.source,
            "repository": version.repository,
        },
    )


def _check_tags(source: str, repository: str, running: Running, scope: set[int]) -> None:
    """Each tag against our own history; without a push that we saw, a tag that moved is a finding."""
    registry = _registry(source)
    versions = Version.objects.filter(source=source, repository=repository, kind=Version.Kind.MODELKIT)
    by_digest = {version.manifest_digest: version for version in versions.defer("manifest", "config", "card")}
    standing: set[tuple[int, str]] = set()
    for tag in catalog_queries.current_tags(source, repository):
        version = by_digest.get(tag.digest)
        if version is None:
            continue
        standing.add((version.pk, f"tag:{tag.tag}"))
        if version.pk not in scope:
            continue
        running.step()
        result = _tag_result(registry, repository, tag.tag, tag.digest)
        now = timezone.now()
        with transaction.atomic():
            Check.objects.bulk_create([_check(running.id, version, result, now)], ignore_conflicts=True)
            settle(version, [result], now=now)
    _close_overtaken(source, repository, standing)


def _close_overtaken(source: str, repository: str, standing: set[tuple[int, str]]) -> None:
    """A tag whose later push we saw is expected elsewhere now: what was found about it before holds nothing back."""
    found = Finding.objects.filter(
        version__source=source, version__repository=repository, object__startswith="tag:", closed_at=None
    ).select_related("version")
    for finding in found:
        if (finding.version_id, finding.object) not in standing:
            with transaction.atomic():
                settle(finding.version, [Result(finding.object, finding.title, Verdict.OK)], now=timezone.now())


def _tag_result(registry: Registry, repository: str, tag: str, digest: str) -> Result:
    name, title = f"tag:{tag}", f"Tag {tag}"
    try:
        found = registry.manifest(repository, tag).digest
    except MissingError as error:
        return Result(name, title, Verdict.TAG_DELETED, digest, "not there", error.reason)
    except ConnectorError as error:
        return Result(name, title, Verdict.UNREACHABLE, digest, "no usable answer", error.reason)
    verdict = Verdict.OK if found == digest else Verdict.TAG_MOVED
    return Result(name, title, verdict, digest, found)


def _look_for_new(running: Running) -> None:
    """What stands in a registry and never reached us: its notification was lost, or never sent."""
    for source in Source.objects.filter(kind=Source.Kind.OCI, is_active=True):
        registry = sources.registry(source)
        known = set(
            Version.objects.filter(source=source.pk, kind=Version.Kind.MODELKIT).values_list("repository", flat=True)
        )
        for repository in sorted(known | set(source.repositories)):
            running.step(note=f"tags of {repository}", now=True)
            try:
                tags = registry.tags(repository)
            except ConnectorError:
                continue  # unreachable opens and closes nothing; the versions' own checks say it
            seen = {item.tag for item in catalog_queries.current_tags(source.pk, repository)}
            for tag in tags:
                if tag not in seen and not catalog.is_signature(tag):
                    _record_found(source.pk, repository, tag, registry)


def _record_found(source: str, repository: str, tag: str, registry: Registry) -> None:
    """A tag nobody told of: it, or the version behind it, is recorded as observed, with an unknown actor."""
    now = timezone.now()
    kit = kits.fetch(registry, source=source, repository=repository, reference=tag)
    if kit.manifest is None:
        return
    with transaction.atomic():
        version, is_new = catalog.observe_kit(kit, tag=tag, now=now)
        catalog.observe_tag(source=source, repository=repository, tag=tag, digest=kit.digest, now=now)
        metadata = {
            "tag": tag,
            "repository": repository,
            "source": source,
            "state": "manifest checked",
            "found_by": "reconciliation: no notification told of it",
            "digests": [{"kind": "oci_manifest", "sha256": kit.digest.removeprefix("sha256:")}],
        }
        related = [Related("run", version.run_id, "packed from, as the Kitfile says")] if version.run_id else []
        ledger.append(
            [
                Draft(
                    action="package" if is_new else "tag.set",
                    actor=UNKNOWN,
                    subject=Subject("model_version", version.label),
                    timestamp=now,
                    timestamp_kind="observed",
                    related=related,
                    metadata=metadata,
                )
            ]
        )
