from __future__ import annotations

from typing import Any

from django.conf import settings
from django.core.management.base import BaseCommand, CommandError
from django.utils import timezone

from auditportal.accounts import services
from auditportal.accounts.models import User
from auditportal.accounts.roles import Role
from auditportal.ledger.drafts import SYSTEM

PEOPLE = (
    ("alice", "Alice Park", Role.LEAD),
    ("bob", "Bob Jansen", Role.LEAD),
    ("carol", "Carol Okafor", Role.COMPLIANCE),
    ("dave", "Dave Lindqvist", Role.AUDITOR),
    ("erin", "Erin Nowak", Role.ENGINEER),
    ("frank", "Frank Ferreira", Role.ADMIN),
    ("mallory", "Mallory Stone", Role.NONE),
)


class Command(BaseCommand):
    help = "In a demo: people of every role. Does nothing elsewhere, and nothing twice."

    def handle(self, *_args: Any, **_options: Any) -> None:  # noqa: ANN401 -- Django's signature
        if not settings.DEMO:
            return
        if settings.PRODUCTION or not settings.DEMO_PASSWORD:
            raise CommandError("demo people need AUDITPORTAL_DEMO_PASSWORD and have no place in production")
        if User.objects.exists():
            return
        for username, name, role in PEOPLE:
            services.create_user(
                username=username,
                printed_name=name,
                role=role,
                password=settings.DEMO_PASSWORD,
                actor=SYSTEM,
                now=timezone.now(),
            )
        self.stdout.write(f"demo: {len(PEOPLE)} people made")
