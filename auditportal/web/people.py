"""People and tokens, for admins. Every change shows before and after, and lands in the timeline."""

from __future__ import annotations

from datetime import timedelta

from django import forms
from django.contrib import messages
from django.http import HttpResponse
from django.shortcuts import get_object_or_404, redirect, render
from django.utils import timezone
from django.views.decorators.http import require_http_methods, require_POST, require_safe

from auditportal.accounts import queries, services
from auditportal.accounts.errors import AccountError
from auditportal.accounts.models import ApiToken, User
from auditportal.accounts.roles import Permission, Role
from auditportal.web.access import SignedInRequest, needs

LIFETIMES = {"90": "90 days", "365": "1 year", "": "never"}


class RoleForm(forms.Form):
    role = forms.ChoiceField(choices=[(role.value, role.value) for role in Role if role != Role.SERVICE])
    reason = forms.CharField(max_length=500)


class TokenForm(forms.Form):
    name = forms.CharField(max_length=100, help_text="What it is for.")
    source_id = forms.CharField(
        max_length=100, label="Source", help_text="Its events are recorded as coming from here."
    )
    scopes = forms.MultipleChoiceField(
        choices=[(scope, scope) for scope in services.SCOPES],
        widget=forms.CheckboxSelectMultiple,
        initial=["events:write"],
    )
    days = forms.ChoiceField(choices=LIFETIMES.items(), required=False, label="Expires after", initial="365")


@needs(Permission.ADMINISTER)
@require_safe
def index(request: SignedInRequest) -> HttpResponse:
    return render(
        request, "settings/people.html", {"people": queries.people(), "roles": [r for r in Role if r != Role.SERVICE]}
    )


@needs(Permission.ADMINISTER)
@require_POST
def change_role(request: SignedInRequest, pk: int) -> HttpResponse:
    person = get_object_or_404(User, pk=pk)
    form = RoleForm(request.POST)
    if not form.is_valid():
        messages.error(request, "Nothing changed: choose a role and give a reason.")
        return redirect("settings-people")
    try:
        services.change_role(
            user=person,
            role=Role(form.cleaned_data["role"]),
            reason=form.cleaned_data["reason"],
            actor=services.doer(request.user),
            now=timezone.now(),
        )
    except AccountError as error:
        messages.error(request, f"Nothing changed: {error}.")
    else:
        messages.success(request, f"{person.username} was {person.role} and is now {form.cleaned_data['role']}.")
    return redirect("settings-people")


@needs(Permission.ADMINISTER)
@require_http_methods(["GET", "HEAD", "POST"])
def tokens(request: SignedInRequest) -> HttpResponse:
    form = TokenForm(request.POST or None)
    shown = ""
    if request.method == "POST" and form.is_valid():
        now = timezone.now()
        days = form.cleaned_data["days"]
        try:
            _, shown = services.issue_token(
                name=form.cleaned_data["name"],
                source_id=form.cleaned_data["source_id"],
                scopes=form.cleaned_data["scopes"],
                actor=services.doer(request.user),
                now=now,
                expires_at=now + timedelta(days=int(days)) if days else None,
            )
        except AccountError as error:
            form.add_error(None, str(error))
        else:
            form = TokenForm()
    context = {"form": form, "tokens": queries.tokens(), "shown": shown, "now": timezone.now()}
    return render(request, "settings/tokens.html", context)


@needs(Permission.ADMINISTER)
@require_POST
def revoke_token(request: SignedInRequest, pk: int) -> HttpResponse:
    token = get_object_or_404(ApiToken, pk=pk)
    reason = request.POST.get("reason", "").strip()
    if not reason:
        messages.error(request, "Nothing changed: give a reason.")
    else:
        services.revoke_token(token=token, reason=reason, actor=services.doer(request.user), now=timezone.now())
        messages.success(request, f"{token.name} opens nothing from now on.")
    return redirect("settings-tokens")
