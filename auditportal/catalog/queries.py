from __future__ import annotations

from dataclasses import dataclass

from django.db.models import Count, Max, OuterRef, QuerySet, Subquery, Sum

from auditportal.catalog.diff import Part
from auditportal.catalog.models import Layer, Model, Placement, TagObservation, Version

PRODUCTION = "production"


HEAVY = ("manifest", "config", "card")  # up to megabytes; lists leave them out


def models() -> QuerySet[Model]:
    """All models by name, with what a list shows of the newest version and of the one in production."""
    newest = Version.objects.filter(model=OuterRef("pk")).order_by("-id")
    placed = Placement.objects.filter(model=OuterRef("pk"), environment=PRODUCTION)
    return Model.objects.annotate(
        version_count=Count("versions", distinct=True),
        newest_id=Max("versions__id"),
        newest_name=Subquery(newest.values("name")[:1]),
        newest_label=Subquery(newest.values("label")[:1]),
        newest_seen=Subquery(newest.values("first_seen")[:1]),
        newest_card=Subquery(newest.values("card_state")[:1]),
        newest_check=Subquery(newest.values("check_state")[:1]),
        newest_checked_at=Subquery(newest.values("checked_at")[:1]),
        production_name=Subquery(placed.values("version__name")[:1]),
        production_check=Subquery(placed.values("version__check_state")[:1]),
    ).order_by("name")


def check_counts() -> dict[str, int]:
    """How many versions stand in each state of their last check."""
    rows = Version.objects.values("check_state").annotate(total=Count("id")).order_by("check_state")
    return {row["check_state"]: row["total"] for row in rows}


def versions_of(model: Model, *, before: int | None = None, most: int | None = None) -> list[Version]:
    """Newest first, without the bytes; `before` is the row id after which a page goes on."""
    found = model.versions.defer(*HEAVY).order_by("-id")
    if before is not None:
        found = found.filter(pk__lt=before)
    return list(found[:most])


def sizes_of(versions: list[Version]) -> dict[int, int]:
    """Bytes of all layers by row id; a version without known layers is absent."""
    rows = Layer.objects.filter(version__in=versions).values("version_id").annotate(total=Sum("size"))
    return {row["version_id"]: row["total"] for row in rows}


def find_model(name: str) -> Model | None:
    """By its exact name; nothing that PostgreSQL cannot hold is one."""
    if "\0" in name:
        return None
    return Model.objects.filter(name=name).first()


def find_version(label: str) -> Version | None:
    """By its exact label, as `find_model`."""
    if "\0" in label:
        return None
    return Version.objects.select_related("model").filter(label=label).first()


def find_reference(text: str) -> Version | None:
    """By label, or by `repository@digest`; of two sources with the same repository the one known first."""
    repository, at, digest = text.partition("@")
    if "\0" in text:
        return None
    if at and digest.startswith("sha256:"):
        found = Version.objects.select_related("model").filter(repository=repository, manifest_digest=digest)
        return found.order_by("id").first()
    return find_version(text)


def version_named(model: Model, name: str) -> Version | None:
    if "\0" in name:
        return None
    return model.versions.select_related("model").filter(name=name).first()


def newest_version(model: Model) -> Version | None:
    return model.versions.select_related("model").order_by("-id").first()


def placements(model: Model) -> list[Placement]:
    return list(_light(model.placements.order_by("environment")))


def in_production(most: int) -> list[Placement]:
    return list(_light(Placement.objects.filter(environment=PRODUCTION).order_by("model__name"))[:most])


def _light(found: QuerySet[Placement]) -> QuerySet[Placement]:
    return found.select_related("version", "model").defer(*(f"version__{name}" for name in HEAVY))


def parts(version: Version) -> list[Part]:
    """The layers as values for comparing."""
    return [
        Part(item.kind, item.section, item.name, item.path, item.digest, item.diff_id, item.size, item.media_type)
        for item in version.layers.order_by("position")
    ]


def layers(version: Version) -> list[Layer]:
    return list(version.layers.order_by("position"))


@dataclass(frozen=True, slots=True)
class TagNow:
    tag: str
    digest: str


def tags_of(version: Version) -> list[str]:
    """The tags that were last seen at this version's manifest."""
    if not version.repository:
        return []
    return [
        item.tag for item in current_tags(version.source, version.repository) if item.digest == version.manifest_digest
    ]


def current_tags(source: str, repository: str) -> list[TagNow]:
    """Where each tag was last seen; tags seen to be gone are left out."""
    rows = (
        TagObservation.objects.filter(source=source, repository=repository)
        .order_by("tag", "-id")
        .distinct("tag")
        .values_list("tag", "digest")
    )
    return [TagNow(tag, digest) for tag, digest in rows if digest]


def tags_by_digest(versions: list[Version]) -> dict[tuple[str, str, str], list[str]]:
    """The tags last seen at each manifest of these versions, by (source, repository, digest); one query for all."""
    places = {(item.source, item.repository) for item in versions if item.repository}
    rows = (
        TagObservation.objects.filter(
            source__in={source for source, _ in places}, repository__in={repository for _, repository in places}
        )
        .order_by("source", "repository", "tag", "-id")
        .distinct("source", "repository", "tag")
        .values_list("source", "repository", "digest", "tag")
    )
    found: dict[tuple[str, str, str], list[str]] = {}
    for source, repository, digest, tag in rows:
        found.setdefault((source, repository, digest), []).append(tag)
    return found


def packers(versions: list[Version]) -> dict[str, str]:
    """Who first put a tag on each manifest, as a pseudonym by digest: as the registry claims, where it does."""
    digests = {item.manifest_digest for item in versions if item.manifest_digest}
    rows = (
        TagObservation.objects.filter(digest__in=digests)
        .exclude(actor="")
        .order_by("digest", "id")
        .distinct("digest")
        .values_list("digest", "actor")
    )
    return dict(rows)


def tag_history(version: Version, *, most: int = 100) -> list[TagObservation]:
    """Where the tags of the version's repository stood over time, newest first; only those that ever stood at it."""
    tags = TagObservation.objects.filter(
        source=version.source, repository=version.repository, digest=version.manifest_digest
    ).values("tag")
    found = TagObservation.objects.filter(source=version.source, repository=version.repository, tag__in=tags)
    return list(found.order_by("-id")[:most])
