from __future__ import annotations

import time
from typing import Any

from django.core.management.base import BaseCommand, CommandError, CommandParser
from django.utils import timezone

from auditportal.ledger import sealing, verification

REPORTED_EACH_S = 2.0


class Command(BaseCommand):
    help = (
        "Verifies the whole log from its bytes. An interrupted run goes on where it was; exit code 1 names the fault."
    )

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("--from-start", action="store_true", help="do not continue an interrupted run")
        parser.add_argument("--quiet", action="store_true", help="print the result alone")

    def handle(self, *_args: Any, **options: Any) -> None:  # noqa: ANN401 -- Django's signature
        started = last = time.monotonic()
        first: int | None = None

        def progress(done: int, size: int) -> None:
            nonlocal last, first
            first = done if first is None else first
            if not options["quiet"] and time.monotonic() - last >= REPORTED_EACH_S:
                last = time.monotonic()
                rate = (done - first) / (last - started)
                self.stderr.write(f"{done:,} of {size:,} entries, {rate:,.0f} events/s")

        run = verification.verify_log(
            signer=sealing.default_signer(), now=timezone.now, progress=progress, resume=not options["from_start"]
        )
        took = time.monotonic() - started
        if run.failure:
            raise CommandError(f"failed at {run.failure}")
        rate = run.size / took if took else 0
        self.stdout.write(f"complete: {run.size:,} entries verified from their bytes, {rate:,.0f} events/s")
