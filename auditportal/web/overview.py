"""The first page: is the log sound, and what happened last. And the health check of machines."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from uuid import UUID

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
from auditportal.catalog import queries as catalog
from auditportal.catalog.models import Placement, Version
from auditportal.ledger import guards, queries as ledger, search
from auditportal.ledger.query import Form, Query, Term, Value
from auditportal.reconciliation import queries as reconciliation
from auditportal.web import formats
from auditportal.web.access import SignedInRequest
from auditportal.web.catalog import address
from auditportal.web.rows import display

SHOWN = 8  # newest events
SHOWN_PLACED = 50  # of what stands in production; the models page has all
SHOWN_EACH = 5  # of what waits, and of what needs attention
REFUSED = Query((Term("outcome", (Value(Form.EXACT, "refused"), Value(Form.EXACT, "failed"))),))
log = logging.getLogger("auditportal.health")


@dataclass(frozen=True, slots=True)
class Counter:
    number: str
    detail: str


@dataclass(frozen=True, slots=True)
class Standing:
    """A version in production, and who signed for it; `trouble` is what the log has otherwise."""

    placement: Placement
    href: str
    approvers: list[str]
    request: UUID | None
    trouble: str


@require_safe
def index(request: SignedInRequest) -> HttpResponse:
    if not request.user.may(Permission.READ):
        return render(request, "overview/nothing.html")
    now = timezone.now()
    head = ledger.head()
    page = search.page(Query(), now=now, resolve=lambda _: [], after=None, most=SHOWN)
    waiting, findings = approvals.waiting_for(request.user), reconciliation.open_findings(SHOWN_EACH)
    placed = catalog.in_production(SHOWN_PLACED + 1)
    context = {
        "waiting": waiting[:SHOWN_EACH],
        "waiting_more": max(0, len(waiting) - SHOWN_EACH),
        "findings": findings,
        "findings_more": max(0, reconciliation.open_finding_count() - SHOWN_EACH),
        "head": head,
        "refused": _refused(now),
        "bytes": _bytes(),
        "in_production": _standings(placed[:SHOWN_PLACED]),
        "has_more_placed": len(placed) > SHOWN_PLACED,
        "seal_view": ledger.seal_state(now),
        "rows": display(ledger.recorded(page.seqs)),
        "vkey": ledger.vkey(),
        "public_url": settings.PUBLIC_URL,
    }
    return render(request, "overview/index.html", context)


def _refused(now: datetime) -> Counter:
    try:
        found = search.count(REFUSED, now=now, resolve=lambda _: [])
    except search.SearchTooSlowError:
        return Counter("Not counted", "counting them took too long")
    number = ("more than " if found.is_capped else "") + formats.count(found.number)
    return Counter(number, "attempts stand in the log like successes")


def _bytes() -> Counter:
    """How many versions stood the last reading of all their bytes, and what became of the others."""
    counts = catalog.check_counts()
    good, total = counts.get(Version.Check.CHECKED, 0), sum(counts.values())
    rest = [f"{formats.count(count)} {state}" for state, count in counts.items() if state != Version.Check.CHECKED]
    if not total:
        return Counter("None", "no version is known yet")
    return Counter(
        f"{formats.count(good)} of {formats.count(total)}", ", ".join(rest) or "every version was read and matched"
    )


def _standings(placed: Sequence[Placement]) -> list[Standing]:
    told = approvals.explained(placed)
    return [
        Standing(
            item,
            address(item.model.name, item.version.name),
            [formats.visible(name) for name in told[item.pk].approvers],
            told[item.pk].request,
            told[item.pk].trouble,
        )
        for item in placed
    ]


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
