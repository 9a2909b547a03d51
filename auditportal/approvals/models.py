from __future__ import annotations

import uuid

from django.conf import settings
from django.db import models

from auditportal.catalog.models import Version


class Promotion(models.Model):
    """A request to bring a version into an environment, with all that its signatures will cover."""

    class State(models.TextChoices):
        OPEN = "open"
        PROMOTED = "promoted"
        REJECTED = "rejected"
        WITHDRAWN = "withdrawn"

    id = models.UUIDField(primary_key=True, default=uuid.uuid4)
    version = models.ForeignKey(Version, on_delete=models.PROTECT, related_name="promotions")
    environment = models.CharField(max_length=64)
    reason = models.TextField()
    requested_by = models.ForeignKey(settings.AUTH_USER_MODEL, on_delete=models.PROTECT, related_name="+")
    manifest_digest = models.CharField(max_length=71)
    state = models.CharField(max_length=10, choices=State.choices, default=State.OPEN)
    created_at = models.DateTimeField()
    decided_at = models.DateTimeField(null=True)
    seq = models.BigIntegerField(null=True)  # of the event that asked
    decided_seq = models.BigIntegerField(null=True)  # of the event that ended it

    class Meta:
        constraints = [
            models.UniqueConstraint(
                fields=["version", "environment"], condition=models.Q(state="open"), name="one_open_request"
            )
        ]
        indexes = [models.Index(fields=["state", "-created_at"], name="promotions_by_state")]

    @property
    def is_open(self) -> bool:
        return self.state == self.State.OPEN


class Decision(models.Model):
    """One signature. `statement` holds the exact bytes that were signed (FORMAT.md §6)."""

    class Intent(models.TextChoices):
        APPROVE = "approve"
        REJECT = "reject"

    promotion = models.ForeignKey(Promotion, on_delete=models.PROTECT, related_name="decisions")
    intent = models.CharField(max_length=10, choices=Intent.choices)
    signer = models.ForeignKey(settings.AUTH_USER_MODEL, on_delete=models.PROTECT, related_name="+")
    role = models.CharField(max_length=16)  # held when signing
    meaning = models.CharField(max_length=100)
    comment = models.TextField(blank=True)
    statement = models.BinaryField()
    printed_name = models.CharField(max_length=200)  # with the salt it opens the sealed name in the statement
    name_salt = models.BinaryField(max_length=16)
    policy_digest = models.CharField(max_length=71)
    evidence_digest = models.CharField(max_length=71)
    at = models.DateTimeField()
    seq = models.BigIntegerField(null=True, unique=True)

    class Meta:
        constraints = [
            models.UniqueConstraint(
                fields=["promotion", "signer", "evidence_digest", "policy_digest"], name="one_signature_a_person"
            )
        ]
