"""Celery's doorbells; each loads nothing, calls a service, and is safe to run twice."""

from __future__ import annotations

import logging

from celery import shared_task
from django.utils import timezone

from auditportal.ledger import sealing, verification

log = logging.getLogger("auditportal.security.ledger")


@shared_task(name="ledger.verify")
def verify() -> None:
    """The nightly verification of the whole log; what it finds shows on every page."""
    run = verification.verify_log(signer=sealing.default_signer(), now=timezone.now, progress=lambda *_: None)
    if run.failure:
        log.error("the log does not prove itself", extra={"failure": run.failure})
