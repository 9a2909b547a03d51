"""One's own account."""

from __future__ import annotations

from django import forms
from django.contrib import messages
from django.contrib.auth.decorators import login_not_required
from django.http import HttpRequest, HttpResponse
from django.shortcuts import redirect, render
from django.views.decorators.http import require_http_methods, require_safe

from auditportal.accounts import services
from auditportal.accounts.models import User
from auditportal.web.access import SignedInRequest


class ProfileForm(forms.Form):
    theme = forms.ChoiceField(choices=User.Theme.choices)
    uses_keys = forms.BooleanField(label="Single-key shortcuts", required=False)


@require_http_methods(["GET", "HEAD", "POST"])
def index(request: SignedInRequest) -> HttpResponse:
    user = request.user
    form = ProfileForm(request.POST or None, initial={"theme": user.theme, "uses_keys": user.uses_keys})
    if request.method == "POST" and form.is_valid():
        services.save_profile(user=user, theme=form.cleaned_data["theme"], uses_keys=form.cleaned_data["uses_keys"])
        messages.success(request, "Saved.")
        return redirect("account")
    return render(request, "account/index.html", {"form": form})


@login_not_required
@require_safe
def reset(request: HttpRequest) -> HttpResponse:
    """Passwords are reset by admins: each change of access is recorded."""
    return render(request, "account/password_reset.html")
