"""Promotions: the queue, asking with the conditions in view, and signing or rejecting on one page."""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any
from uuid import UUID

from django import forms
from django.contrib import messages
from django.core.exceptions import ValidationError
from django.http import Http404, HttpResponse
from django.shortcuts import redirect, render
from django.utils import timezone
from django.views.decorators.http import require_http_methods, require_POST, require_safe

from auditportal.accounts.models import User
from auditportal.accounts.roles import Permission
from auditportal.approvals import gates, queries, services
from auditportal.approvals.errors import ApprovalError
from auditportal.approvals.models import Decision, Promotion
from auditportal.approvals.policies import POLICIES
from auditportal.approvals.queries import Packet, Signature, Standing
from auditportal.approvals.services import Signed, Turned
from auditportal.catalog import queries as catalog
from auditportal.catalog.models import Placement, Version
from auditportal.ledger import queries as ledger, search
from auditportal.ledger.drafts import PORTAL
from auditportal.ledger.queries import RecordedEvent
from auditportal.ledger.query import Form, Query, Term, Value
from auditportal.web import formats
from auditportal.web.access import SignedInRequest, needs
from auditportal.web.rows import display
from auditproof import approvals

PROOF_WAIT_S = 1.0  # a governed act is shown with its checkpoint; the sealer needs less
SHOWN_DECIDED = 50
SHOWN_LABELS = 200  # offered while typing; any other label may be typed out
SHOWN_EVENTS = 50
STATE_TONES = {"open": "info", "promoted": "ok", "rejected": "bad", "withdrawn": ""}
FOR_EVER = "It stands in the log for ever: no personal data."


class ChoiceForm(forms.Form):
    version = forms.CharField(max_length=600)
    environment = forms.ChoiceField(choices=[(name, name) for name in POLICIES])

    def clean_version(self) -> Version:
        label = self.cleaned_data["version"]
        version = catalog.find_version(label)
        if version is None:
            raise ValidationError(f"No version is called {formats.visible(label)}.")
        return version


class AskForm(ChoiceForm):
    reason = forms.CharField(
        max_length=services.MOST_REASON,
        widget=forms.Textarea(attrs={"rows": 3}),
        help_text="Why this version should go there. It stands in the log for ever: no personal data.",
    )


class DecisionForm(forms.Form):
    """`seen` is what the page was drawn from; without it nothing can be signed, and the service says so."""

    seen = forms.CharField(widget=forms.HiddenInput, required=False)
    password = forms.CharField(
        strip=False,
        max_length=4096,
        label="Your password",
        widget=forms.PasswordInput(attrs={"autocomplete": "current-password"}),
    )


class ApproveForm(DecisionForm):
    meaning = forms.ChoiceField(
        choices=[(meaning, meaning.capitalize()) for meaning in services.MEANINGS["approve"]],
        widget=forms.RadioSelect,
        label="Meaning of the signature",
    )
    comment = forms.CharField(
        max_length=services.MOST_REASON, required=False, label="Comment, if there is one to make", help_text=FOR_EVER
    )
    field_order = ("meaning", "comment", "password")


class RejectForm(DecisionForm):
    comment = forms.CharField(
        max_length=services.MOST_REASON,
        label="Reason",
        widget=forms.Textarea(attrs={"rows": 2}),
        help_text=FOR_EVER,
    )
    field_order = ("comment", "password")


FORMS: dict[str, type[DecisionForm]] = {"approve": ApproveForm, "reject": RejectForm}


def _form(intent: str, *, is_barred: bool, seen: str = "", given: Any = None) -> DecisionForm:  # noqa: ANN401 -- form data
    """A barred person may press the button without filling anything in: the refusal is worth its record."""
    return FORMS[intent](given, initial={"seen": seen}, auto_id=f"{intent}-%s", use_required_attribute=not is_barred)


@dataclass(frozen=True, slots=True)
class Slot:
    """One place for an approval, filled or not."""

    number: int
    signature: Signature | None
    when: str


@dataclass(frozen=True, slots=True)
class SignatureView:
    """A signature with what 21 CFR 11.50 asks for, and the exact bytes under it."""

    decision: Decision
    is_struck: bool
    stale: str  # what changed under it
    trouble: str  # what the log has otherwise; such a signature is shown as broken
    statement: str
    challenge: str


@needs(Permission.READ)
@require_safe
def index(request: SignedInRequest) -> HttpResponse:
    standings = queries.queue()
    mine, others = _divided(standings, request.user)
    context = {
        "mine": mine,
        "others": others,
        "decided": queries.decided(SHOWN_DECIDED),
        "now": timezone.now(),
        "tones": STATE_TONES,
        "may_ask": request.user.may(Permission.REQUEST),
    }
    return render(request, "approvals/index.html", context)


def _divided(standings: Sequence[Standing], user: User) -> tuple[list[Standing], list[Standing]]:
    mine = [item for item in standings if item.waits_for(user)]
    return mine, [item for item in standings if not item.waits_for(user)]


@needs(Permission.REQUEST)
@require_http_methods(["GET", "HEAD", "POST"])
def new(request: SignedInRequest) -> HttpResponse:
    if request.method == "POST":
        return _ask(request)
    given = request.GET if "version" in request.GET else None
    choice = ChoiceForm(given, initial={"environment": request.GET.get("environment", "production")})
    template = "approvals/new.html#conditions" if getattr(request, "htmx", False) else "approvals/new.html"
    return render(request, template, _asking(request, choice, AskForm()))


def _ask(request: SignedInRequest) -> HttpResponse:
    form = AskForm(request.POST)
    if form.is_valid():
        try:
            promotion = services.open_promotion(
                version=form.cleaned_data["version"],
                environment=form.cleaned_data["environment"],
                reason=form.cleaned_data["reason"],
                user=request.user,
                now=timezone.now(),
            )
        except ApprovalError as error:
            form.add_error(None, f"Nothing was asked: {error}.")
        else:
            ledger.wait_for_checkpoint(promotion.seq or 0, timeout_s=PROOF_WAIT_S)
            messages.success(request, "Asked. The request stands in the log and waits for signatures.")
            return redirect("approvals-detail", pk=promotion.pk)
    return render(request, "approvals/new.html", _asking(request, ChoiceForm(request.POST), form), status=400)


def _asking(request: SignedInRequest, choice: ChoiceForm, form: AskForm) -> dict[str, Any]:
    version, environment = None, ""
    if choice.is_bound and choice.is_valid():
        version, environment = choice.cleaned_data["version"], choice.cleaned_data["environment"]
    now = timezone.now()
    conditions = queries.preview(version, environment, user=request.user, now=now) if version else []
    return {
        "choice": choice,
        "form": form,
        "version": version,
        "environment": environment,
        "conditions": conditions,
        "unmet": sum(not item.holds for item in conditions if item.key != "approvals"),
        "known": queries.open_request(version, environment) if version else None,
        "placed": _placed(version, environment) if version else None,
        "labels": queries.offered_labels(SHOWN_LABELS),
    }


@dataclass(frozen=True, slots=True)
class Place:
    """What stands in the environment now; `trouble` is what the log has otherwise."""

    placement: Placement
    trouble: str

    @property
    def version(self) -> Version:
        return self.placement.version

    @property
    def version_id(self) -> int:
        return self.placement.version_id

    @property
    def since(self) -> datetime:
        return self.placement.since


def _placed(version: Version, environment: str) -> Place | None:
    found = [item for item in catalog.placements(version.model) if item.environment == environment]
    told = queries.explained(found)
    return next((Place(item, told[item.pk].trouble) for item in found), None)


def _promotion(pk: UUID) -> Promotion:
    promotion = queries.find(pk)
    if promotion is None:
        raise Http404
    return promotion


@needs(Permission.READ)
@require_safe
def detail(request: SignedInRequest, pk: UUID) -> HttpResponse:
    return _page(request, _promotion(pk))


@needs(Permission.READ)
@require_POST
def sign(request: SignedInRequest, pk: UUID) -> HttpResponse:
    """For every reader: who may not sign is refused by the service, on the record."""
    return _decide(request, _promotion(pk), "approve")


@needs(Permission.READ)
@require_POST
def reject(request: SignedInRequest, pk: UUID) -> HttpResponse:
    """For every reader, as `sign`."""
    return _decide(request, _promotion(pk), "reject")


def _decide(request: SignedInRequest, promotion: Promotion, intent: str) -> HttpResponse:
    now = timezone.now()
    is_barred = bool(queries.bars(promotion, queries.packet(promotion, now=now), request.user))
    form = _form(intent, is_barred=is_barred, given=request.POST)
    if not form.is_valid() and not is_barred:
        return _page(request, promotion, wrong={intent: form}, status=400)
    outcome = services.sign(
        promotion=promotion,
        user=request.user,
        intent=intent,
        meaning=form.cleaned_data.get("meaning", ""),
        comment=form.cleaned_data.get("comment", ""),
        password=form.cleaned_data.get("password", ""),
        seen=form.cleaned_data.get("seen", ""),
        now=now,
    )
    if isinstance(outcome, Turned):
        return _turned(request, promotion, intent, outcome)
    return _signed(request, promotion, intent, outcome)


def _signed(request: SignedInRequest, promotion: Promotion, intent: str, outcome: Signed) -> HttpResponse:
    last = outcome.seq + 1 if outcome.promoted else outcome.seq  # the promotion is the entry after its last signature
    ledger.wait_for_checkpoint(last, timeout_s=PROOF_WAIT_S)
    label, environment = formats.visible(promotion.version.label), promotion.environment
    if outcome.promoted:
        messages.success(request, f"Signed, and promoted: {label} stands in {environment} from now on.")
    elif intent == "reject":
        messages.success(request, "Rejected. The request is closed.")
    else:
        messages.success(request, "Signed. More approvals are needed.")
    return redirect("approvals-detail", pk=promotion.pk)


def _turned(request: SignedInRequest, promotion: Promotion, act: str, outcome: Turned) -> HttpResponse:
    ledger.wait_for_checkpoint(outcome.seq, timeout_s=PROOF_WAIT_S)
    return _page(request, _promotion(promotion.pk), refused=(act, outcome), status=409)


@needs(Permission.READ)
@require_POST
def withdraw(request: SignedInRequest, pk: UUID) -> HttpResponse:
    """For every reader: only who asked may withdraw, and anybody else's attempt is on the record."""
    promotion = _promotion(pk)
    outcome = services.withdraw(promotion=promotion, user=request.user, now=timezone.now())
    if isinstance(outcome, Turned):
        return _turned(request, promotion, "withdraw", outcome)
    ledger.wait_for_checkpoint(outcome, timeout_s=PROOF_WAIT_S)
    messages.success(request, "Withdrawn. The request is closed.")
    return redirect("approvals-detail", pk=promotion.pk)


def _page(
    request: SignedInRequest,
    promotion: Promotion,
    *,
    wrong: dict[str, DecisionForm] | None = None,
    refused: tuple[str, Turned] | None = None,
    status: int = 200,
) -> HttpResponse:
    now = timezone.now()
    packet = queries.packet(promotion, now=now)
    user = request.user
    bars = queries.bars(promotion, packet, user)
    decision_forms = {intent: _form(intent, is_barred=bool(bars), seen=packet.fingerprint) for intent in FORMS} | (
        wrong or {}
    )
    conditions = packet.conditions if promotion.is_open else gates.of_version(packet.policy, packet.facts)
    recorded = _recorded(promotion, now)
    context = {
        "promotion": promotion,
        "version": promotion.version,
        "packet": packet,
        "conditions": conditions,
        "unmet": [item.title for item in conditions if not item.holds and item.key != "approvals"],
        "slots": _slots(promotion, packet),
        "signatures": [_signature(item, promotion, packet) for item in packet.decisions],
        "tone": STATE_TONES[promotion.state],
        "placed": _placed(promotion.version, promotion.environment),
        "lost": _lost(recorded, packet),
        "bars": bars,
        "is_mine": promotion.requested_by_id == user.pk,
        "approve": decision_forms["approve"],
        "reject": decision_forms["reject"],
        "statement": _would_sign(promotion, packet, user, now) if promotion.is_open and not bars else "",
        "refused": refused,
        "rows": display(recorded),
        "now": now,
    }
    return render(request, "approvals/detail.html", context, status=status)


def _slots(promotion: Promotion, packet: Packet) -> list[Slot]:
    """Approvals in the order they were given; while the request is open, only those that count now."""
    found = [
        item
        for item in packet.decisions
        if item.decision.intent == Decision.Intent.APPROVE
        and not item.trouble
        and not (item.is_stale and promotion.is_open)
    ]
    count = max(packet.policy.approvals, len(found))
    filled: list[Signature | None] = [*found, *[None] * (count - len(found))]
    return [Slot(number, item, _when(item)) for number, item in enumerate(filled, 1)]


def _when(item: Signature | None) -> str:
    return formats.moment(item.decision.at) if item else ""


def _signature(item: Signature, promotion: Promotion, packet: Packet) -> SignatureView:
    raw = bytes(item.decision.statement)
    changed = []
    if item.decision.policy_digest != packet.policy.digest:
        changed.append("the policy")
    if item.decision.evidence_digest != packet.evidence_digest:
        changed.append("the evidence")
    return SignatureView(
        decision=item.decision,
        is_struck=bool(item.trouble) or (item.is_stale and promotion.is_open),
        stale=" and ".join(changed),
        trouble=item.trouble,
        statement=_indented(raw),
        challenge=approvals.challenge(raw).hex(),
    )


def _would_sign(promotion: Promotion, packet: Packet, user: User, now: datetime) -> str:
    """The statement as pressing the button now would make it; salt, nonce and time are drawn anew then."""
    raw = services.make_statement(
        promotion=promotion,
        packet=packet,
        signer=user,
        intent="approve",
        meaning="the meaning you choose",
        salt=os.urandom(services.SALT_BYTES),
        now=now,
    )
    return _indented(raw)


def _indented(raw: bytes) -> str:
    """A statement to be read; one that somebody edited may be anything, and is shown as it is."""
    try:
        text = json.dumps(json.loads(raw), indent=2, ensure_ascii=False)
    except (ValueError, RecursionError):
        text = raw.decode("utf-8", "backslashreplace")
    return formats.visible_lines(text)


def _recorded(promotion: Promotion, now: datetime) -> list[RecordedEvent]:
    """What stands in the log about this request, the refused attempts too."""
    query = Query(
        (
            Term("subject", (Value(Form.EXACT, f"model_version:{promotion.version.label}"),)),
            Term("meta.request", (Value(Form.EXACT, str(promotion.pk)),)),
        )
    )
    try:
        page = search.page(query, now=now, resolve=lambda _: [], after=None, most=SHOWN_EVENTS)
    except search.SearchTooSlowError:
        return []
    return ledger.recorded(page.seqs)


def _lost(recorded: Sequence[RecordedEvent], packet: Packet) -> list[int]:
    """Signatures that stand in the log and have no row any more."""
    known = {item.decision.seq for item in packet.decisions}
    return [
        event.seq
        for event in recorded
        if event.body is not None
        and event.body["source"]["id"] == PORTAL
        and (event.body["action"], event.body["outcome"]) in (("approve", "done"), ("reject", "done"))
        and event.seq not in known
    ]
