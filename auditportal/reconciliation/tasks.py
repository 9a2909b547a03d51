from __future__ import annotations

from celery import shared_task
from django.utils import timezone

from auditportal.ledger.drafts import SYSTEM
from auditportal.reconciliation import services


@shared_task(name="reconciliation.nightly")
def nightly() -> None:
    services.request_run(actor=SYSTEM, now=timezone.now())


@shared_task(name="reconciliation.check_new")
def check_new() -> None:
    services.request_new()
