"""How allauth behaves here: accounts are made by admins, and each sign-in leaves a security line."""

from __future__ import annotations

import logging
from typing import Any

from allauth.account.adapter import DefaultAccountAdapter
from django.http import HttpRequest

from auditportal.accounts.models import User

log = logging.getLogger("auditportal.security.signin")


class AccountAdapter(DefaultAccountAdapter):  # type: ignore[misc]  # allauth ships no types
    def is_open_for_signup(self, request: HttpRequest) -> bool:  # noqa: ARG002 -- allauth's signature
        return False

    def login(self, request: HttpRequest, user: User) -> None:
        super().login(request, user)
        log.info("signed in", extra={"user_id": user.pk, "request_id": request.META.get("AUDITPORTAL_REQUEST_ID")})

    def authentication_failed(self, request: HttpRequest, **credentials: Any) -> None:  # noqa: ANN401 -- allauth's signature
        super().authentication_failed(request, **credentials)
        log.warning("sign-in refused", extra={"request_id": request.META.get("AUDITPORTAL_REQUEST_ID")})
