from __future__ import annotations

from django.db import models


class Source(models.Model):
    """A system we listen to and ask. Its id stands in events as `source.id`."""

    class Kind(models.TextChoices):
        OCI = "oci", "OCI registry"
        MLFLOW = "mlflow", "MLflow server"

    id = models.CharField(primary_key=True, max_length=100)
    kind = models.CharField(max_length=10, choices=Kind.choices)
    url = models.URLField(max_length=300)
    hosts = models.JSONField(default=list)  # further `host:port` that redirects and token realms may lead to
    repositories = models.JSONField(default=list)  # registries only: what is asked for besides what pushes name
    username = models.CharField(max_length=200, blank=True)
    password = models.BinaryField(default=b"")  # encrypted, as all secrets here
    hook_secret = models.BinaryField(default=b"")  # MLflow: what its deliveries are signed with
    is_active = models.BooleanField(default=True)
    created_at = models.DateTimeField()
    pulled_at = models.DateTimeField(null=True)  # the last pull that went through
    pull_error = models.CharField(max_length=500, default="")
    watermark = models.JSONField(default=dict)  # MLflow: the end time up to which runs were read

    def __str__(self) -> str:
        return self.id


class Delivery(models.Model):
    """A webhook as it arrived. Stored before it is answered; a hint until it was checked at the source."""

    class State(models.TextChoices):
        WAITING = "waiting"
        RECORDED = "recorded"  # events came of it
        NOTED = "noted"  # understood, and nothing to record: our own pulls, blobs, signatures
        TEST = "test received"
        UNKNOWN = "not understood"

    source = models.ForeignKey(Source, on_delete=models.PROTECT, null=True, related_name="deliveries")
    kind = models.CharField(max_length=10)
    native_id = models.CharField(max_length=100, default="")  # the sender's own id; a repeated delivery is one
    headers = models.JSONField(default=dict)
    body = models.BinaryField()
    received_at = models.DateTimeField()
    state = models.CharField(max_length=16, choices=State.choices, default=State.WAITING)
    note = models.CharField(max_length=500, default="")
    attempts = models.IntegerField(default=0)
    next_attempt_at = models.DateTimeField()
    processed_at = models.DateTimeField(null=True)
    events = models.JSONField(default=list)  # seqs of what was recorded

    class Meta:
        constraints = [
            models.UniqueConstraint(
                fields=["kind", "source", "native_id"],
                condition=~models.Q(native_id=""),
                name="one_delivery_per_native_id",
            )
        ]
        indexes = [
            models.Index(fields=["next_attempt_at"], condition=models.Q(state="waiting"), name="deliveries_waiting"),
            models.Index(fields=["-id"], name="deliveries_newest_first"),
            models.Index(fields=["source", "-id"], name="deliveries_of_a_source"),
            models.Index(
                fields=["source", "-id"], condition=models.Q(state="not understood"), name="deliveries_not_understood"
            ),
        ]
