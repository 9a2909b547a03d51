from __future__ import annotations

import json
import os
import secrets as random
from pathlib import Path
from typing import Any

from django.conf import settings
from django.core.management.base import BaseCommand, CommandError
from django.utils import timezone

from auditportal.accounts import services
from auditportal.accounts.models import User
from auditportal.accounts.roles import Role
from auditportal.ingest import sources
from auditportal.ingest.models import Source
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
PIPELINES = ("ci-churn", "ci-fraud", "ci-credit", "serving")
REGISTRY, MLFLOW = "registry", "mlflow"


class Command(BaseCommand):
    help = "In a demo: people of every role, tokens of pipelines, and the demo's own registry and MLflow as sources."

    def handle(self, *_args: Any, **_options: Any) -> None:  # noqa: ANN401 -- Django's signature
        if not settings.DEMO:
            return
        if settings.PRODUCTION or not settings.DEMO_PASSWORD:
            raise CommandError("demo people need AUDITPORTAL_DEMO_PASSWORD and have no place in production")
        if not User.objects.exists():
            self._make_people()
        if not Source.objects.exists():
            self._make_sources()
        for source in Source.objects.filter(pk__in=(REGISTRY, MLFLOW)).exclude(url=settings.DEMO_URL):
            sources.move(
                source=source, url=settings.DEMO_URL, reason="its port was taken", actor=SYSTEM, now=timezone.now()
            )

    def _make_people(self) -> None:
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

    def _make_sources(self) -> None:
        now, hook_secret = timezone.now(), random.token_urlsafe(24)
        sources.register(id=REGISTRY, kind=Source.Kind.OCI, url=settings.DEMO_URL, actor=SYSTEM, now=now)
        sources.register(
            id=MLFLOW, kind=Source.Kind.MLFLOW, url=settings.DEMO_URL, hook_secret=hook_secret, actor=SYSTEM, now=now
        )
        tokens = {name: self._token(name, "events:write") for name in PIPELINES}
        tokens[REGISTRY] = self._token(REGISTRY, "hooks")
        told = {"password": settings.DEMO_PASSWORD, "hook_secret": hook_secret, "tokens": tokens}
        settings.DATA.mkdir(parents=True, exist_ok=True)
        _write_private(settings.DATA / "demo.json", json.dumps(told))  # noqa: TID251 -- for the story to read

    def _token(self, source: str, scope: str) -> str:
        _, text = services.issue_token(
            name=f"{source} of the demo", source_id=source, scopes=[scope], actor=SYSTEM, now=timezone.now()
        )
        return text


def _write_private(path: Path, text: str) -> None:
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with os.fdopen(descriptor, "w") as file:
        file.write(text)
