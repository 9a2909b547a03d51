from __future__ import annotations

from django.db import models

from auditportal.catalog.models import Version
from auditportal.jobs.models import Job


class Verdict(models.TextChoices):
    """What reading one object found. Unreachable is neither a match nor missing."""

    OK = "ok"
    MISSING_MANIFEST = "missing manifest"
    MISSING_BLOB = "missing blob"
    DIGEST_MISMATCH = "digest mismatch"
    SIZE_MISMATCH = "size mismatch"
    TRUNCATED = "truncated"
    TAG_MOVED = "tag moved"
    TAG_DELETED = "tag deleted"
    UNREACHABLE = "unreachable"


class Check(models.Model):
    """One object read in one run. A killed run goes on behind the versions that have their checks."""

    job = models.ForeignKey(Job, on_delete=models.CASCADE, related_name="checks")
    version = models.ForeignKey(Version, on_delete=models.CASCADE, related_name="checks")
    object = models.CharField(max_length=200)  # `manifest`, a blob's digest, or `tag:` and its name
    title = models.CharField(max_length=512)
    verdict = models.CharField(max_length=20, choices=Verdict.choices)
    expected = models.CharField(max_length=200, default="")
    found = models.CharField(max_length=200, default="")
    detail = models.CharField(max_length=500, default="")
    bytes_read = models.BigIntegerField(default=0)
    at = models.DateTimeField()

    class Meta:
        constraints = [models.UniqueConstraint(fields=["job", "version", "object"], name="one_check_a_run")]


class Finding(models.Model):
    """A mismatch between record and registry: opened and closed with an event each, and a hold on promotion between."""

    version = models.ForeignKey(Version, on_delete=models.PROTECT, related_name="findings")
    object = models.CharField(max_length=200)
    title = models.CharField(max_length=512)
    kind = models.CharField(max_length=20, choices=Verdict.choices)
    expected = models.CharField(max_length=200, default="")
    found = models.CharField(max_length=200, default="")
    detail = models.CharField(max_length=500, default="")
    opened_at = models.DateTimeField()
    opened_seq = models.BigIntegerField(null=True)
    last_seen_at = models.DateTimeField()
    last_good_at = models.DateTimeField(null=True)  # the last time this object was read and matched
    closed_at = models.DateTimeField(null=True)
    closed_seq = models.BigIntegerField(null=True)

    class Meta:
        constraints = [
            models.UniqueConstraint(
                fields=["version", "object", "kind"],
                condition=models.Q(closed_at=None),
                name="one_open_finding_per_object",
            )
        ]

    @property
    def is_open(self) -> bool:
        return self.closed_at is None
