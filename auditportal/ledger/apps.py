from __future__ import annotations

from django.apps import AppConfig


class LedgerConfig(AppConfig):
    name = "auditportal.ledger"
    label = "ledger"

    def ready(self) -> None:
        # Binds @shared_task in web processes; the package's __init__ must stay empty.
        import auditportal.celery  # noqa: F401, PLC0415 -- imported for that effect, once the apps are ready
