"""Pages for what went wrong: what it was, what to do, and an id to quote. They need no database."""

from __future__ import annotations

from dataclasses import dataclass

from django.contrib.auth.decorators import login_not_required
from django.http import HttpRequest, HttpResponse
from django.template.loader import render_to_string
from django.views.decorators.csrf import requires_csrf_token

from auditportal.web.middleware import request_id


@dataclass(frozen=True, slots=True)
class Trouble:
    status: int
    title: str
    what: str
    todo: str


BAD_REQUEST = Trouble(
    400,
    "The request was not understood",
    "The address or the form held something the portal cannot read.",
    "Go back and try again from the page you came from.",
)
FORBIDDEN = Trouble(
    403, "Not allowed", "Your role does not permit this.", "An admin can grant it; the people page says who they are."
)
NOT_FOUND = Trouble(
    404,
    "Nothing here",
    "There is no such page, or what it was about is not recorded in this log.",
    "Search the timeline for it, or check the address.",
)
SERVER_ERROR = Trouble(
    500,
    "The portal failed",
    "Something broke on our side. What was acknowledged before is safe in the log.",
    "Try again in a minute. If it stays, give an admin the id below.",
)
CSRF = Trouble(
    403,
    "The form was too old",
    "The form came without the mark that proves it is from this portal; nothing was changed.",
    "Load the page again and repeat. Cookies must be allowed for this site.",
)


def _answer(request: HttpRequest, trouble: Trouble, detail: str = "") -> HttpResponse:
    context = {"trouble": trouble, "detail": detail, "request_id": request_id(request), "path": request.path}
    return HttpResponse(render_to_string("errors/error.html", context), status=trouble.status)


@login_not_required
@requires_csrf_token
def bad_request(request: HttpRequest, exception: Exception | None = None) -> HttpResponse:  # noqa: ARG001 -- Django's signature
    return _answer(request, BAD_REQUEST)


@login_not_required
@requires_csrf_token
def forbidden(request: HttpRequest, exception: Exception | None = None) -> HttpResponse:
    return _answer(request, FORBIDDEN, str(exception or ""))


@login_not_required
@requires_csrf_token
def not_found(request: HttpRequest, exception: Exception | None = None) -> HttpResponse:  # noqa: ARG001 -- Django's signature
    return _answer(request, NOT_FOUND)


@login_not_required
@requires_csrf_token
def server_error(request: HttpRequest) -> HttpResponse:
    return _answer(request, SERVER_ERROR)


@login_not_required
@requires_csrf_token
def csrf_failure(request: HttpRequest, reason: str = "") -> HttpResponse:  # noqa: ARG001 -- Django's signature
    return _answer(request, CSRF)
