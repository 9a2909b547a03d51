"""The registries against the record: runs, what they found, and one finding with both digests side by side."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import date, datetime
from typing import Any

from django.contrib import messages
from django.http import Http404, HttpResponse
from django.shortcuts import redirect, render
from django.utils import timezone
from django.views.decorators.http import require_POST, require_safe

from auditportal.accounts import services as accounts
from auditportal.accounts.queries import display_names
from auditportal.accounts.roles import Permission
from auditportal.approvals import queries as approvals
from auditportal.catalog import queries as catalog
from auditportal.catalog.models import Version
from auditportal.jobs import queries as jobs
from auditportal.jobs.models import Job
from auditportal.reconciliation import queries, services
from auditportal.reconciliation.models import Check, Verdict
from auditportal.reconciliation.queries import Night, RunSummary
from auditportal.web import formats
from auditportal.web.access import SignedInRequest, needs

SHOWN_CLOSED = 20
SHOWN_CHECKS = 500  # of those that matched, and of those that did not
SHOWN_FINDINGS = 200
MOST_PK = 2**63 - 1  # of a bigint
STATE_TONES = {"queued": "info", "running": "info", "done": "", "failed": "bad", "cancelled": "warn"}


@dataclass(frozen=True, slots=True)
class Outcome:
    """A run in a word, a sign and a tone. What did not answer is amber, and neither a match nor missing."""

    word: str
    sign: str
    tone: str


def _outcome(run: RunSummary) -> Outcome:
    job = run.job
    if job.is_active:
        return Outcome(job.state, "~", "info")
    if job.state != Job.State.DONE:
        return Outcome(job.state, "-", STATE_TONES[job.state])
    if run.bad:
        return Outcome(f"{formats.count(run.bad)} wrong", "!", "bad")
    if run.unreachable:
        return Outcome(f"{formats.count(run.unreachable)} unreachable", "?", "warn")
    return Outcome("all match", "=", "ok") if run.verdicts else Outcome("nothing read", "-", "")


@dataclass(frozen=True, slots=True)
class Run:
    """A run as the table shows it."""

    job: Job
    by: str
    scope: str
    verdicts: list[tuple[str, str]]  # count and word, tone
    read: str
    duration: str
    outcome: Outcome


@dataclass(frozen=True, slots=True)
class Cell:
    day: date
    outcome: Outcome
    pk: int | None


def _cell(night: Night) -> Cell:
    if night.run is None:
        return Cell(night.day, Outcome("no run", "-", ""), None)
    return Cell(night.day, _outcome(night.run), night.run.job.pk)


def _runs(found: list[RunSummary], now: datetime) -> list[Run]:
    names = display_names({run.job.requested_by for run in found})
    scopes = queries.scopes(run.job for run in found)
    return [_run(run, names, scopes, now) for run in found]


def _run(run: RunSummary, names: dict[str, str], scopes: dict[int, str], now: datetime) -> Run:
    job = run.job
    by = "the portal" if job.requested_type == "system" else names.get(job.requested_by, job.requested_by)
    verdicts = [(f"{formats.count(count)} {verdict}", _tone(verdict)) for verdict, count in run.verdicts.items()]
    return Run(
        job=job,
        by=formats.visible(by),
        scope=formats.visible(scopes[job.pk]),
        verdicts=verdicts,
        read=formats.size(run.bytes_read),
        duration=_duration(job, now),
        outcome=_outcome(run),
    )


def _tone(verdict: str) -> str:
    return {Verdict.OK: "ok", Verdict.UNREACHABLE: "warn"}.get(Verdict(verdict), "bad")


def _duration(job: Job, now: datetime) -> str:
    if job.started_at is None:
        return ""
    seconds = max(0, int(((job.finished_at or now) - job.started_at).total_seconds()))
    minutes, seconds = divmod(seconds, 60)
    hours, minutes = divmod(minutes, 60)
    if hours:
        return f"{hours} h {minutes} min"
    return f"{minutes} min {seconds} s" if minutes else f"{seconds} s"


@needs(Permission.READ)
@require_safe
def index(request: SignedInRequest) -> HttpResponse:
    now = timezone.now()
    context = {
        "findings": queries.open_findings(SHOWN_FINDINGS),
        "finding_count": queries.open_finding_count(),
        "closed": queries.closed_findings(SHOWN_CLOSED),
        "unreachable": queries.unreachable_versions(SHOWN_FINDINGS),
        "nights": [_cell(night) for night in queries.nights(now)],
        "runs": _runs(queries.runs(), now),
        "may_start": request.user.may(Permission.RECONCILE),
        "labels": approvals.offered_labels(200),
    }
    return render(request, "reconciliation/index.html", context)


@needs(Permission.RECONCILE)
@require_POST
def start(request: SignedInRequest) -> HttpResponse:
    """A run over everything, or over the one version named."""
    label = request.POST.get("version", "").strip()
    version = None
    if label:
        version = None if "\0" in label else catalog.find_version(label)
        if version is None or version.kind != Version.Kind.MODELKIT:
            messages.error(request, f"Nothing was started: no ModelKit is called {formats.visible(label[:600])}.")
            return redirect("reconciliation")
    actor, now = accounts.doer(request.user), timezone.now()
    job = services.request_run(actor=actor, now=now, version=version)
    if job.created_at < now:
        messages.warning(request, "This run was asked for before and has not ended; here it is.")
    else:
        messages.success(request, "Asked for. It begins as soon as a worker is free.")
    return redirect("reconciliation-run", pk=job.pk)


def _job(pk: int) -> Job:
    job = jobs.find(pk, services.KIND) if pk <= MOST_PK else None
    if job is None:
        raise Http404
    return job


@needs(Permission.READ)
@require_safe
def run(request: SignedInRequest, pk: int) -> HttpResponse:
    """The page; for htmx the progress alone, or what is said of it, until the run has ended and the page reloads."""
    job = _job(pk)
    now = timezone.now()
    if getattr(request, "htmx", False):
        part = "said" if request.GET.get("part") == "said" else "progress"
        response = render(request, f"reconciliation/run.html#{part}", {"job": job, "duration": _duration(job, now)})
        if not job.is_active:
            response["HX-Refresh"] = "true"
        return response
    [shown] = _runs([queries.run_summary(job)], now)
    read = queries.checks(job, most=SHOWN_CHECKS)
    context = {
        "run": shown,
        "job": job,
        "duration": shown.duration,
        "state_tone": STATE_TONES[job.state],
        "checks": [_check(check) for check in (*read.apart, *read.matched)],
        "left_out": read.matched_left_out,
        "apart_left_out": read.apart_left_out,
        "may_cancel": job.is_active and request.user.may(Permission.RECONCILE),
    }
    return render(request, "reconciliation/run.html", context)


@dataclass(frozen=True, slots=True)
class CheckView:
    check: Check
    tone: str
    icon: str
    read: str


def _check(check: Check) -> CheckView:
    tone = _tone(check.verdict)
    icon = {"ok": "check", "warn": "warn", "bad": "x"}[tone]
    return CheckView(check, tone, icon, formats.size(check.bytes_read) if check.bytes_read else "")


@needs(Permission.RECONCILE)
@require_POST
def cancel(request: SignedInRequest, pk: int) -> HttpResponse:
    job = _job(pk)
    if services.cancel_run(job=job, actor=accounts.doer(request.user), now=timezone.now()):
        messages.success(request, "It stops at its next step. What it has read so far stays.")
    else:
        messages.warning(request, "It had ended already.")
    return redirect("reconciliation-run", pk=pk)


@needs(Permission.READ)
@require_safe
def finding(request: SignedInRequest, pk: int) -> HttpResponse:
    found = queries.find(pk) if pk <= MOST_PK else None
    if found is None:
        raise Http404
    version = found.version
    context: dict[str, Any] = {
        "finding": found,
        "version": version,
        "blocked": [item for item in approvals.promotions_of(version) if item.is_open] if found.is_open else [],
        "placed": [item for item in catalog.placements(version.model) if item.version_id == version.pk],
        "may_start": request.user.may(Permission.RECONCILE),
    }
    return render(request, "reconciliation/finding.html", context)
