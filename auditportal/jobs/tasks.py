from __future__ import annotations

from celery import shared_task

from auditportal.jobs import services


@shared_task(name="jobs.ring")
def ring() -> None:
    services.run_due()
