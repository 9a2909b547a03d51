"""The first page: is the log sound, and what happened last. And the health check of machines."""

from __future__ import annotations

import logging

from django.conf import settings
from django.contrib.auth.decorators import login_not_required
from django.core.cache import cache
from django.db import Error, connection
from django.http import HttpRequest, HttpResponse, JsonResponse
from django.shortcuts import render
from django.utils import timezone
from django.views.decorators.http import require_safe
from redis.exceptions import RedisError

from auditportal.accounts.roles import Permission
from auditportal.approvals import queries as approvals
from auditportal.ledger import guards, queries as ledger, search
from auditportal.ledger.query import Query
from auditportal.reconciliation import queries as reconciliation
from auditportal.web.access import SignedInRequest
from auditportal.web.rows import display

SHOWN = 8  # newest events
SHOWN_EACH = 5  # of what waits, and of what needs attention
log = logging.getLogger("auditportal.health")


@require_safe
def index(request: SignedInRequest) -> HttpResponse:
    if not request.user.may(Permission.READ):
        return render(request, "overview/nothing.html")
    now = timezone.now()
    head = ledger.head()
    page = search.page(Query(), now=now, resolve=lambda _: [], after=None, most=SHOWN)
    waiting, findings = approvals.waiting_for(request.user), reconciliation.open_findings()
    context = {
        "waiting": waiting[:SHOWN_EACH],
        "waiting_more": max(0, len(waiting) - SHOWN_EACH),
        "findings": findings[:SHOWN_EACH],
        "findings_more": max(0, len(findings) - SHOWN_EACH),
        "head": head,
        "seal_view": ledger.seal_state(now),
        "rows": display(ledger.recorded(page.seqs)),
        "vkey": ledger.vkey(),
        "public_url": settings.PUBLIC_URL,
    }
    return render(request, "overview/index.html", context)


@login_not_required
@require_safe
def health(request: HttpRequest) -> HttpResponse:  # noqa: ARG001 -- Django's signature
    """200 when the portal can work, 503 otherwise; says which part is in the way and nothing else."""
    parts = {"database": _database(), "cache": _cache(), "guards": _guards()}
    return JsonResponse({"ok": all(parts.values()), "parts": parts}, status=200 if all(parts.values()) else 503)


def _database() -> bool:
    try:
        with connection.cursor() as cursor:
            cursor.execute("SELECT size FROM ledger_head")
            return cursor.fetchone() is not None
    except Error:
        log.exception("database unreachable")
        return False


def _cache() -> bool:
    try:
        cache.set("health", 1, 5)
        return bool(cache.get("health") == 1)
    except RedisError:
        log.exception("cache unreachable")
        return False


def _guards() -> bool:
    try:
        missing = guards.check()
    except Error:
        return False
    if missing:
        log.error("guards missing", extra={"missing": missing})
    return not missing
