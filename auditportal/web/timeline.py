"""The timeline: one query box, rows by day, and the same address for page, fragment and link."""

from __future__ import annotations

import re
from dataclasses import dataclass
from itertools import groupby
from typing import Any
from urllib.parse import urlencode

from django.http import HttpRequest, HttpResponse
from django.shortcuts import redirect, render
from django.utils import timezone
from django.views.decorators.http import require_safe

from auditportal.accounts.queries import actor_ids, display_names
from auditportal.accounts.roles import Permission
from auditportal.ledger import queries as ledger, search
from auditportal.ledger.query import Query, QueryError, parse
from auditportal.web import formats
from auditportal.web.access import SignedInRequest, needs
from auditportal.web.charts import histogram_svg
from auditportal.web.rows import Row, display

FACET_VALUES = 6
FACETS = {
    "action": "Action",
    "outcome": "Outcome",
    "environment": "Environment",
    "actor": "Actor",
    "source": "Source",
}
TOO_SLOW = "This search took more than 5 seconds. Narrow it with a time range, such as during:7d."


@dataclass(frozen=True, slots=True)
class Chip:
    label: str
    value: str
    is_negated: bool
    href: str


@dataclass(frozen=True, slots=True)
class Trouble:
    message: str
    before: str  # the query up to the fault, as blanks under which the caret stands
    caret: str


@dataclass(frozen=True, slots=True)
class Day:
    name: str
    rows: list[Row]


@needs(Permission.READ)
@require_safe
def index(request: SignedInRequest) -> HttpResponse:
    text = request.GET.get("q", "").strip()
    query, trouble = _read(text)
    now = timezone.now()
    after = search.Cursor.parse(request.GET.get("cursor", ""))
    try:
        page = search.page(query, now=now, resolve=actor_ids, after=after)
        total = search.count(query, now=now, resolve=actor_ids)
    except search.SearchTooSlowError:
        page, total, trouble = search.Page([], None), search.Count(0, is_capped=False), Trouble(TOO_SLOW, "", "")
    rows = display(ledger.recorded(page.seqs))
    context = {
        "q": text,
        "trouble": trouble,
        "chips": _chips(query),
        "days": [Day(name, list(group)) for name, group in groupby(rows, key=lambda row: row.day)],
        "shown": len(rows),
        "total": ("more than " if total.is_capped else "") + formats.count(total.number),
        "total_number": total.number,
        "is_first": after is None,
        "older": _address(text, cursor=str(page.older)) if page.older else "",
        "newest": max((row.seq for row in rows), default=-1),
        "lag": ledger.head().waiting,
        "suggestions": _drop_counts(query, now) if not rows and query.terms and trouble is None else [],
        "is_unfiltered": not query.terms,
    }
    return render(request, _template(request, "rows"), context)


def _template(request: HttpRequest, fragment: str) -> str:
    """The page, or the fragment htmx asked for: the same template, so first paint and update cannot differ."""
    return f"timeline/index.html#{fragment}" if getattr(request, "htmx", False) else "timeline/index.html"


def _read(text: str) -> tuple[Query, Trouble | None]:
    """The query; a faulty one shows everything, with the fault under the box."""
    try:
        return parse(text), None
    except QueryError as error:
        width = max(1, error.end - error.start)
        return Query(), Trouble(error.message, " " * error.start, "^" * min(width, len(text) or 1))


def _address(text: str, **extra: str) -> str:
    parameters = {name: value for name, value in {"q": text, **extra}.items() if value}
    return "/timeline/" + (f"?{urlencode(parameters)}" if parameters else "")


def _chips(query: Query) -> list[Chip]:
    ids = {value.text for term in query.terms if term.key == "actor" for value in term.values}
    names = display_names(ids) if ids else {}
    chips = []
    for term in query.terms:
        words = " or ".join(names.get(value.text, str(value)) for value in term.values)
        label = ("not " if term.is_negated else "") + (term.key or "text")
        href = _address(query.without(term).canonical())
        chips.append(Chip(label, formats.visible(words), term.is_negated, href))
    return chips


def _drop_counts(query: Query, now: Any) -> list[tuple[str, str, str]]:  # noqa: ANN401 -- a datetime
    """For a search without a match: what each term, left out, would have found."""
    found = []
    for term in query.terms:
        rest = query.without(term)
        count = search.count(rest, now=now, resolve=actor_ids)
        found.append((str(term), formats.count(count.number), _address(rest.canonical())))
    return found


@needs(Permission.READ)
@require_safe
def histogram(request: SignedInRequest) -> HttpResponse:
    query, _ = _read(request.GET.get("q", "").strip())
    try:
        found = search.histogram(query, now=timezone.now(), resolve=actor_ids)
    except search.SearchTooSlowError:
        return render(request, "timeline/index.html#histogram", {"chart": None, "trouble": Trouble(TOO_SLOW, "", "")})
    context = {"chart": histogram_svg(found), "bars": found.bars}
    return render(request, "timeline/index.html#histogram", context)


@needs(Permission.READ)
@require_safe
def facets(request: SignedInRequest) -> HttpResponse:
    query, _ = _read(request.GET.get("q", "").strip())
    try:
        found = search.facets(query, now=timezone.now(), resolve=actor_ids, most=FACET_VALUES)
    except search.SearchTooSlowError:
        return render(request, "timeline/index.html#facets", {"facets": []})
    names = display_names(item.value for item in found["actor"])
    groups = [
        {
            "name": FACETS[key],
            "values": [_facet(query, key, item, names, max(value.count for value in values)) for item in values],
        }
        for key, values in found.items()
        if values
    ]
    return render(request, "timeline/index.html#facets", {"facets": groups})


def _facet(
    query: Query, key: str, item: search.FacetValue, names: dict[str, str], most: int
) -> dict[str, str | int | bool]:
    name = {"system": "the portal"}.get(item.value, names.get(item.value, item.value))
    return {
        "text": formats.visible(name),
        "count": formats.count(item.count),
        "width": round(100 * item.count / most),
        "is_on": query.has(key, item.value),
        "is_bad": key == "outcome" and item.value != "done",
        "href": _address(query.toggled(key, item.value).canonical()),
    }


@needs(Permission.READ)
@require_safe
def newer(request: SignedInRequest) -> HttpResponse:
    """How many events were recorded since the newest one on the page; nothing moves under the reader."""
    text = request.GET.get("q", "").strip()
    query, _ = _read(text)
    seen = request.GET.get("seen", "")
    if not re.fullmatch(r"-?[0-9]{1,18}", seen):
        return HttpResponse(status=204)
    count = search.newer_than(query, max(int(seen), 0), now=timezone.now(), resolve=actor_ids)
    context = {"newer": formats.count(count.number) if count.number else "", "href": _address(text)}
    return render(request, "timeline/index.html#newer", context)


@needs(Permission.READ)
@require_safe
def jump(request: SignedInRequest) -> HttpResponse:
    """The box in the top bar: a seq opens its event, anything else is searched for."""
    text = request.GET.get("q", "").strip()
    number = text.replace(",", "").lstrip("#")
    if number.isascii() and number.isdigit() and len(number) <= 18:  # noqa: PLR2004 -- digits of a bigint
        return redirect("event", seq=int(number))
    return redirect(_address(text))
