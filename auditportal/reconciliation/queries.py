from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta

from django.db.models import Count, QuerySet, Sum

from auditportal.catalog.models import Version
from auditportal.jobs.models import Job
from auditportal.reconciliation.models import Check, Finding, Verdict
from auditportal.reconciliation.services import EVERYTHING, KIND

SHOWN_RUNS = 60
NIGHTS = 60
BYTES = ("version__manifest", "version__config", "version__card")  # large, and no list shows them


@dataclass(frozen=True, slots=True)
class RunSummary:
    """A run as a list shows it."""

    job: Job
    verdicts: dict[str, int]
    bytes_read: int

    @property
    def bad(self) -> int:
        return sum(count for verdict, count in self.verdicts.items() if verdict not in ("ok", "unreachable"))

    @property
    def unreachable(self) -> int:
        return self.verdicts.get(Verdict.UNREACHABLE, 0)


@dataclass(frozen=True, slots=True)
class Night:
    """The last run over everything that began on this day (UTC); None where there was none."""

    day: date
    run: RunSummary | None


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


def nights(now: datetime, most: int = NIGHTS) -> list[Night]:
    """The last days since there are runs, the oldest first; three queries however many runs there were."""
    today = now.astimezone(UTC).date()
    first = today - timedelta(days=most - 1)
    since = datetime(first.year, first.month, first.day, tzinfo=UTC)
    full = Job.objects.filter(kind=KIND, key=EVERYTHING)
    last = {job.created_at.astimezone(UTC).date(): job for job in full.filter(created_at__gte=since).order_by("id")}
    if not full.filter(created_at__lt=since).exists():  # days before the first run ever are no missed nights
        first = min(last, default=today)
    verdicts, sizes = _counts([job.pk for job in last.values()])
    days = (first + timedelta(days=number) for number in range((today - first).days + 1))
    return [Night(day, _summary(last[day], verdicts, sizes) if day in last else None) for day in days]


def scopes(jobs: Iterable[Job]) -> dict[int, str]:
    """What each run is about: the version's label, or the scope's own word."""
    jobs = list(jobs)
    ids = {job.parameters["version"] for job in jobs if "version" in job.parameters}
    labels = dict(Version.objects.filter(pk__in=ids).values_list("pk", "label"))
    return {job.pk: labels.get(job.parameters.get("version"), job.key) for job in jobs}


@dataclass(frozen=True, slots=True)
class Read:
    """What a run read, as much of it as a page bears; `left_out` is how many of each kind are not here."""

    apart: list[Check]  # what is wrong first, then what did not answer
    matched: list[Check]
    apart_left_out: int
    matched_left_out: int


def checks(job: Job, *, most: int) -> Read:
    """Up to so many of what did not match, and of what did. A registry that lost everything may have lost a lot."""
    found = Check.objects.filter(job=job).select_related("version").defer(*BYTES).order_by("version__label", "id")
    wrong = found.exclude(verdict__in=[Verdict.OK, Verdict.UNREACHABLE])
    apart = [*wrong[:most], *found.filter(verdict=Verdict.UNREACHABLE)[:most]][:most]
    matched = list(found.filter(verdict=Verdict.OK)[:most])
    totals = Counter(dict(Check.objects.filter(job=job).values_list("verdict").annotate(n=Count("id"))))
    ok = totals.pop(Verdict.OK, 0)
    return Read(apart, matched, totals.total() - len(apart), ok - len(matched))


def open_findings(most: int) -> list[Finding]:
    return list(_findings().filter(closed_at=None).order_by("-opened_at")[:most])


def open_finding_count() -> int:
    return Finding.objects.filter(closed_at=None).count()


def _findings() -> QuerySet[Finding]:
    return Finding.objects.select_related("version", "version__model").defer(*BYTES)


def find(finding_id: int) -> Finding | None:
    return _findings().filter(pk=finding_id).first()


def findings_of(version: Version) -> list[Finding]:
    return list(Finding.objects.filter(version=version).order_by("closed_at", "-opened_at"))


def open_findings_of(version: Version) -> list[Finding]:
    return list(Finding.objects.filter(version=version, closed_at=None).order_by("opened_at"))


def findings_by_version(versions: Sequence[int]) -> dict[int, list[Finding]]:
    """Every finding of many versions, open or closed, in one query."""
    found: dict[int, list[Finding]] = {}
    for finding in Finding.objects.filter(version_id__in=versions):
        found.setdefault(finding.version_id, []).append(finding)
    return found


def closed_findings(most: int) -> list[Finding]:
    return list(_findings().exclude(closed_at=None).order_by("-closed_at")[:most])


def unreachable_versions(most: int) -> list[Version]:
    """Whose registry gave no usable answer when last asked: neither a match nor missing."""
    found = Version.objects.filter(check_state=Version.Check.UNREACHABLE).select_related("model")
    return list(found.defer("manifest", "config", "card").order_by("label")[:most])
