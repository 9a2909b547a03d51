"""What holds for every response: who asked (an id to quote), and what a browser may do with the answer."""

from __future__ import annotations

import re
import secrets
from collections.abc import Callable

from django.http import HttpRequest, HttpResponse

Next = Callable[[HttpRequest], HttpResponse]
REQUEST_ID = re.compile(r"[A-Za-z0-9._-]{8,64}")
CONTENT_SECURITY_POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; font-src 'self'; connect-src 'self'; "
    "form-action 'self'; base-uri 'none'; frame-ancestors 'none'"
)


class RequestIdentity:
    """Each request has an id, taken over from a proxy that gives one, shown on error pages and in the answer."""

    def __init__(self, get_response: Next) -> None:
        self.get_response = get_response

    def __call__(self, request: HttpRequest) -> HttpResponse:
        given = request.headers.get("X-Request-ID", "")
        identity = given if REQUEST_ID.fullmatch(given) else secrets.token_hex(8)
        request.META["AUDITPORTAL_REQUEST_ID"] = identity
        response = self.get_response(request)
        response["X-Request-ID"] = identity
        return response


class SecurityHeaders:
    """The strict policy on every answer, error pages and static files included; nothing a person saw is cached."""

    def __init__(self, get_response: Next) -> None:
        self.get_response = get_response

    def __call__(self, request: HttpRequest) -> HttpResponse:
        response = self.get_response(request)
        response["Content-Security-Policy"] = CONTENT_SECURITY_POLICY
        response["X-Content-Type-Options"] = "nosniff"
        response["Referrer-Policy"] = "same-origin"
        response["Cross-Origin-Opener-Policy"] = "same-origin"
        if not request.path.startswith("/static/"):
            response.setdefault("Cache-Control", "no-store")
        return response


def request_id(request: HttpRequest) -> str:
    return str(request.META.get("AUDITPORTAL_REQUEST_ID", ""))
