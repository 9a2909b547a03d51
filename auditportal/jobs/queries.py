from __future__ import annotations

from auditportal.jobs.models import Job


def latest(kind: str, most: int) -> list[Job]:
    return list(Job.objects.filter(kind=kind).order_by("-id")[:most])


def active(kind: str) -> list[Job]:
    return list(Job.objects.filter(kind=kind, state__in=Job.ACTIVE).order_by("id"))


def find(job_id: int, kind: str) -> Job | None:
    return Job.objects.filter(pk=job_id, kind=kind).first()
