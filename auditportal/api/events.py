"""`POST /api/v1/events`: one native event or a batch, all of it or nothing of it. A plain view: it is the hot path."""

from __future__ import annotations

from typing import Any

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
from auditportal.api.authentication import bearer
from auditportal.api.problems import problem
from auditportal.ingest import native, services
from auditportal.ingest.collector import collector
from auditportal.ingest.errors import RecordedConflictError
from auditportal.ledger.drafts import Actor
from auditportal.ledger.errors import InvalidEventError
from auditportal.ledger.services import Recorded

SCOPE = "events:write"


@csrf_exempt
@login_not_required
def collection(request: HttpRequest) -> HttpResponse:
    """The events resource: POST records; GET, the search, is `list_events`."""
    if request.method != "POST":
        response = problem(405, "Method not allowed", "POST one event or a list of events")
        response["Allow"] = "POST"
        return response
    token = accounts.authenticate_token(bearer(request), now=timezone.now())
    if token is None:
        response = problem(
            401, "Not authenticated", "send Authorization: Bearer <token>; it is unknown, expired or revoked"
        )
        response["WWW-Authenticate"] = "Bearer"
        return response
    if not token.may(SCOPE):
        return problem(403, "Not allowed", f"this token lacks the scope {SCOPE}")
    if request.content_type not in ("application/json", ""):
        return problem(415, "Unsupported media type", "send application/json")
    return _record(request, token)


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
