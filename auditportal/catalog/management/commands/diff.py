from __future__ import annotations

from typing import Any

from django.core.management.base import BaseCommand, CommandError, CommandParser

from auditportal.catalog import queries
from auditportal.catalog.comparison import compare
from auditportal.catalog.models import Version

DIFFERENT, TROUBLE = 1, 2  # as diff(1) has it


class Command(BaseCommand):
    help = (
        "Compares two recorded versions, each written name:version or repository@sha256:…, without asking a registry."
    )

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("base", metavar="A")
        parser.add_argument("head", metavar="B")
        parser.add_argument(
            "--exit-code", action="store_true", help="exit with 0 only if the two are identical, with 1 otherwise"
        )

    def handle(self, *_args: Any, **options: Any) -> None:  # noqa: ANN401 -- Django's signature
        base, head = (self._version(options[name]) for name in ("base", "head"))
        found = compare(base, head)
        self.stdout.write(found.text(), ending="")
        if options["exit_code"] and not found.is_identical:
            raise SystemExit(DIFFERENT)

    def _version(self, reference: str) -> Version:
        version = queries.find_reference(reference)
        if version is None:
            raise CommandError(f"no version is recorded as {reference}", returncode=TROUBLE)
        return version
