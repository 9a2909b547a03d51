from __future__ import annotations

from django.apps import AppConfig


class IngestConfig(AppConfig):
    name = "auditportal.ingest"
    label = "ingest"

    def ready(self) -> None:
        from auditportal.ingest import pulls  # noqa: PLC0415 -- models are there only now
        from auditportal.jobs import services as jobs  # noqa: PLC0415 -- as above

        jobs.register(pulls.KIND, pulls.run)
