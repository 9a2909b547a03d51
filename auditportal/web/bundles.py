"""Audit bundles: asked for, watched while they are built, downloaded. What to check them by lies beside them."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from uuid import UUID

from django import forms
from django.conf import settings
from django.contrib import messages
from django.contrib.auth.decorators import login_not_required
from django.http import FileResponse, Http404, HttpRequest, HttpResponse
from django.shortcuts import redirect, render
from django.utils import timezone
from django.views.decorators.http import require_GET, require_http_methods, require_POST, require_safe

from auditportal.accounts.roles import Permission
from auditportal.bundles import queries, services, signing
from auditportal.bundles.errors import AlteredError, BundleError
from auditportal.bundles.models import Bundle
from auditportal.catalog import queries as catalog
from auditportal.ledger import queries as ledger
from auditportal.web import formats
from auditportal.web.access import SignedInRequest, needs

SHOWN = 100
OFFERED = 200  # names in the list under the field; any other may be typed
TONES = {"building": "info", "ready": "ok", "failed": "bad", "cancelled": "warn"}
security = logging.getLogger("auditportal.security.bundles")


class BundleForm(forms.Form):
    model = forms.CharField(max_length=512, label="Model", help_text="Its whole history, up to now.")
    recipient = forms.CharField(
        max_length=services.MOST_RECIPIENT, help_text="Stands in the bundle; sealed in the log."
    )
    purpose = forms.CharField(max_length=services.MOST_PURPOSE, help_text="Why it is made; sealed in the log.")
    known_size = forms.IntegerField(
        required=False,
        min_value=1,
        max_value=2**53 - 1,
        label="Size of a kept checkpoint",
        help_text="Optional: the second line of a checkpoint that the recipient kept. The bundle then proves that"
        " nothing before it changed.",
    )


@dataclass(frozen=True, slots=True)
class Step:
    """One step of building: done, under way, or still to come."""

    text: str
    icon: str
    tone: str


@needs(Permission.BUNDLE)
@require_safe
def index(request: SignedInRequest) -> HttpResponse:
    context = {"bundles": [_Row.of(bundle) for bundle in queries.bundles()[:SHOWN]], "shown": SHOWN}
    return render(request, "bundles/index.html", context)


@dataclass(frozen=True, slots=True)
class _Row:
    bundle: Bundle
    tone: str
    size: str

    @classmethod
    def of(cls, bundle: Bundle) -> _Row:
        return cls(bundle, TONES[bundle.state], formats.size(bundle.size_bytes) if bundle.is_ready else "")


@needs(Permission.BUNDLE)
@require_http_methods(["GET", "HEAD", "POST"])
def new(request: SignedInRequest) -> HttpResponse:
    initial = {"model": request.GET.get("model", ""), "recipient": request.user.printed_name, "purpose": "audit"}
    form = BundleForm(request.POST or None, initial=initial)
    if request.method == "POST" and form.is_valid():
        model = catalog.find_model(form.cleaned_data["model"])
        if model is None:
            form.add_error("model", "No registered model has this name.")
        else:
            try:
                bundle = services.request_bundle(
                    model=model,
                    recipient=form.cleaned_data["recipient"],
                    purpose=form.cleaned_data["purpose"],
                    known_size=form.cleaned_data["known_size"],
                    user=request.user,
                    now=timezone.now(),
                )
            except BundleError as error:
                form.add_error(None, f"Nothing was asked for: {error}.")
            else:
                return redirect("bundles-detail", pk=bundle.pk)
    names = list(catalog.models().values_list("name", flat=True)[:OFFERED])
    return render(request, "bundles/new.html", {"form": form, "names": names})


def _bundle(pk: UUID) -> Bundle:
    bundle = queries.find(pk)
    if bundle is None:
        raise Http404
    return bundle


@needs(Permission.BUNDLE)
@require_safe
def detail(request: SignedInRequest, pk: UUID) -> HttpResponse:
    """The page; for htmx the steps alone, until the bundle has ended and the page reloads."""
    bundle = _bundle(pk)
    context = {"bundle": bundle, "job": bundle.job, "steps": _steps(bundle), "tone": TONES[bundle.state]}
    if getattr(request, "htmx", False):
        part = "said" if request.GET.get("part") == "said" else "steps"
        response = render(request, f"bundles/detail.html#{part}", context)
        if not bundle.is_building:
            response["HX-Refresh"] = "true"
        return response
    if bundle.is_ready:
        key = ledger.vkey()
        context |= {
            "digest": formats.in_fours(bundle.digest),
            "size": formats.size(bundle.size_bytes),
            "vkey": key,
            "root": _root_told(),
            "command": f"python3 -m auditproof verify {bundle.file_name} --key log.vkey --root ROOT.pem",
            "fetch": (
                f"curl -s {settings.PUBLIC_URL}/bundles/log.vkey > log.vkey\n"
                f"curl -s {settings.PUBLIC_URL}/bundles/root.pem > ROOT.pem"
            ),
        }
    return render(request, "bundles/detail.html", context)


def _root_told() -> str:
    try:
        return formats.in_fours(signing.load().root_fingerprint)
    except BundleError:
        return "not on this machine"  # the bundle was signed elsewhere, or the signer's directory is gone


def _steps(bundle: Bundle) -> list[Step]:
    """Where building stands, each step with its count."""
    job = bundle.job
    size, checkpoint = bundle.map_size, bundle.checkpoint_size
    told = [
        (f"Stream map recorded over {formats.count(size)} entries" if size else "Stream map recorded", bool(size)),
        (
            f"Checkpoint of {formats.count(checkpoint)} entries signed" if checkpoint else "Checkpoint signed",
            bool(checkpoint),
        ),
        (_events_told(bundle), bundle.is_ready or bool(job and checkpoint and job.total and job.done >= job.total)),
        ("Signed, and verified as an auditor would", bundle.is_ready),
        ("Issued, with its digest in the log", bundle.is_ready),
    ]
    steps: list[Step] = []
    is_next = bundle.is_building
    for text, is_done in told:
        if is_done:
            steps.append(Step(text, "check", "ok"))
        else:
            steps.append(Step(text, "dots", "wait" if is_next else ""))
            is_next = False
    return steps


def _events_told(bundle: Bundle) -> str:
    job = bundle.job
    if bundle.is_ready:
        return f"{formats.count(bundle.events)} events written with their proofs"
    if job is not None and job.total:
        return f"{formats.count(job.done)} of {formats.count(job.total)} events written"
    return "Events written with their proofs"


@needs(Permission.BUNDLE)  # type: ignore[arg-type]  # a streamed file is a response too
@require_GET
def download(request: SignedInRequest, pk: UUID) -> FileResponse | HttpResponse:
    """The file that the log says was issued. Who took it stands in the log before the first byte leaves."""
    bundle = _bundle(pk)
    if not bundle.is_ready:
        raise Http404
    try:
        file = queries.open_issued(bundle)
    except FileNotFoundError:
        security.error("the file of an issued bundle is gone", extra={"bundle": str(pk)})
        return _refusal(410, "The file of this bundle is gone from the server. Ask for a new bundle.")
    except AlteredError as error:
        security.error("an issued bundle was altered", extra={"bundle": str(pk), "found": str(error)})
        return _refusal(409, f"Nothing is sent: this bundle is not what the log says was issued: {error}.")
    services.record_download(bundle=bundle, user=request.user, now=timezone.now())
    return FileResponse(file, as_attachment=True, filename=bundle.file_name, content_type="application/zip")


def _refusal(status: int, text: str) -> HttpResponse:
    return HttpResponse(f"{text}\n", status=status, content_type="text/plain; charset=utf-8")


@needs(Permission.BUNDLE)
@require_POST
def cancel(request: SignedInRequest, pk: UUID) -> HttpResponse:
    bundle = _bundle(pk)
    if services.cancel_bundle(bundle=bundle, user=request.user):
        messages.success(request, "It stops at its next step.")
    else:
        messages.warning(request, "It had ended already.")
    return redirect("bundles-detail", pk=pk)


@login_not_required
@require_safe
def root(request: HttpRequest) -> HttpResponse:  # noqa: ARG001 -- Django's signature
    """The root above the signer of bundles, for anyone: it is what a bundle is checked by, and holds no secret."""
    try:
        text = signing.load().root_pem
    except BundleError as error:
        raise Http404 from error
    return _file(text, "ROOT.pem", "application/x-pem-file")


@login_not_required
@require_safe
def vkey(request: HttpRequest) -> HttpResponse:  # noqa: ARG001 -- Django's signature
    """The log's verifier key, for anyone."""
    return _file(f"{ledger.vkey()}\n", "log.vkey", "text/plain; charset=utf-8")


def _file(text: str, name: str, content_type: str) -> HttpResponse:
    response = HttpResponse(text, content_type=content_type)
    response["Content-Disposition"] = f'attachment; filename="{name}"'
    return response
