from __future__ import annotations

from typing import Any

from django.core.management.base import BaseCommand
from django.utils import timezone

from auditportal.bundles import signing


class Command(BaseCommand):
    help = "Makes the installation's root and signer of audit bundles, after setup_database. Safe to repeat."

    def handle(self, *_args: Any, **_options: Any) -> None:  # noqa: ANN401 -- Django's signature
        made = signing.set_up(now=timezone.now())
        self.stdout.write(
            f"bundle signer {'made' if made else 'is there'}; root SHA-256 {signing.load().root_fingerprint}"
        )
