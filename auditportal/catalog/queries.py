from __future__ import annotations

from dataclasses import dataclass

from django.db.models import Count, Max, OuterRef, QuerySet, Subquery

from auditportal.catalog.diff import Part
from auditportal.catalog.models import Layer, Model, Placement, TagObservation, Version


def models() -> QuerySet[Model]:
    """All models with the number of versions and the newest version's row id."""
    newest = Version.objects.filter(model=OuterRef("pk")).order_by("-id")
    return Model.objects.annotate(
        version_count=Count("versions", distinct=True),
        newest_id=Max("versions__id"),
        newest_label=Subquery(newest.values("label")[:1]),
        newest_card=Subquery(newest.values("card_state")[:1]),
        newest_check=Subquery(newest.values("check_state")[:1]),
    ).order_by("name")


def versions_of(model: Model) -> list[Version]:
    """Newest first, without the bytes."""
    return list(model.versions.defer("manifest", "config", "card").order_by("-id"))


def find_model(name: str) -> Model | None:
    return Model.objects.filter(name=name).first()


def find_version(label: str) -> Version | None:
    return Version.objects.select_related("model").filter(label=label).first()


def version_named(model: Model, name: str) -> Version | None:
    return model.versions.select_related("model").filter(name=name).first()


def placements(model: Model) -> list[Placement]:
    return list(model.placements.select_related("version").order_by("environment"))


def in_production() -> list[Placement]:
    return list(
        Placement.objects.filter(environment="production").select_related("version", "model").order_by("model__name")
    )


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
