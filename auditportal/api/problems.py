"""Errors as RFC 9457 problem documents, field by field."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

from django.http import HttpResponse
from rest_framework import status
from rest_framework.exceptions import ValidationError
from rest_framework.response import Response
from rest_framework.views import exception_handler as default_handler

from auditportal.ledger.errors import Fault

MEDIA_TYPE = "application/problem+json"
MOST_FAULTS = 100  # a batch of 5,000 wrong events need not be answered with as many lines; `more` counts the rest


def problem(
    code: int,
    title: str,
    detail: str = "",
    *,
    faults: Sequence[Fault] = (),
    is_batch: bool = False,
    **extra: Any,  # noqa: ANN401 -- extension members, RFC 9457 §3.2
) -> HttpResponse:
    """A problem document. `errors` name index (in a batch), member (a JSON pointer) and rule."""
    document: dict[str, Any] = {"type": "about:blank", "title": title, "status": code}
    if detail:
        document["detail"] = detail
    if faults:
        document["errors"] = [_error(fault, is_batch=is_batch) for fault in faults[:MOST_FAULTS]]
        if len(faults) > MOST_FAULTS:
            document["more"] = len(faults) - MOST_FAULTS
    response = HttpResponse(json.dumps(document | extra), status=code, content_type=MEDIA_TYPE)
    response["Cache-Control"] = "no-store"
    return response


def _error(fault: Fault, *, is_batch: bool) -> dict[str, Any]:
    named = {"member": fault.member, "rule": fault.rule}
    return {"index": fault.index} | named if is_batch else named


def exception_handler(error: Exception, context: dict[str, Any]) -> Response | None:
    """REST framework errors in the same form."""
    response = default_handler(error, context)
    if response is None:
        return None
    document: dict[str, Any] = {
        "type": "about:blank",
        "title": _title(response.status_code),
        "status": response.status_code,
    }
    if isinstance(error, ValidationError):
        document["errors"] = [
            {"member": f"/{name}", "rule": "; ".join(map(str, rules if isinstance(rules, list) else [rules]))}
            for name, rules in (response.data.items() if isinstance(response.data, dict) else [("", response.data)])
        ]
    elif isinstance(response.data, dict) and "detail" in response.data:
        document["detail"] = str(response.data["detail"])
    response.data = document
    response.content_type = MEDIA_TYPE
    return response


def _title(code: int) -> str:
    return {
        status.HTTP_401_UNAUTHORIZED: "Not authenticated",
        status.HTTP_403_FORBIDDEN: "Not allowed",
        status.HTTP_404_NOT_FOUND: "Not found",
        status.HTTP_429_TOO_MANY_REQUESTS: "Too many requests",
    }.get(code, "The request cannot be answered")
