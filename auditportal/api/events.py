"""`/api/v1/events`: POST records one event or a batch, all of it or nothing; GET searches as the timeline does.

Plain views: recording is the hot path, and what is found goes out as the recorded bytes.
"""

from __future__ import annotations

import re
from typing import Any
from urllib.parse import urlencode

import orjson
from django.conf import settings
from django.contrib.auth.decorators import login_not_required
from django.core.exceptions import RequestDataTooBig
from django.db import OperationalError
from django.http import HttpRequest, HttpResponse
from django.http.request import RawPostDataException, UnreadablePostError
from django.utils import timezone
from django.views.decorators.csrf import csrf_exempt

from auditportal.accounts import services as accounts
from auditportal.accounts.models import ApiToken
from auditportal.accounts.queries import actor_ids
from auditportal.api.authentication import bearer
from auditportal.api.problems import problem
from auditportal.ingest import native, services
from auditportal.ingest.collector import collector
from auditportal.ingest.errors import RecordedConflictError
from auditportal.ledger import queries as ledger, search
from auditportal.ledger.drafts import Actor, instant
from auditportal.ledger.errors import InvalidEventError
from auditportal.ledger.queries import RecordedEvent
from auditportal.ledger.query import QueryError, parse
from auditportal.ledger.services import Recorded

WRITE, READ = "events:write", "events:read"
PAGE, MOST_PAGE = 50, 100


@csrf_exempt
@login_not_required
def collection(request: HttpRequest) -> HttpResponse:
    """The events resource."""
    if request.method not in ("POST", "GET", "HEAD"):
        response = problem(405, "Method not allowed", "POST one event or a list of events, or GET a search")
        response["Allow"] = "GET, HEAD, POST"
        return response
    token = accounts.authenticate_token(bearer(request), now=timezone.now())
    if token is None:
        response = problem(
            401, "Not authenticated", "send Authorization: Bearer <token>; it is unknown, expired or revoked"
        )
        response["WWW-Authenticate"] = "Bearer"
        return response
    scope = WRITE if request.method == "POST" else READ
    if not token.may(scope):
        return problem(403, "Not allowed", f"this token lacks the scope {scope}")
    if request.method != "POST":
        return _search(request)
    if request.content_type not in ("application/json", ""):
        return problem(415, "Unsupported media type", "send application/json")
    return _record(request, token)


def _search(request: HttpRequest) -> HttpResponse:
    """A page of what the query finds, each event verified on read; a broken one comes as its failure, not as fact."""
    text = request.GET.get("q", "").strip()
    limit = request.GET.get("limit", str(PAGE))
    if not re.fullmatch(r"[0-9]{1,3}", limit) or not 1 <= int(limit) <= MOST_PAGE:
        return problem(400, "The search was not understood", f"limit is 1 to {MOST_PAGE}")
    after = search.Cursor.parse(request.GET.get("cursor", ""))
    if after is None and request.GET.get("cursor"):
        return problem(400, "The search was not understood", "this cursor is none of ours")
    try:
        query = parse(text)
        page = search.page(query, now=timezone.now(), resolve=actor_ids, after=after, most=int(limit))
    except QueryError as error:
        return problem(400, "The search was not understood", error.message, start=error.start, end=error.end)
    except search.SearchTooSlowError:
        return problem(503, "The search took too long", "narrow it with a time range, such as during:7d")
    body: dict[str, Any] = {"events": [_found(event) for event in ledger.recorded(page.seqs)]}
    if page.older:
        parameters = {"q": text, "limit": limit, "cursor": str(page.older)}
        body["next"] = f"{settings.PUBLIC_URL}/api/v1/events?{urlencode(parameters)}"
    response = HttpResponse(orjson.dumps(body), content_type="application/json")
    response["Cache-Control"] = "no-store"
    return response


def _found(event: RecordedEvent) -> dict[str, Any]:
    item: dict[str, Any] = {"seq": event.seq, "proof": str(event.proof), "leaf_hash": event.leaf.hex()}
    if event.is_broken:
        return item | {"failure": event.failure}
    if event.recorded_at is not None:
        item["recorded_at"] = instant(event.recorded_at)
    if event.raw_body is None:
        return item | {"absent": "erased"}
    return item | {"body": orjson.Fragment(event.raw_body)}


def _record(request: HttpRequest, token: ApiToken) -> HttpResponse:
    submitter = Actor(type="service", id=token.actor_id)
    now = timezone.now()
    try:
        submissions, is_batch = native.read(request.body, source_id=token.source_id, nobody=submitter)
    except (native.TooLargeError, RequestDataTooBig) as error:
        return problem(413, "Too large", str(error) or f"at most {settings.MOST_BATCH_BYTES} bytes; split the batch")
    except (RawPostDataException, UnreadablePostError):
        return problem(400, "The request broke off", "the body did not arrive whole; nothing is stored")
    except native.FaultyInputError as error:
        return _refused(error.faults, is_batch=error.is_batch)
    try:
        prepared = services.prepare(submissions, now=now)
    except InvalidEventError as error:
        return _refused(error.faults, is_batch=is_batch)
    try:
        if is_batch:
            recorded = services.record(prepared, source_id=token.source_id, submitter=submitter, now=now)
        else:
            recorded = [collector.record(prepared[0], source_id=token.source_id, submitter=submitter, now=now)]
    except RecordedConflictError as error:
        return _conflict(error, is_batch=is_batch)
    except (OperationalError, TimeoutError):
        response = problem(
            503, "The log cannot be written now", "nothing is known to be stored; repeat with the same ids"
        )
        response["Retry-After"] = "5"
        return response
    return _receipts(recorded, is_batch=is_batch)


def _refused(faults: Any, *, is_batch: bool) -> HttpResponse:  # noqa: ANN401 -- a sequence of faults
    what = "No event of the batch was stored" if is_batch else "Nothing was stored"
    return problem(400, "The event is not well-formed", what, faults=faults, is_batch=is_batch)


def _conflict(error: RecordedConflictError, *, is_batch: bool) -> HttpResponse:
    conflicts = [{"index": item.index, "event_id": item.event_id, "recorded_as": item.seq} for item in error.conflicts]
    return problem(
        409,
        "An id is recorded with other content",
        "No event of the batch was stored" if is_batch else "Nothing was stored; the attempt was recorded",
        conflicts=conflicts,
        recorded_as=error.seq,
    )


def _receipts(recorded: list[Recorded], *, is_batch: bool) -> HttpResponse:
    receipts = [_receipt(item) for item in recorded]
    status = 201 if any(item.is_new for item in recorded) else 200
    body: Any = {"events": receipts} if is_batch else receipts[0]
    response = HttpResponse(orjson.dumps(body), status=status, content_type="application/json")
    response["Cache-Control"] = "no-store"
    if not is_batch:
        response["Location"] = receipts[0]["event"]
    return response


def _receipt(item: Recorded) -> dict[str, Any]:
    event = f"{settings.PUBLIC_URL}/events/{item.seq}/"
    return {
        "seq": item.seq,
        "event_id": item.event_id,
        "leaf_hash": item.leaf_hash.hex(),
        "new": item.is_new,
        "event": event,
        "proof": f"{event}proof",
    }
