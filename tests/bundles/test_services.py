"""The real job over a real log: built, verified by ourselves, issued, cancelled, resumed."""

from __future__ import annotations

from auditportal.bundles.models import Bundle
from auditproof import verdicts
from tests.bundles.conftest import live, make_version, reject, verify


def test_job_builds_a_bundle_that_an_auditor_can_verify(world):
    live()
    reject(make_version(), world.people)
    bundle = world.build()
    assert bundle.job.error == ""
    assert bundle.state == Bundle.State.READY
    result = verify(world.path(bundle), world.trust())
    assert [check for check in result.checks if check.error] == []
    assert result.verdict == verdicts.RELATIVE
    assert result.digest == bundle.digest
