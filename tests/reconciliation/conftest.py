"""A registry that answers, as the source of recorded versions; and runs of the real job over it."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from django.utils import timezone

from auditportal.catalog.models import Version
from auditportal.ingest import sources
from auditportal.ingest.models import Source
from auditportal.jobs import services as jobs
from auditportal.jobs.models import Job
from auditportal.ledger.drafts import SYSTEM
from auditportal.reconciliation import services
from tests.fakes.registry import FakeRegistry, serving
from tests.kits import SOURCE


@pytest.fixture
def fake(committed: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeRegistry]:
    monkeypatch.setattr("auditportal.connectors.oci.PAUSE_S", 0.0)
    with serving() as registry:
        sources.register(id=SOURCE, kind=Source.Kind.OCI, url=registry.url, actor=SYSTEM, now=timezone.now())
        yield registry


def reconcile(version: Version | None = None) -> Job:
    """A run over everything, or over one version, that went through."""
    job = services.request_run(actor=SYSTEM, now=timezone.now(), version=version)
    jobs.run_due()
    job.refresh_from_db()
    assert job.state == Job.State.DONE, job.error
    return job
