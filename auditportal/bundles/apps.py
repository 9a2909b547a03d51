from __future__ import annotations

from django.apps import AppConfig


class BundlesConfig(AppConfig):
    name = "auditportal.bundles"
    label = "bundles"

    def ready(self) -> None:
        from auditportal.bundles import services  # noqa: PLC0415 -- models are there only now
        from auditportal.jobs import services as jobs  # noqa: PLC0415 -- as above

        jobs.register(services.KIND, services.run, services.ended)
