from __future__ import annotations

from django.db import models


class Job(models.Model):
    """One piece of long work. Celery only rings; what is to be done, and how far it is, stands here."""

    class State(models.TextChoices):
        QUEUED = "queued"
        RUNNING = "running"
        DONE = "done"
        FAILED = "failed"
        CANCELLED = "cancelled"

    ACTIVE = (State.QUEUED, State.RUNNING)

    kind = models.CharField(max_length=50)
    key = models.CharField(max_length=200)  # what it is about; one active job for each
    parameters = models.JSONField(default=dict)
    state = models.CharField(max_length=10, choices=State.choices, default=State.QUEUED)
    done = models.BigIntegerField(default=0)
    total = models.BigIntegerField(default=0)  # 0 while nobody knows
    note = models.CharField(max_length=300, default="")
    requested_by = models.CharField(max_length=64)  # a pseudonym, or `system`
    requested_type = models.CharField(max_length=16)
    created_at = models.DateTimeField()
    started_at = models.DateTimeField(null=True)
    finished_at = models.DateTimeField(null=True)
    lease_until = models.DateTimeField(null=True)
    attempts = models.IntegerField(default=0)  # also the fence: a worker that lost its lease writes nothing more
    cancel_asked = models.BooleanField(default=False)
    error = models.CharField(max_length=500, default="")
    result = models.JSONField(default=dict)

    class Meta:
        constraints = [
            models.UniqueConstraint(
                fields=["kind", "key"], condition=models.Q(state__in=["queued", "running"]), name="one_active_job"
            )
        ]
        indexes = [models.Index(fields=["kind", "-id"], name="jobs_of_a_kind")]

    def __str__(self) -> str:
        return f"{self.kind} {self.key}"

    @property
    def is_active(self) -> bool:
        return self.state in self.ACTIVE

    @property
    def percent(self) -> int:
        return min(100, 100 * self.done // self.total) if self.total else 0
