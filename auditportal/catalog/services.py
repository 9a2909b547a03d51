"""What is known of models and versions, written by whoever observed it; each call inside its caller's transaction."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from django.db import IntegrityError, transaction

from auditportal.catalog.models import Layer, Model, Placement, Snapshot, TagObservation, Version
from auditportal.connectors import modelkit
from auditportal.connectors.foreign import clean, clean_text
from auditportal.connectors.modelkit import ModelKit
from auditproof.canonical import encode
from auditproof.signatures import sha256_hex

MOVING_TAGS = ("latest",)  # a tag that is expected to move names no version
MOST_NAMESAKES = 1000


@dataclass(frozen=True, slots=True, kw_only=True)
class ObservedKit:
    """A manifest as fetched and hashed; `config` is None when it could not be read, and `note` says why."""

    source: str
    repository: str
    digest: str
    manifest: bytes | None
    config: bytes | None
    kit: ModelKit | None
    state: str
    note: str = ""
    card: str | None = None
    card_state: str = ""


def observe_kit(observed: ObservedKit, *, tag: str, now: datetime) -> tuple[Version, bool]:
    """The version of this manifest, and whether it is new. What was unreadable before is filled in.

    The model is the repository; the version is its tag, or the digest where the tag is one that moves.

    Raises:
        ValueError: without a digest; two unreadable manifests would become one version.
    """
    if not observed.digest:
        raise ValueError("a kit without a digest has no identity")
    model = _locked(observed.repository, now)
    # Locked as well: a reading of its bytes that ends meanwhile would be undone by what is filled in here.
    known = (
        Version.objects.select_for_update(no_key=True)
        .filter(
            kind=Version.Kind.MODELKIT,
            source=observed.source,
            repository=observed.repository,
            manifest_digest=observed.digest,
        )
        .first()
    )
    if known is not None:
        if _tells_more(observed, known):
            if known.attempted_at is None:  # no reading of all bytes has judged it since
                known.check_state, known.check_note = observed.state, observed.note[:500]
            _fill(known, observed)
        return known, False
    name = tag if tag and tag not in MOVING_TAGS else "sha256-" + observed.digest.removeprefix("sha256:")[:12]
    version = _create(
        model,
        name,
        kind=Version.Kind.MODELKIT,
        source=observed.source,
        native_version=tag or observed.digest,
        repository=observed.repository,
        manifest_digest=observed.digest,
        first_seen=now,
        check_state=observed.state,
        check_note=observed.note[:500],
    )
    _fill(version, observed)
    return version, True


def _tells_more(observed: ObservedKit, known: Version) -> bool:
    if observed.manifest is None:
        return False
    if known.manifest is None or (known.config is None and observed.config is not None):
        return True
    return known.card_state == Version.Check.UNREACHABLE and observed.card_state in ("checked", "missing")


def _fill(version: Version, observed: ObservedKit) -> None:
    version.manifest, version.config = observed.manifest, observed.config
    version.card, version.card_state = clean_text(observed.card or ""), observed.card_state
    kit = observed.kit
    if kit is not None:
        version.format, version.kitfile = kit.format, kit.kitfile
        version.metrics, version.run_id = kit.metrics, kit.run_id
        version.config_digest = kit.config_digest
        version.layers.all().delete()
        Layer.objects.bulk_create(
            Layer(
                version=version,
                position=position,
                kind=layer.kind[:200],
                section=layer.section,
                name=layer.name,
                path=layer.path,
                media_type=layer.media_type[:255],
                digest=layer.digest,
                diff_id=layer.diff_id,
                size=layer.size,
                compression=layer.compression[:10],
            )
            for position, layer in enumerate(kit.layers)
        )
    version.save()


def observe_mlflow_version(value: Mapping[str, Any], *, source: str, now: datetime) -> tuple[Version, bool]:
    """The version as MLflow tells it: reported only, since MLflow keeps no digest of anything."""
    model = _locked(str(value["name"]), now)
    native, created = str(value["version"]), value.get("creation_timestamp")
    known = Version.objects.filter(
        kind=Version.Kind.MLFLOW, source=source, model=model, native_version=native, native_created=created
    ).first()
    facts = {name: value[name] for name in ("current_stage", "status", "source", "description") if value.get(name)}
    facts["tags"] = pairs(value.get("tags"))
    facts = clean(facts)
    if known is not None:
        known.facts = facts
        known.run_id = known.run_id or str(value.get("run_id") or "")[:64]
        known.save(update_fields=["facts", "run_id"])
        return known, False
    version = _create(
        model,
        native,
        kind=Version.Kind.MLFLOW,
        source=source,
        native_version=native,
        native_created=created,
        run_id=str(value.get("run_id") or "")[:64],
        facts=facts,
        first_seen=now,
        check_note="MLflow keeps no digest of its files, so there is nothing to check them against",
    )
    return version, True


def _create(model: Model, name: str, **fields: Any) -> Version:  # noqa: ANN401 -- the model's own fields
    """A version under the first free label: `name:version`, then with `~2`, `~3` … when a source made it anew."""
    for count in range(1, MOST_NAMESAKES):
        suffixed = name if count == 1 else f"{name}~{count}"
        try:
            with transaction.atomic():
                return Version.objects.create(model=model, label=f"{model.name}:{suffixed}", name=suffixed, **fields)
        except IntegrityError:
            if not Version.objects.filter(label=f"{model.name}:{suffixed}").exists():
                raise
    raise RuntimeError(f"{MOST_NAMESAKES} versions bear the name {name}")


def _locked(name: str, now: datetime) -> Model:
    """The model of this name, one observation at a time; a row that only refers to it (a placement) need not wait."""
    return Model.objects.select_for_update(no_key=True).get(pk=model_named(name, now).pk)


def model_named(name: str, now: datetime) -> Model:
    """The model of this name, known from now on."""
    model, _ = Model.objects.get_or_create(name=name, defaults={"first_seen": now})
    return model


def observe_tag(
    *, source: str, repository: str, tag: str, digest: str, now: datetime, actor: str = ""
) -> TagObservation | None:
    """Notes where the tag stands; returns the earlier observation when it stood elsewhere."""
    before = TagObservation.objects.filter(source=source, repository=repository, tag=tag).order_by("-id").first()
    if before is not None and before.digest == digest:
        return None
    TagObservation.objects.create(
        source=source, repository=repository, tag=tag, digest=digest, seen_at=now, actor=actor
    )
    return before


@dataclass(frozen=True, slots=True)
class Difference:
    """What changed between two sights of one object: members by name, with what stood there before and after."""

    before_sha256: str
    after_sha256: str
    changed: dict[str, tuple[Any, Any]]
    last_seen: datetime


def observe_snapshot(
    *,
    source: str,
    type: str,  # noqa: A002 -- as in events
    native_id: str,
    value: Mapping[str, Any],
    now: datetime,
) -> Difference | None:
    """Keeps what the source says of the object now; the difference from what it said before, if there is one."""
    kept = clean(dict(value))
    digest = sha256_hex(encode(plain(kept)))
    snapshot = Snapshot.objects.select_for_update().filter(source=source, type=type, native_id=native_id).first()
    if snapshot is None:
        Snapshot.objects.create(source=source, type=type, native_id=native_id, value=kept, sha256=digest, seen_at=now)
        return None
    before, seen, old = snapshot.value, snapshot.seen_at, snapshot.sha256
    snapshot.seen_at, snapshot.is_gone = now, False
    if old == digest:
        snapshot.save(update_fields=["seen_at", "is_gone"])
        return None
    snapshot.value, snapshot.sha256 = kept, digest
    snapshot.save()
    changed = {
        name: (before.get(name), kept.get(name))
        for name in sorted(before.keys() | kept.keys())
        if (name in before, _exact(before.get(name))) != (name in kept, _exact(kept.get(name)))
    }
    return Difference(old, digest, changed, seen)


def _exact(value: Any) -> bytes:  # noqa: ANN401 -- any JSON
    """By its canonical bytes, since to Python true equals 1."""
    return encode(plain(value))


def has_snapshot(*, source: str, type: str, native_id: str) -> bool:  # noqa: A002 -- as in events
    """Whether the source told of this object before."""
    return Snapshot.objects.filter(source=source, type=type, native_id=native_id).exists()


def mark_gone(*, source: str, type: str, native_ids: Collection[str]) -> list[Snapshot]:  # noqa: A002 -- as in events
    """These objects stand as gone; those returned did not before, so each is returned once."""
    gone = list(
        Snapshot.objects.select_for_update().filter(source=source, type=type, native_id__in=native_ids, is_gone=False)
    )
    Snapshot.objects.filter(pk__in=[snapshot.pk for snapshot in gone]).update(is_gone=True)
    return gone


def plain(value: Any) -> Any:  # noqa: ANN401 -- any JSON
    """Numbers beyond the canonical profile as text: only equality matters here."""
    if isinstance(value, dict):
        return {str(plain(key)): plain(item) for key, item in value.items()}
    if isinstance(value, list):
        return [plain(item) for item in value]
    if isinstance(value, int) and not isinstance(value, bool) and abs(value) >= 2**53:
        return str(value)
    if isinstance(value, float):
        return repr(value)
    return clean_text(value) if isinstance(value, str) else value


def pairs(value: object) -> dict[str, str]:
    """MLflow's lists of key and value; absent when empty."""
    if not isinstance(value, list):
        return {}
    return {str(item["key"]): str(item.get("value", "")) for item in value if isinstance(item, dict) and "key" in item}


def place(*, version: Version, environment: str, request: str, now: datetime) -> Version | None:
    """The version stands in the environment from now on; which one it replaced there."""
    before = (
        Placement.objects.select_for_update()
        .filter(model=version.model, environment=environment)
        .select_related("version")
        .first()
    )
    Placement.objects.update_or_create(
        model=version.model,
        environment=environment,
        defaults={"version": version, "since": now, "request": request},
    )
    return before.version if before else None


def note_check(version: Version, *, state: str, note: str, now: datetime, is_complete: bool) -> None:
    """What the last reading of its bytes found; `is_complete` when the source answered about all of them."""
    version.check_state, version.check_note, version.attempted_at = state, note[:500], now
    if is_complete:
        version.checked_at = now
    version.save(update_fields=["check_state", "check_note", "checked_at", "attempted_at"])


def is_signature(tag: str) -> bool:
    return modelkit.is_signature_tag(tag)
