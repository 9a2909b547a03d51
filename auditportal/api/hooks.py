"""`/hooks/<kind>/`: raw bytes stored, answered at once, understood later. What is not understood is kept and shown."""

from __future__ import annotations

import logging
import re

from django.contrib.auth.decorators import login_not_required
from django.core.exceptions import RequestDataTooBig
from django.db import Error
from django.http import HttpRequest, HttpResponse, JsonResponse
from django.http.request import RawPostDataException, UnreadablePostError
from django.utils import timezone
from django.views.decorators.csrf import csrf_exempt

from auditportal.accounts import services as accounts
from auditportal.api.authentication import bearer
from auditportal.api.problems import problem
from auditportal.ingest import deliveries, mlflow, secrets
from auditportal.ingest.models import Source

SCOPE = "hooks"
MOST_UNSIGNED = 1024 * 1024  # of a body read before its signature can be checked; MLflow's have a few kilobytes
security = logging.getLogger("auditportal.security.hooks")


@csrf_exempt
@login_not_required
def oci(request: HttpRequest) -> HttpResponse:
    """Notifications of a Distribution registry: its static header is a token with the scope `hooks`.

    A 4xx would block the registry's queue for ever, so after the token nothing is refused but what is too large.
    """
    if request.method != "POST":
        return _post_only()
    token = accounts.authenticate_token(bearer(request), now=timezone.now())
    if token is None or not token.may(SCOPE):
        security.warning("a hook without a valid token", extra={"path": request.path})
        response = problem(401, "Not authenticated", "send Authorization: Bearer <token> with the scope hooks")
        response["WWW-Authenticate"] = "Bearer"
        return response
    source = Source.objects.filter(pk=token.source_id, kind=Source.Kind.OCI).first()
    return _store(request, source, Source.Kind.OCI, "")


@csrf_exempt
@login_not_required
def mlflow_hook(request: HttpRequest) -> HttpResponse:
    """MLflow's deliveries, signed with the secret of one of our sources."""
    if request.method != "POST":
        return _post_only()
    body = _body(request, MOST_UNSIGNED)
    if isinstance(body, HttpResponse):
        return body
    delivery_id = request.headers.get("X-MLflow-Delivery-Id", "")
    if not re.fullmatch(r"[A-Za-z0-9-]{1,64}", delivery_id):
        return problem(401, "Not authenticated", "a delivery has an X-MLflow-Delivery-Id and is signed")
    now = timezone.now()
    for source in Source.objects.filter(kind=Source.Kind.MLFLOW):
        if mlflow.verify_signature(
            secret=secrets.open_sealed(source.hook_secret),
            delivery_id=delivery_id,
            timestamp=request.headers.get("X-MLflow-Timestamp", ""),
            signature=request.headers.get("X-MLflow-Signature", ""),
            body=body,
            now=now,
        ):
            return _store(request, source, Source.Kind.MLFLOW, delivery_id)
    security.warning("a hook without a valid signature", extra={"path": request.path})
    return problem(401, "Not authenticated", "no source has a secret that gives this signature, or it is too old")


def _store(request: HttpRequest, source: Source | None, kind: str, native_id: str) -> HttpResponse:
    body = _body(request, deliveries.MOST_BYTES)
    if isinstance(body, HttpResponse):
        return body
    headers = {name.lower(): value for name, value in request.headers.items()}
    try:
        delivery = deliveries.receive(
            source=source, kind=kind, native_id=native_id, headers=headers, body=body, now=timezone.now()
        )
    except Error:
        response = problem(503, "Nothing can be stored now", "send it again; nothing is known to be stored")
        response["Retry-After"] = "5"
        return response
    return JsonResponse({"delivery": delivery.pk, "stored": True})


def _body(request: HttpRequest, most: int) -> bytes | HttpResponse:
    try:
        announced = int(request.headers.get("Content-Length") or 0)
        body = request.body if announced <= most else b""
    except (RequestDataTooBig, ValueError):
        return problem(413, "Too large", f"at most {most} bytes")
    except (RawPostDataException, UnreadablePostError):
        return problem(400, "The request broke off", "the body did not arrive whole; nothing is stored")
    if announced > most or len(body) > most:
        return problem(413, "Too large", f"at most {most} bytes")
    return body


def _post_only() -> HttpResponse:
    response = problem(405, "Method not allowed", "a hook is POSTed to")
    response["Allow"] = "POST"
    return response
