from __future__ import annotations

from typing import Any

from django.core.management.base import BaseCommand, CommandError, CommandParser
from django.utils import timezone

from auditportal.accounts import services
from auditportal.accounts.errors import AccountError
from auditportal.ledger.drafts import SYSTEM


class Command(BaseCommand):
    help = "Issues an API token for a source and prints its text once."

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("source", help="the source its events are recorded under, for example ci-train")
        parser.add_argument("--name", default="", help="what it is for")
        parser.add_argument("--scope", action="append", choices=services.SCOPES, help="events:write when left out")

    def handle(self, *_args: Any, **options: Any) -> None:  # noqa: ANN401 -- Django's signature
        try:
            _, text = services.issue_token(
                name=options["name"] or options["source"],
                source_id=options["source"],
                scopes=options["scope"] or ["events:write"],
                actor=SYSTEM,
                now=timezone.now(),
            )
        except AccountError as error:
            raise CommandError(str(error)) from error
        self.stdout.write(text)
