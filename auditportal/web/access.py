"""The doors of the pages: who comes through is signed in, active, and may."""

from __future__ import annotations

from collections.abc import Callable
from functools import wraps
from typing import Concatenate, ParamSpec, cast

from django.core.exceptions import PermissionDenied
from django.http import HttpRequest, HttpResponse

from auditportal.accounts.models import User
from auditportal.accounts.roles import Permission, roles_with

P = ParamSpec("P")


class SignedInRequest(HttpRequest):
    user: User


View = Callable[Concatenate[SignedInRequest, P], HttpResponse]


def needs(*permissions: Permission) -> Callable[[View[P]], Callable[Concatenate[HttpRequest, P], HttpResponse]]:
    """The page opens for people whose role has one of these permissions; others learn which roles have it."""

    def decorate(view: View[P]) -> Callable[Concatenate[HttpRequest, P], HttpResponse]:
        @wraps(view)
        def guarded(request: HttpRequest, *args: P.args, **kwargs: P.kwargs) -> HttpResponse:
            user = request.user
            if not isinstance(user, User) or not any(map(user.may, permissions)):
                named = ", ".join(dict.fromkeys(role for item in permissions for role in roles_with(item)))
                raise PermissionDenied(f"This page needs one of the roles {named}.")
            return view(request, *args, **kwargs)  # type: ignore[arg-type]  # the user was just checked

        return cast("Callable[Concatenate[HttpRequest, P], HttpResponse]", guarded)

    return decorate
