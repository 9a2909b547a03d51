"""What the log proves, what it does not, and the bytes to keep elsewhere."""

from __future__ import annotations

from django.conf import settings
from django.contrib.auth.decorators import login_not_required
from django.http import HttpRequest, HttpResponse
from django.shortcuts import render
from django.utils import timezone
from django.views.decorators.http import require_safe

from auditportal.accounts.roles import Permission
from auditportal.ledger import guards, queries as ledger
from auditportal.web.access import SignedInRequest, needs


@needs(Permission.READ)
@require_safe
def index(request: SignedInRequest) -> HttpResponse:
    context = {
        "head": ledger.head(),
        "seal_view": ledger.seal_state(timezone.now()),
        "vkey": ledger.vkey(),
        "missing": guards.check(),
        "origin": settings.LOG_ORIGIN,
        "url": settings.PUBLIC_URL,
    }
    return render(request, "integrity/index.html", context)


@login_not_required
@require_safe
def checkpoint(request: HttpRequest) -> HttpResponse:  # noqa: ARG001 -- Django's signature
    """The newest signed checkpoint, for anyone (C2SP tlog-tiles): it holds digests only."""
    note = ledger.head().note
    response = HttpResponse(note, status=200 if note else 404, content_type="text/plain; charset=utf-8")
    response["Cache-Control"] = "public, max-age=2"
    return response
