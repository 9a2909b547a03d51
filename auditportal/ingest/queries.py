from __future__ import annotations

from django.db.models import Count, Min, OuterRef, Q, QuerySet, Subquery

from auditportal.ingest.models import Delivery, Source
from auditportal.ingest.pulls import FULL, KIND
from auditportal.jobs.models import Job

_WAITS = Q(deliveries__state=Delivery.State.WAITING)


def sources() -> QuerySet[Source]:
    """All sources by name, with the last delivery, what waits and since when, and what was not understood."""
    newest = Delivery.objects.filter(source=OuterRef("pk")).order_by("-id").values("received_at")[:1]
    unknown = (
        Delivery.objects.filter(source=OuterRef("pk"), state=Delivery.State.UNKNOWN)
        .order_by()
        .values("source")
        .annotate(found=Count("pk"))
        .values("found")
    )
    return Source.objects.annotate(
        delivered_at=Subquery(newest),
        waiting=Count("deliveries", filter=_WAITS),
        waiting_since=Min("deliveries__received_at", filter=_WAITS),
        unknown=Subquery(unknown),
    ).order_by("id")


def find_source(pk: str) -> Source | None:
    return sources().filter(pk=pk).first()


def pulls_of(source: Source, most: int) -> list[Job]:
    """The last pulls of a source, ordinary and full ones, newest first."""
    keys = [source.pk, f"{source.pk} {FULL}"]
    return list(Job.objects.filter(kind=KIND, key__in=keys).order_by("-id")[:most])


def deliveries(*, source: str = "", state: str = "", before: int | None = None, most: int) -> list[Delivery]:
    """The newest first, without their bytes."""
    found = Delivery.objects.defer("body").order_by("-id")
    if source:
        found = found.filter(source=source)
    if state:
        found = found.filter(state=state)
    if before is not None:
        found = found.filter(pk__lt=before)
    return list(found[:most])


def find_delivery(pk: int) -> Delivery | None:
    return Delivery.objects.filter(pk=pk).first()
