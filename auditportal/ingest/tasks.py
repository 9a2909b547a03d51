from __future__ import annotations

from celery import shared_task

from auditportal.ingest import deliveries, pulls


@shared_task(name="ingest.process_deliveries")
def process_deliveries() -> None:
    deliveries.process_waiting()


@shared_task(name="ingest.pull_sources")
def pull_sources() -> None:
    pulls.request_all()


@shared_task(name="ingest.sweep_sources")
def sweep_sources() -> None:
    pulls.request_all(is_full=True)
