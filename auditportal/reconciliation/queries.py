from __future__ import annotations

from collections import Counter
from dataclasses import dataclass

from django.db.models import Count, Sum

from auditportal.catalog.models import Version
from auditportal.jobs.models import Job
from auditportal.reconciliation.models import Check, Finding
from auditportal.reconciliation.services import KIND

SHOWN_RUNS = 60  # nights


@dataclass(frozen=True, slots=True)
class RunSummary:
    """A run as a list shows it."""

    job: Job
    verdicts: dict[str, int]
    bytes_read: int

    @property
    def is_clean(self) -> bool:
        return bool(self.verdicts) and set(self.verdicts) == {"ok"}

    @property
    def bad(self) -> int:
        return sum(count for verdict, count in self.verdicts.items() if verdict not in ("ok", "unreachable"))


def runs(most: int = SHOWN_RUNS) -> list[RunSummary]:
    """The newest runs with their counts, in two queries however many."""
    jobs = list(Job.objects.filter(kind=KIND).order_by("-id")[:most])
    verdicts, sizes = _counts([job.pk for job in jobs])
    return [_summary(job, verdicts, sizes) for job in jobs]


def _counts(ids: list[int]) -> tuple[dict[int, Counter[str]], dict[int, int]]:
    verdicts: dict[int, Counter[str]] = {}
    sizes: dict[int, int] = {}
    rows = Check.objects.filter(job_id__in=ids).values("job_id", "verdict").annotate(n=Count("id"), b=Sum("bytes_read"))
    for row in rows:
        verdicts.setdefault(row["job_id"], Counter())[row["verdict"]] += row["n"]
        sizes[row["job_id"]] = sizes.get(row["job_id"], 0) + (row["b"] or 0)
    return verdicts, sizes


def _summary(job: Job, verdicts: dict[int, Counter[str]], sizes: dict[int, int]) -> RunSummary:
    return RunSummary(job, dict(sorted(verdicts.get(job.pk, {}).items())), sizes.get(job.pk, 0))


def run_summary(job: Job) -> RunSummary:
    return _summary(job, *_counts([job.pk]))


def checks(job: Job) -> list[Check]:
    """What the run read, what is wrong first."""
    found = Check.objects.filter(job=job).select_related("version").order_by("version__label", "id")
    return sorted(found, key=lambda check: check.verdict == "ok")


def open_findings() -> list[Finding]:
    return list(
        Finding.objects.filter(closed_at=None).select_related("version", "version__model").order_by("-opened_at")
    )


def findings_of(version: Version) -> list[Finding]:
    return list(Finding.objects.filter(version=version).order_by("closed_at", "-opened_at"))


def open_findings_of(version: Version) -> list[Finding]:
    return list(Finding.objects.filter(version=version, closed_at=None).order_by("opened_at"))


def closed_findings(most: int) -> list[Finding]:
    found = Finding.objects.exclude(closed_at=None).select_related("version", "version__model")
    return list(found.order_by("-closed_at")[:most])
