from __future__ import annotations

import getpass
import sys
from typing import Any

from django.core.exceptions import ValidationError
from django.core.management.base import BaseCommand, CommandError, CommandParser
from django.utils import timezone

from auditportal.accounts import services
from auditportal.accounts.models import User
from auditportal.accounts.roles import Role
from auditportal.ledger.drafts import SYSTEM


class Command(BaseCommand):
    help = "Makes the first admin; asks for the password, or reads it from standard input with --password-stdin."

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("username")
        parser.add_argument("printed_name", help="as it will stand on records")
        parser.add_argument("--password-stdin", action="store_true")

    def handle(self, *_args: Any, **options: Any) -> None:  # noqa: ANN401 -- Django's signature
        if User.objects.filter(role=Role.ADMIN, is_active=True).exists():
            raise CommandError("there is an admin already; admins make further accounts")
        password = sys.stdin.readline().rstrip("\n") if options["password_stdin"] else getpass.getpass()
        try:
            user = services.create_user(
                username=options["username"],
                printed_name=options["printed_name"],
                role=Role.ADMIN,
                password=password,
                actor=SYSTEM,
                now=timezone.now(),
            )
        except ValidationError as error:
            raise CommandError("; ".join(error.messages)) from error
        self.stdout.write(f"admin {user.username} made")
