"""Tags against our own history: moved, overtaken by a later push, and not answered about."""

from __future__ import annotations

import pytest
from django.db import transaction
from django.utils import timezone

from auditportal.catalog import services as catalog
from auditportal.reconciliation import queries
from auditportal.reconciliation.models import Check, Finding, Verdict
from tests.kits import REPOSITORY, SOURCE, observe
from tests.reconciliation.conftest import reconcile

TAG = "tag:0.2.0"


@pytest.fixture
def version(fake):
    with transaction.atomic():
        observe("0.1.0", now=timezone.now())
        return observe("0.2.0", now=timezone.now())


def move(fake):
    """The tag stands elsewhere at the registry, and nobody told of it."""
    here, other = fake.tags[REPOSITORY]["0.2.0"], fake.tags[REPOSITORY]["0.1.0"]
    fake.tags[REPOSITORY]["0.2.0"] = other
    return here, other


def test_tags_stand_among_what_a_run_read(fake, version):
    _, other = move(fake)
    job = reconcile()
    check = Check.objects.get(job=job, object=TAG)
    assert (check.verdict, check.found) == (Verdict.TAG_MOVED, other)
    assert queries.run_summary(job).bad == 1
    assert Check.objects.get(job=job, object="tag:0.1.0").verdict == Verdict.OK


def test_one_version_checked_again_has_its_tags_checked_too(fake, version):
    here, _ = move(fake)
    reconcile(version)
    assert Finding.objects.get().object == TAG
    fake.tags[REPOSITORY]["0.2.0"] = here
    job = reconcile(version)
    assert not Finding.objects.filter(closed_at=None).exists()
    assert not Check.objects.filter(job=job, object="tag:0.1.0").exists()  # another version's


def test_last_good_time_of_a_tag_is_when_it_last_stood_where_it_should(fake, version):
    job = reconcile()
    move(fake)
    reconcile()
    assert Finding.objects.get().last_good_at == Check.objects.get(job=job, object=TAG).at


def test_finding_of_a_tag_ends_when_its_later_push_is_known(fake, version):
    _, other = move(fake)
    reconcile()
    assert Finding.objects.get().is_open
    with transaction.atomic():  # as a notification that came late would
        catalog.observe_tag(source=SOURCE, repository=REPOSITORY, tag="0.2.0", digest=other, now=timezone.now())
    reconcile()
    assert not Finding.objects.get().is_open


def test_tag_nobody_answers_about_is_unreachable_and_opens_and_closes_nothing(fake, version):
    fake.fail("manifests/0.2.0", status=503)
    job = reconcile()
    assert Check.objects.get(job=job, object=TAG).verdict == Verdict.UNREACHABLE
    assert queries.run_summary(job).unreachable == 1
    assert not Finding.objects.exists()
    fake.faults.clear()
    move(fake)
    reconcile()
    fake.fail("manifests/0.2.0", status=503)
    reconcile()
    assert Finding.objects.get().is_open
