"""`Authorization: Bearer <token>` for the REST API and the hooks."""

from __future__ import annotations

from dataclasses import dataclass

from django.contrib.auth.models import AnonymousUser
from django.http import HttpRequest
from django.utils import timezone
from rest_framework.authentication import BaseAuthentication
from rest_framework.exceptions import AuthenticationFailed
from rest_framework.request import Request

from auditportal.accounts import services as accounts
from auditportal.accounts.models import ApiToken

SCHEME = "bearer "


def bearer(request: HttpRequest) -> str:
    """The token of the request, or nothing."""
    header = request.headers.get("Authorization", "")
    return header[len(SCHEME) :].strip() if header.lower().startswith(SCHEME) else ""


@dataclass(frozen=True, slots=True)
class TokenUser:
    """Who a token speaks for, in the shape REST framework asks about."""

    token: ApiToken
    is_authenticated: bool = True


class TokenAuthentication(BaseAuthentication):
    def authenticate(self, request: Request) -> tuple[TokenUser | AnonymousUser, ApiToken] | None:
        text = bearer(request._request)  # noqa: SLF001 -- the one documented way to Django's request
        if not text:
            return None
        token = accounts.authenticate_token(text, now=timezone.now())
        if token is None:
            raise AuthenticationFailed("unknown, expired or revoked token")
        return TokenUser(token), token

    def authenticate_header(self, request: Request) -> str:  # noqa: ARG002 -- the framework's signature
        return "Bearer"
