from __future__ import annotations

from django.apps import AppConfig


class ReconciliationConfig(AppConfig):
    name = "auditportal.reconciliation"
    label = "reconciliation"
