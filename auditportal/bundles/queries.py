from __future__ import annotations

from pathlib import Path
from uuid import UUID

from django.conf import settings
from django.db.models import QuerySet

from auditportal.bundles.models import Bundle


def directory() -> Path:
    """Where finished bundles lie."""
    return Path(settings.DATA) / "bundles"


def bundles() -> QuerySet[Bundle]:
    """Newest first, with what a list shows."""
    found = Bundle.objects.select_related("model", "requested_by", "job").defer("proofs", "artifacts")
    return found.order_by("-requested_at", "-id")


def find(pk: UUID) -> Bundle | None:
    return bundles().filter(pk=pk).first()


def path_of(bundle: Bundle) -> Path:
    return directory() / bundle.file_name
