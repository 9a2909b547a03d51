"""Registry against record, over a registry that really answers, and misbehaves when told to."""

from __future__ import annotations

from datetime import timedelta

import pytest
from django.db import transaction
from django.utils import timezone

from auditportal.catalog.models import TagObservation, Version
from auditportal.ingest import sources
from auditportal.ingest.models import Source
from auditportal.jobs import services as jobs
from auditportal.jobs.models import Job
from auditportal.ledger import queries as ledger
from auditportal.ledger.drafts import SYSTEM
from auditportal.reconciliation import queries, services
from auditportal.reconciliation.models import Check, Finding, Verdict
from tests.kits import REPOSITORY, observe
from tests.reconciliation.conftest import reconcile

DATASET = "sha256:bd8d72eda741595adc586c07a8c880c784b64f0abf2cd9e957a5c160bcea54b0"  # of 0.2.0


@pytest.fixture
def version(fake):
    with transaction.atomic():
        return observe("0.2.0", now=timezone.now())


def bodies(seal, action):
    size = seal()
    return [event.body for event in ledger.recorded(list(range(size))) if event.body and event.body["action"] == action]


def test_good_version_is_read_whole_and_checked(version, seal):
    job = reconcile()
    version.refresh_from_db()
    assert (version.check_state, version.check_note) == ("checked", "")
    assert version.checked_at == version.attempted_at
    checks = {check.object: check for check in Check.objects.filter(job=job)}
    assert {check.verdict for check in checks.values()} == {"ok"}
    assert len(checks) == 1 + 1 + 3 + 1  # manifest, config, three layers, the tag
    sizes = {layer.digest: layer.size for layer in version.layers.all()}
    assert {name: check.bytes_read for name, check in checks.items() if name in sizes} == sizes
    assert job.result["verdicts"] == {"ok": 6}
    assert [body["metadata"].get("result", {}).get("versions") for body in bodies(seal, "job.finished")] == [1]
    assert queries.open_findings(most=5) == []


@pytest.mark.parametrize(
    ("how", "verdict", "state"),
    [
        ({"body": b"x" * 178}, Verdict.DIGEST_MISMATCH, "mismatch"),
        ({"body": b"x" * 100}, Verdict.SIZE_MISMATCH, "mismatch"),
        ({"body": b"x" * 5000}, Verdict.SIZE_MISMATCH, "mismatch"),
        ({"endless": True}, Verdict.SIZE_MISMATCH, "mismatch"),
        ({"close_after": 50}, Verdict.TRUNCATED, "truncated"),
        ({"close_after": 0}, Verdict.TRUNCATED, "truncated"),
        ({"status": 500}, Verdict.UNREACHABLE, "unreachable"),
        ({"status": 429}, Verdict.UNREACHABLE, "unreachable"),
        ({"status": 403}, Verdict.UNREACHABLE, "unreachable"),
        ({"status": 404, "body": b"<html>not here</html>"}, Verdict.UNREACHABLE, "unreachable"),
        ({"status": 307, "headers": {"Location": "http://127.0.0.2:9/x"}}, Verdict.UNREACHABLE, "unreachable"),
        (
            {"status": 404, "body": b'{"errors": [{"code": "BLOB_UNKNOWN", "message": "gone"}]}'},
            Verdict.MISSING_BLOB,
            "missing",
        ),
    ],
)  # fmt: skip
def test_each_damage_has_its_verdict_and_only_real_ones_open_a_finding(fake, version, how, verdict, state):
    fake.fail(DATASET, **how)
    reconcile()
    version.refresh_from_db()
    assert version.check_state == state
    assert Check.objects.get(object=DATASET).verdict == verdict
    assert set(Check.objects.exclude(object=DATASET).values_list("verdict", flat=True)) == {"ok"}
    found = list(Finding.objects.values_list("object", "kind"))
    assert found == ([] if verdict == Verdict.UNREACHABLE else [(DATASET, verdict)])
    assert (version.checked_at is None) == (verdict == Verdict.UNREACHABLE)


def test_finding_opens_once_lasts_and_closes_once(fake, version, seal):
    reconcile()
    fault = fake.fail(DATASET, body=b"x" * 178)
    reconcile()
    reconcile()
    [finding] = Finding.objects.all()
    assert finding.is_open
    assert finding.last_good_at is not None
    assert finding.last_seen_at > finding.opened_at
    fake.faults.remove(fault)
    reconcile()
    finding = Finding.objects.get()
    assert finding.closed_at is not None
    opened, closed = bodies(seal, "finding.opened"), bodies(seal, "finding.closed")
    assert len(opened) == len(closed) == 1
    assert opened[0]["subject"] == {"type": "model_version", "id": version.label}
    assert opened[0]["metadata"]["expected"] == DATASET
    [first] = ledger.recorded([finding.opened_seq])
    assert first.body == opened[0]
    [last] = ledger.recorded([finding.closed_seq])
    assert last.body == closed[0]


def test_unreachable_closes_nothing_and_its_age_stays(fake, version):
    fake.fail(DATASET, body=b"x" * 178)
    reconcile()
    version.refresh_from_db()
    read = version.checked_at
    fake.faults.clear()
    fake.fail("", status=503)
    reconcile()
    version.refresh_from_db()
    assert version.check_state == "unreachable"
    assert version.checked_at == read
    assert version.attempted_at > read
    assert Finding.objects.get().is_open


def test_one_kind_of_damage_turning_into_another_closes_the_first(fake, version, seal):
    fault = fake.fail(DATASET, body=b"x" * 178)
    reconcile()
    fake.faults.remove(fault)
    del fake.blobs[REPOSITORY][DATASET]
    reconcile()
    assert [(finding.kind, finding.is_open) for finding in Finding.objects.order_by("id")] == [
        ("digest mismatch", False),
        ("missing blob", True),
    ]


def test_manifest_that_lies_or_is_gone(fake, version):
    fake.fail(f"manifests/{version.manifest_digest}", body=b'{"layers": []}')
    reconcile()
    assert Finding.objects.get().kind == Verdict.DIGEST_MISMATCH
    fake.faults.clear()
    del fake.manifests[REPOSITORY][version.manifest_digest]
    reconcile(version)
    assert Finding.objects.get(closed_at=None, object="manifest").kind == Verdict.MISSING_MANIFEST
    version.refresh_from_db()
    assert version.check_state == "missing"


def test_each_distinct_blob_is_fetched_once_a_run(fake, version):
    with transaction.atomic():
        observe("0.1.0", now=timezone.now())
    reconcile()
    shared = [layer.digest for layer in Version.objects.get(name="0.1.0").layers.filter(kind="Code")]
    assert len(fake.asked(f"blobs/{shared[0]}")) == 1
    assert Check.objects.filter(object=shared[0], verdict="ok").count() == 2


def test_killed_run_goes_on_behind_what_was_read(fake, version, monkeypatch):
    with transaction.atomic():
        observe("0.1.0", now=timezone.now())
    job = services.request_run(actor=SYSTEM, now=timezone.now())
    original = services._store
    stored: list[str] = []

    def killed(running, read, results):
        if stored:
            raise SystemExit  # as a signal would end the worker: nothing after it runs
        original(running, read, results)
        stored.append(read.label)

    monkeypatch.setattr(services, "_store", killed)
    with pytest.raises(SystemExit):
        jobs.run_due()
    monkeypatch.setattr(services, "_store", original)
    Job.objects.filter(pk=job.pk).update(lease_until=timezone.now() - timedelta(seconds=1))
    before = len(fake.asked(f"manifests/{version.manifest_digest}"))
    jobs.run_due()
    job.refresh_from_db()
    assert (job.state, job.attempts) == (Job.State.DONE, 2)
    assert Check.objects.filter(job=job).values("version").distinct().count() == 2
    assert stored == [version.label]
    assert len(fake.asked(f"manifests/{version.manifest_digest}")) == before


def test_cancelled_run_stops_and_says_so(fake, version, seal):
    job = services.request_run(actor=SYSTEM, now=timezone.now())
    assert jobs.cancel(job.pk)
    jobs.run_due()
    assert not Check.objects.exists()
    assert len(bodies(seal, "job.cancelled")) == 1


def test_asking_twice_is_one_run(fake, version):
    first = services.request_run(actor=SYSTEM, now=timezone.now())
    assert services.request_run(actor=SYSTEM, now=timezone.now()) == first


def test_moved_and_deleted_tags_are_findings_until_they_are_back(fake, version):
    other = fake.tags[REPOSITORY]["0.1.0"]
    with transaction.atomic():
        observe("0.1.0", now=timezone.now())
    fake.tags[REPOSITORY]["0.2.0"] = other
    reconcile()
    finding = Finding.objects.get()
    assert (finding.object, finding.kind, finding.found) == ("tag:0.2.0", Verdict.TAG_MOVED, other)
    del fake.tags[REPOSITORY]["0.2.0"]
    reconcile()
    assert Finding.objects.get(closed_at=None).kind == Verdict.TAG_DELETED
    fake.tags[REPOSITORY]["0.2.0"] = version.manifest_digest
    reconcile()
    assert not Finding.objects.filter(closed_at=None).exists()


def test_what_was_never_told_of_is_found_and_recorded_as_observed(fake, version, seal):
    reconcile()
    found = Version.objects.get(name="0.1.0")
    assert found.repository == REPOSITORY
    [body] = [body for body in bodies(seal, "package") if body["subject"]["id"] == found.label]
    assert (body["timestamp_kind"], body["actor"]["type"]) == ("observed", "unknown")
    assert [body["metadata"]["tag"] for body in bodies(seal, "tag.set")] == ["latest"]
    assert TagObservation.objects.filter(tag="0.1.0").count() == 1
    reconcile()
    assert len(bodies(seal, "package")) == len(bodies(seal, "tag.set")) == 1
    found.refresh_from_db()
    assert found.check_state == "checked"


def test_version_that_could_not_be_read_when_pushed_is_filled_in(fake):
    from auditportal.catalog import services as catalog
    from tests.kits import recorded

    whole = recorded("0.2.0")
    told = catalog.ObservedKit(
        source=whole.source, repository=whole.repository, digest=whole.digest, manifest=None, config=None, kit=None,
        state="unreachable", note="answered 503",
    )  # fmt: skip
    with transaction.atomic():
        version, _ = catalog.observe_kit(told, tag="0.2.0", now=timezone.now())
    services.request_new()
    jobs.run_due()
    version.refresh_from_db()
    assert version.check_state == "checked"
    assert version.layers.count() == 3
    assert services.request_new() is None


def test_source_that_is_not_configured_fails_the_job_and_changes_nothing(committed, seal):
    with transaction.atomic():
        observe("0.2.0", now=timezone.now())
    job = services.request_run(actor=SYSTEM, now=timezone.now())
    jobs.run_due()
    job.refresh_from_db()
    assert (job.state, job.error) == (Job.State.FAILED, "the source registry is not configured")
    assert Version.objects.get().check_state == "reported only"
    assert [body["outcome"] for body in bodies(seal, "job.finished")] == ["failed"]


def test_source_that_is_switched_off_is_asked_nothing(fake, version):
    sources.set_active(source=Source.objects.get(), is_active=False, reason="moves", actor=SYSTEM, now=timezone.now())
    reconcile()
    assert fake.requests == []
    version.refresh_from_db()
    assert (version.check_state, version.check_note) == ("unreachable", "Manifest: its source is switched off")
    assert version.checked_at is None
    assert not Finding.objects.exists()


def test_run_that_was_taken_over_goes_on_and_counts_every_byte(fake, version, monkeypatch):
    """The worker that lost the job stores one version, late; the one that has it now meets its checks."""
    job = services.request_run(actor=SYSTEM, now=timezone.now())
    stored = services._store

    def twice(running, *given):
        stored(running, *given)
        stored(running, *given)

    monkeypatch.setattr(services, "_store", twice)
    jobs.run_due()
    job.refresh_from_db()
    assert (job.state, job.error) == (Job.State.DONE, "")
    assert job.result["bytes"] == sum(Check.objects.filter(job=job).values_list("bytes_read", flat=True)) > 0


def test_bytes_of_an_earlier_attempt_are_counted(version):
    job = services.request_run(actor=SYSTEM, now=timezone.now())
    Check.objects.create(job=job, version=version, object="manifest", title="Manifest", verdict="ok", bytes_read=7,
                         at=timezone.now())  # fmt: skip
    jobs.run_due()
    job.refresh_from_db()
    assert job.result["bytes"] == 7


def test_page_of_checks_is_bounded_and_says_what_it_leaves_out(version):
    job = services.request_run(actor=SYSTEM, now=timezone.now())
    for verdict, count in ((Verdict.MISSING_BLOB, 3), (Verdict.UNREACHABLE, 2), (Verdict.OK, 4)):
        Check.objects.bulk_create(
            Check(job=job, version=version, object=f"{verdict} {n}", title="x", verdict=verdict, at=timezone.now())
            for n in range(count)
        )
    read = queries.checks(job, most=4)
    assert [check.verdict for check in read.apart] == ["missing blob"] * 3 + ["unreachable"]
    assert (len(read.matched), read.apart_left_out, read.matched_left_out) == (4, 1, 0)
