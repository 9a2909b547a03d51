from __future__ import annotations

import uuid

from django.conf import settings
from django.db import models

from auditportal.catalog.models import Model
from auditportal.jobs.models import Job


class Bundle(models.Model):
    """An audit bundle of one model: whom it was made for, from what, and what came of it.

    Map, checkpoint and artifacts are settled before building begins, so that a build that was killed is repeated with
    the same result.
    """

    class State(models.TextChoices):
        BUILDING = "building"
        READY = "ready"
        FAILED = "failed"
        CANCELLED = "cancelled"

    id = models.UUIDField(primary_key=True, default=uuid.uuid4)
    model = models.ForeignKey(Model, on_delete=models.PROTECT, related_name="bundles")
    recipient = models.CharField(max_length=200)
    purpose = models.CharField(max_length=500)
    known_size = models.BigIntegerField(null=True)  # of a checkpoint that the recipient kept
    requested_by = models.ForeignKey(settings.AUTH_USER_MODEL, on_delete=models.PROTECT, related_name="+")
    requested_at = models.DateTimeField()
    requested_seq = models.BigIntegerField(null=True)
    job = models.ForeignKey(Job, on_delete=models.PROTECT, null=True, related_name="+")
    state = models.CharField(max_length=10, choices=State.choices, default=State.BUILDING)
    cancelled_by = models.CharField(max_length=64, default="")  # pseudonym of who asked to stop
    map_size = models.BigIntegerField(null=True)
    map_seq = models.BigIntegerField(null=True)
    map_root = models.BinaryField(null=True)
    proofs = models.JSONField(default=list)  # completeness.json's entries, made when the map was
    artifacts = models.JSONField(default=list)  # bundle.json's, as the catalog had them when the map was made
    checkpoint_size = models.BigIntegerField(null=True)
    digest = models.CharField(max_length=64, default="")  # of the tag manifest: the bundle's identity
    size_bytes = models.BigIntegerField(default=0)
    events = models.BigIntegerField(default=0)
    issued_at = models.DateTimeField(null=True)
    issued_seq = models.BigIntegerField(null=True)

    class Meta:
        indexes = [models.Index("requested_at", name="bundles_by_time")]

    @property
    def file_name(self) -> str:
        return f"bundle-{self.pk}.zip"

    @property
    def is_ready(self) -> bool:
        return self.state == self.State.READY

    @property
    def is_building(self) -> bool:
        return self.state == self.State.BUILDING
