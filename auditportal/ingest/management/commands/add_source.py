from __future__ import annotations

import sys
from typing import Any

from django.core.management.base import BaseCommand, CommandError, CommandParser
from django.utils import timezone

from auditportal.ingest import sources
from auditportal.ingest.errors import SourceError
from auditportal.ingest.models import Source
from auditportal.ledger.drafts import SYSTEM


class Command(BaseCommand):
    help = "Registers a registry or MLflow server as a source; the event says so."

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("id", help="stands in its events as their source, for example registry or mlflow:prod")
        parser.add_argument("kind", choices=Source.Kind.values)
        parser.add_argument("url", help="where it is asked")
        parser.add_argument("--host", action="append", default=[], help="where redirects and token servers may lead")
        parser.add_argument("--repository", action="append", default=[], help="reconciled besides what pushes name")
        parser.add_argument("--username", default="", help="its password is then a line of standard input")
        parser.add_argument(
            "--hook-secret-stdin", action="store_true", help="a line of standard input, after a password"
        )
        parser.add_argument("--unless-there", action="store_true", help="does nothing when the source is there already")

    def handle(self, *_args: Any, **options: Any) -> None:  # noqa: ANN401 -- Django's signature
        if options["unless_there"] and Source.objects.filter(pk=options["id"]).exists():
            self.stdout.write(f"source {options['id']} is there already")
            return
        password = sys.stdin.readline().rstrip("\n") if options["username"] else ""
        hook_secret = sys.stdin.readline().rstrip("\n") if options["hook_secret_stdin"] else ""
        try:
            source = sources.register(
                id=options["id"],
                kind=options["kind"],
                url=options["url"],
                hosts=options["host"],
                repositories=options["repository"],
                username=options["username"],
                password=password,
                hook_secret=hook_secret,
                actor=SYSTEM,
                now=timezone.now(),
            )
        except SourceError as error:
            raise CommandError(str(error)) from error
        self.stdout.write(f"source {source.pk} registered")
