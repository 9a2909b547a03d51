from __future__ import annotations

from typing import Any

from django.conf import settings
from django.core.management import call_command
from django.core.management.base import BaseCommand, CommandError
from django.db import connections
from django.utils import timezone

from auditportal.ledger import guards, sealing, services

OLDEST_SERVER = 150000  # PostgreSQL 15: what the guards and queries were tried on


class Command(BaseCommand):
    help = "Migrates as the owner, grants the application's role what it needs, and begins the log. Safe to repeat."

    def handle(self, *_args: Any, **_options: Any) -> None:  # noqa: ANN401 -- Django's signature
        alias = "owner" if "owner" in settings.DATABASES else "default"
        self._refuse_old_server(alias)
        call_command("migrate", database=alias, interactive=False, verbosity=0)
        role = str(settings.DATABASES["default"]["USER"])
        if alias == "owner" and role != settings.DATABASES["owner"]["USER"]:
            guards.grant("owner", role)
        missing = guards.check()
        if missing:
            raise CommandError("the log is not guarded: " + "; ".join(missing))
        began = services.begin_log(vkey=sealing.default_signer().vkey, now=timezone.now())
        sealing.seal_all(signer=sealing.default_signer(), now=timezone.now())
        self.stdout.write(f"database ready; log {settings.LOG_ORIGIN} {'begun' if began else 'goes on'}")

    def _refuse_old_server(self, alias: str) -> None:
        with connections[alias].cursor() as cursor:
            cursor.execute("SHOW server_version_num")
            if int(cursor.fetchone()[0]) < OLDEST_SERVER:
                raise CommandError("PostgreSQL 15 or newer is needed")
