"""The addresses of the portal, and which kind of answer an error gets: a page for people, a document for programs."""

from __future__ import annotations

from django.contrib.auth.decorators import login_not_required
from django.http import HttpRequest, HttpResponse  # noqa: TID251 -- the wiring of web and api
from django.urls import include, path

from auditportal.api import hooks, problems
from auditportal.web import errors

urlpatterns = [
    path("api/v1/", include("auditportal.api.urls")),
    path("hooks/oci/", hooks.oci, name="hooks-oci"),
    path("hooks/mlflow/", hooks.mlflow_hook, name="hooks-mlflow"),
    path("", include("auditportal.web.urls")),
]
PROGRAMS = ("/api/", "/hooks/")


@login_not_required
def bad_request(request: HttpRequest, exception: Exception | None = None) -> HttpResponse:
    if request.path.startswith(PROGRAMS):
        return problems.problem(400, "The request was not understood")
    return errors.bad_request(request, exception)


@login_not_required
def forbidden(request: HttpRequest, exception: Exception | None = None) -> HttpResponse:
    if request.path.startswith(PROGRAMS):
        return problems.problem(403, "Not allowed")
    return errors.forbidden(request, exception)


@login_not_required
def not_found(request: HttpRequest, exception: Exception | None = None) -> HttpResponse:
    if request.path.startswith(PROGRAMS):
        return problems.problem(404, "Not found", "there is no such resource; see /api/v1/schema/")
    return errors.not_found(request, exception)


@login_not_required
def server_error(request: HttpRequest) -> HttpResponse:
    if request.path.startswith(PROGRAMS):
        return problems.problem(500, "The portal failed", "what was acknowledged before is safe in the log")
    return errors.server_error(request)


handler400 = "auditportal.urls.bad_request"
handler403 = "auditportal.urls.forbidden"
handler404 = "auditportal.urls.not_found"
handler500 = "auditportal.urls.server_error"
