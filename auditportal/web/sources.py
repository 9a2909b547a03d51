"""Sources and their deliveries: what was told to us, and what became of it. Raw bytes are shown, never executed."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Any
from urllib.parse import urlencode

from django import forms
from django.conf import settings
from django.contrib import messages
from django.http import Http404, HttpResponse
from django.shortcuts import redirect, render
from django.utils import timezone
from django.views.decorators.http import require_http_methods, require_POST, require_safe

from auditportal.accounts.roles import Permission
from auditportal.accounts.services import doer, is_source_name
from auditportal.ingest import deliveries, pulls, queries, sources
from auditportal.ingest.errors import SourceError
from auditportal.ingest.models import Delivery, Source
from auditportal.web import formats
from auditportal.web.access import SignedInRequest, needs

PAGE = 50
RECENT = 10
SHOWN_BYTES = 64 * 1024  # of a body on a page; the whole of it is a download
TONES = {
    Delivery.State.WAITING: "info",
    Delivery.State.RECORDED: "ok",
    Delivery.State.NOTED: "",
    Delivery.State.TEST: "",
    Delivery.State.UNKNOWN: "warn",
}
JOB_TONES = {"done": "ok", "failed": "bad", "cancelled": "warn", "running": "info", "queued": "info"}


class SourceForm(forms.Form):
    kind = forms.ChoiceField(choices=Source.Kind.choices)
    id = forms.CharField(
        max_length=100,
        label="Name",
        help_text="Stands in its events for ever: registry or mlflow:prod.",
    )
    url = forms.CharField(max_length=300, label="Address", help_text="Where we ask it: https://registry.example.org")
    hosts = forms.CharField(
        required=False,
        label="Further hosts",
        widget=forms.Textarea(attrs={"rows": 2}),
        help_text="One host or host:port a line: where its redirects and token server may lead. No other is contacted.",
    )
    repositories = forms.CharField(
        required=False,
        widget=forms.Textarea(attrs={"rows": 2}),
        help_text="Registries only, one a line: what is reconciled besides what pushes name.",
    )
    username = forms.CharField(required=False, max_length=200, label="User", help_text="With the right to read.")
    password = forms.CharField(required=False, max_length=500, widget=forms.PasswordInput)
    hook_secret = forms.CharField(
        required=False,
        max_length=500,
        widget=forms.PasswordInput,
        label="Hook secret",
        help_text="MLflow only: what its webhooks are signed with.",
    )

    def clean(self) -> dict[str, Any]:
        given: dict[str, Any] = super().clean() or {}
        if given.get("kind") == Source.Kind.OCI and given.get("hook_secret"):
            self.add_error("hook_secret", "A registry signs nothing: it sends an API token with the scope hooks.")
        if given.get("kind") == Source.Kind.MLFLOW and given.get("repositories"):
            self.add_error("repositories", "MLflow has no repositories: its registry is read whole.")
        return given


class SwitchForm(forms.Form):
    is_active = forms.ChoiceField(choices=[("on", "on"), ("off", "off")])
    reason = forms.CharField(max_length=500)


@dataclass(frozen=True, slots=True)
class Row:
    """A source as the list shows it."""

    source: Source
    lag: str
    state: str
    tone: str

    @classmethod
    def of(cls, source: Any, now: datetime) -> Row:  # noqa: ANN401 -- with the annotations of its query
        state, tone = ("on", "ok") if source.is_active else ("off", "warn")
        if source.pull_error:
            state, tone = "unreachable", "bad"
        lag = formats.ago(source.waiting_since, now).replace(" ago", "") if source.waiting_since else "none"
        return cls(source, lag, state, tone)


@needs(Permission.ADMINISTER)
@require_http_methods(["GET", "HEAD", "POST"])
def index(request: SignedInRequest) -> HttpResponse:
    form = SourceForm(request.POST or None, initial={"kind": Source.Kind.OCI})
    if request.method == "POST" and form.is_valid():
        given = form.cleaned_data
        try:
            source = sources.register(
                id=given["id"],
                kind=given["kind"],
                url=given["url"],
                hosts=given["hosts"].split(),
                repositories=given["repositories"].split(),
                username=given["username"],
                password=given["password"],
                hook_secret=given["hook_secret"],
                actor=doer(request.user),
                now=timezone.now(),
            )
        except SourceError as error:
            form.add_error(None, f"Nothing was added: {error}.")
        else:
            messages.success(request, f"{source.pk} is a source from now on.")
            return redirect("settings-source", pk=source.pk)
    now = timezone.now()
    context = {"form": form, "rows": [Row.of(source, now) for source in queries.sources()], "may_administer": True}
    return render(request, "settings/sources.html", context, status=400 if form.errors else 200)


def _source(pk: str) -> Source:
    source = queries.find_source(pk) if is_source_name(pk) else None
    if source is None:
        raise Http404
    return source


@needs(Permission.ADMINISTER)
@require_safe
def detail(request: SignedInRequest, pk: str) -> HttpResponse:
    source = _source(pk)
    recent = queries.deliveries(source=pk, most=RECENT)
    context = {
        "source": source,
        "row": Row.of(source, timezone.now()),
        "jobs": [(job, JOB_TONES[job.state]) for job in queries.pulls_of(source, RECENT)],
        "deliveries": [(item, TONES[Delivery.State(item.state)]) for item in recent],
        "portal": settings.PUBLIC_URL,
        "is_registry": source.kind == Source.Kind.OCI,
        "may_administer": True,
    }
    return render(request, "settings/source.html", context)


@needs(Permission.ADMINISTER)
@require_POST
def pull(request: SignedInRequest, pk: str) -> HttpResponse:
    source = _source(pk)
    if source.kind != Source.Kind.MLFLOW or not source.is_active:
        messages.error(request, "Nothing is pulled: only an MLflow server that is switched on.")
    else:
        is_full = request.POST.get("full") == "1"
        pulls.request(source, actor=doer(request.user), is_full=is_full)
        messages.success(request, f"{source.pk} is pulled {'whole ' if is_full else ''}by the next free worker.")
    return redirect("settings-source", pk=pk)


@needs(Permission.ADMINISTER)
@require_POST
def switch(request: SignedInRequest, pk: str) -> HttpResponse:
    source = _source(pk)
    form = SwitchForm(request.POST)
    if not form.is_valid():
        messages.error(request, "Nothing changed: give a reason.")
        return redirect("settings-source", pk=pk)
    is_active = form.cleaned_data["is_active"] == "on"
    sources.set_active(
        source=source,
        is_active=is_active,
        reason=form.cleaned_data["reason"],
        actor=doer(request.user),
        now=timezone.now(),
    )
    messages.success(request, f"{source.pk} is {'asked' if is_active else 'not asked any more'} from now on.")
    return redirect("settings-source", pk=pk)


@needs(Permission.ADMINISTER, Permission.DISCLOSE)
@require_safe
def delivery_list(request: SignedInRequest) -> HttpResponse:
    state = request.GET.get("state", "")
    if state not in Delivery.State.values:
        state = ""
    source, before = request.GET.get("source", ""), request.GET.get("before", "")
    source = source if is_source_name(source) else ""
    found = queries.deliveries(
        source=source, state=state, before=int(before) if _is_row_id(before) else None, most=PAGE + 1
    )
    older = {"source": source, "state": state, "before": found[PAGE - 1].pk} if len(found) > PAGE else {}
    context = {
        "deliveries": [(item, TONES[Delivery.State(item.state)]) for item in found[:PAGE]],
        "older": urlencode({name: value for name, value in older.items() if value}),
        "states": Delivery.State.values,
        "state": state,
        "source": source,
        "sources": [item.pk for item in Source.objects.order_by("pk").only("pk")],
        "may_administer": request.user.may(Permission.ADMINISTER),
    }
    return render(request, "settings/deliveries.html", context)


def _is_row_id(text: str) -> bool:
    return text.isascii() and text.isdigit() and len(text) < len(str(2**63))


def _delivery(pk: int) -> Delivery:
    found = queries.find_delivery(pk) if _is_row_id(str(pk)) else None
    if found is None:
        raise Http404
    return found


@needs(Permission.ADMINISTER, Permission.DISCLOSE)
@require_safe
def delivery(request: SignedInRequest, pk: int) -> HttpResponse:
    """Headers and body with visible escapes. That somebody looked is an event, and the page says so."""
    found = _delivery(pk)
    body = deliveries.disclose(found, actor=doer(request.user), is_download=False, now=timezone.now())
    context = {
        "delivery": found,
        "tone": TONES[Delivery.State(found.state)],
        "headers": sorted(found.headers.items()),
        "text": formats.visible_lines(body[:SHOWN_BYTES].decode("utf-8", "backslashreplace")),
        "size": formats.size(len(body)),
        "is_cut": len(body) > SHOWN_BYTES,
        "may_administer": request.user.may(Permission.ADMINISTER),
    }
    return render(request, "settings/delivery.html", context)


@needs(Permission.ADMINISTER, Permission.DISCLOSE)
@require_safe
def delivery_raw(request: SignedInRequest, pk: int) -> HttpResponse:
    """The bytes as they came, as a file that no browser opens."""
    found = _delivery(pk)
    body = deliveries.disclose(found, actor=doer(request.user), is_download=True, now=timezone.now())
    response = HttpResponse(body, content_type="application/octet-stream")
    response["Content-Disposition"] = f'attachment; filename="delivery-{found.pk}.bin"'
    return response
