from __future__ import annotations

from typing import Any

from django.core.management.base import BaseCommand
from django.utils import timezone

from auditportal.ledger import sealing


class Command(BaseCommand):
    help = "Drops everything that is derived from the log (tiles, streams, search) and derives it again."

    def handle(self, *_args: Any, **_options: Any) -> None:  # noqa: ANN401 -- Django's signature
        size = sealing.rebuild(signer=sealing.default_signer(), now=timezone.now(), progress=self._progress)
        self.stdout.write(f"rebuilt from {size:,} entries")

    def _progress(self, size: int) -> None:
        self.stderr.write(f"{size:,} entries")
