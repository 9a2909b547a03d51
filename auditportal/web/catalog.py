"""Models and their versions. Not `models.py`, since Django would load that as the tables of this app."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlencode, urlsplit

from django.core.paginator import Paginator
from django.http import Http404, HttpRequest, HttpResponse
from django.shortcuts import render
from django.urls import NoReverseMatch, reverse
from django.utils import timezone
from django.utils.safestring import mark_safe
from django.views.decorators.http import require_safe

from auditportal.accounts.models import User
from auditportal.accounts.queries import display_names
from auditportal.accounts.roles import Permission
from auditportal.approvals import queries as approvals
from auditportal.catalog import cards, kitfiles, queries
from auditportal.catalog.models import Layer, Model, Placement, TagObservation, Version
from auditportal.connectors import modelkit
from auditportal.ingest.models import Source
from auditportal.ledger import queries as ledger, search
from auditportal.ledger.query import Form, Query, Term, Value
from auditportal.web import formats
from auditportal.web.access import SignedInRequest, needs
from auditportal.web.rows import Row, display

MODELS_SHOWN = 50
VERSIONS_SHOWN = 100
EVENTS_SHOWN = 50
METRICS_SHOWN = 3  # in a list; the comparison shows all
LAYERS_SHOWN = 1000
RAW_SHOWN = 64 * 1024  # characters of a config
CREATED = "org.opencontainers.image.created"
PARTS = ("contents", "card", "kitfile")  # tabs about one version; the others are about the model


@dataclass(frozen=True, slots=True)
class Tab:
    key: str
    label: str
    href: str
    count: str = ""


@dataclass(frozen=True, slots=True)
class Stage:
    """What stands in an environment, and the event that put it there; `trouble` is what the log has otherwise."""

    placement: Placement
    version_href: str
    event_href: str
    event_text: str
    trouble: str


@dataclass(frozen=True, slots=True)
class Listed:
    """A version as a row."""

    version: Version
    href: str
    size: str
    packer: str
    seen: str  # the day; its title has the rest
    seen_iso: str
    tags: list[str]
    metrics: list[tuple[str, str]]
    stages: list[str]


@dataclass(frozen=True, slots=True)
class Pull:
    """Commands that fetch the version, or why there are none."""

    commands: list[str]
    trouble: str = ""


def address(name: str, version: str = "", **parameters: str) -> str:
    """Where a model, or one of its versions, is shown.

    Names come from outside. One that would not survive as a path (browsers resolve `..`) travels as a parameter.
    """
    if is_path(name, version):
        base = reverse("models-version", args=[name, version]) if version else reverse("models-detail", args=[name])
    else:
        parameters = {"name": name, **({"version": version} if version else {}), **parameters}
        base = reverse("models")
    return base + (f"?{urlencode(parameters)}" if parameters else "")


def is_path(name: str, version: str = "") -> bool:
    whole = f"{name}/{version}" if version else name
    return whole.isprintable() and not {"", ".", ".."} & set(whole.split("/")) and "/" not in version


@needs(Permission.READ)
@require_safe
def index(request: SignedInRequest) -> HttpResponse:
    if "name" in request.GET:
        return show(request, request.GET["name"], request.GET.get("version", ""))
    wanted = request.GET.get("q", "").strip()
    found = queries.models()
    if wanted:
        found = found.filter(name__icontains=wanted.replace("\0", ""))
    page = Paginator(found, MODELS_SHOWN).get_page(request.GET.get("page"))
    rows = [(model, address(model.name)) for model in page]
    return render(request, "models/index.html", {"rows": rows, "page": page, "q": wanted})


@needs(Permission.READ)
@require_safe
def detail(request: SignedInRequest, name: str) -> HttpResponse:
    return show(request, name, "")


@needs(Permission.READ)
@require_safe
def version(request: SignedInRequest, name: str, version: str) -> HttpResponse:
    """One version. A model may itself be called like the address of another one's version."""
    model = queries.find_model(name)
    if model is None or queries.version_named(model, version) is None:
        return show(request, f"{name}/versions/{version}", "")
    return show(request, name, version)


def show(request: SignedInRequest, name: str, version_name: str) -> HttpResponse:
    """The page of a model, or of one version of it; the caller has seen to the permission."""
    model = queries.find_model(name)
    if model is None:
        raise Http404
    chosen = queries.version_named(model, version_name) if version_name else queries.newest_version(model)
    if version_name and chosen is None:
        raise Http404
    tab = request.GET.get("tab") or ("contents" if version_name else "versions")
    if tab not in (*PARTS, "versions", "history"):
        raise Http404
    placed = queries.placements(model)
    context = {
        "model": model,
        "version": chosen,
        "tab": tab,
        "sections": _sections(model, chosen),
        "stages": _stages(placed),
        "model_href": address(model.name),
        "ask_href": ask_href(request.user, chosen),
        "bundle_href": _bundle_href(request.user, model),
        **_part(request, model, chosen, tab, placed),
    }
    return render(request, f"models/{tab}.html", context)


def _sections(model: Model, chosen: Version | None) -> list[Tab]:
    count = formats.count(model.versions.count())
    found = [Tab("versions", "Versions", address(model.name), count)]
    if chosen is not None:
        words = {"contents": "Contents", "card": "Card", "kitfile": "Kitfile"}
        found += [Tab(key, words[key], address(model.name, chosen.name, tab=key)) for key in PARTS]
    return [*found, Tab("history", "History", address(model.name, tab="history"))]


def _part(
    request: HttpRequest, model: Model, chosen: Version | None, tab: str, placed: list[Placement]
) -> dict[str, Any]:
    if tab == "versions":
        return _versions(request, model, placed)
    if tab == "history":
        return _history(request, model)
    if chosen is None:
        raise Http404
    shared = {
        "tags": queries.tags_of(chosen),
        "chooser": [item.name for item in queries.versions_of(model, most=VERSIONS_SHOWN)],
    }
    parts = {"contents": _contents, "card": _card, "kitfile": _kitfile}
    return shared | parts[tab](chosen)


def _versions(request: HttpRequest, model: Model, placed: list[Placement]) -> dict[str, Any]:
    before = request.GET.get("before", "")
    after_row = int(before) if before.isascii() and before.isdigit() and len(before) <= 18 else None  # noqa: PLR2004 -- digits of a bigint
    found = queries.versions_of(model, before=after_row, most=VERSIONS_SHOWN + 1)
    shown = found[:VERSIONS_SHOWN]
    older = address(model.name, before=str(shown[-1].pk)) if len(found) > VERSIONS_SHOWN else ""
    return {"rows": _listed(model, shown, placed), "older": older, "is_newest": after_row is None}


def _listed(model: Model, versions: list[Version], placed: list[Placement]) -> list[Listed]:
    sizes, tags, packers = queries.sizes_of(versions), queries.tags_by_digest(versions), queries.packers(versions)
    names = display_names(packers.values())
    stages: dict[int, list[str]] = {}
    for placement in placed:
        stages.setdefault(placement.version_id, []).append(placement.environment)
    return [
        Listed(
            item,
            address(model.name, item.name),
            formats.size(sizes[item.pk]) if item.pk in sizes else "",
            names.get(packers.get(item.manifest_digest, ""), packers.get(item.manifest_digest, "")),
            formats.day(item.first_seen),
            formats.iso(item.first_seen),
            tags.get((item.source, item.repository, item.manifest_digest), []) if item.manifest_digest else [],
            [(name, number(value)) for name, value in sorted(item.metrics.items())[:METRICS_SHOWN]],
            stages.get(item.pk, []),
        )
        for item in versions
    ]


def number(value: object) -> str:
    """A metric as reported; texts such as `nan` stay texts."""
    return f"{value:.10g}" if isinstance(value, float) else str(value)


def _contents(chosen: Version) -> dict[str, Any]:
    layers = queries.layers(chosen)
    return {
        "layers": [(layer, formats.size(layer.size), _layer_name(layer)) for layer in layers[:LAYERS_SHOWN]],
        "layer_count": len(layers),
        "total": formats.size(sum(layer.size for layer in layers)),
        "created": _created(chosen),
        "pull": _pull(chosen),
        "history": _tag_rows(queries.tag_history(chosen) if chosen.repository else []),
        "facts": sorted((name, _plain(value)) for name, value in chosen.facts.items() if value),
    }


def _layer_name(layer: Layer) -> str:
    return formats.visible(layer.path or layer.name)


def _plain(value: object) -> str:
    if isinstance(value, dict):
        return ", ".join(f"{name}={item}" for name, item in value.items())
    return str(value)


def _created(chosen: Version) -> str:
    """When the packer says it was packed."""
    if chosen.manifest is None:
        return ""
    try:
        value = json.loads(bytes(chosen.manifest))
    except (ValueError, RecursionError):
        return ""
    return modelkit.read(value, None).annotations.get(CREATED, "")[:64] if isinstance(value, dict) else ""


def _tag_rows(found: list[TagObservation]) -> list[tuple[TagObservation, str]]:
    names = display_names(item.actor for item in found if item.actor)
    return [(item, names.get(item.actor, item.actor)) for item in found]


def _pull(chosen: Version) -> Pull:
    if chosen.kind == Version.Kind.MLFLOW:
        return Pull([], "MLflow versions are fetched from MLflow; no registry holds them until they are packed.")
    if not chosen.manifest_digest:
        return Pull([], "No digest is known, so nothing can be fetched by it.")
    source = Source.objects.filter(pk=chosen.source).first()
    if source is None:
        return Pull(
            [], f"The source {formats.visible(chosen.source)} is not configured here, so its address is unknown."
        )
    place = f"{urlsplit(source.url).netloc}/{chosen.repository}"
    by_tag = [f"kit pull {place}:{tag}" for tag in queries.tags_of(chosen)]
    return Pull([f"kit pull {place}@{chosen.manifest_digest}", *by_tag])


def _card(chosen: Version) -> dict[str, Any]:
    if chosen.card_state != Version.Check.CHECKED:
        return {"card": None}
    card = cards.render(prose(chosen.card))
    return {"card": card, "card_html": mark_safe(card.html)}  # noqa: S308 -- `render` leaves a few harmless tags only


def prose(text: str) -> str:
    """Foreign text of many lines as it is read: line ends and tabs are no oddities, the rest of `visible` is."""
    return formats.visible_lines(text.replace("\r\n", "\n").expandtabs(4))


def _kitfile(chosen: Version) -> dict[str, Any]:
    manifest = bytes(chosen.manifest) if chosen.manifest is not None else None
    config = bytes(chosen.config) if chosen.config is not None else None
    found = kitfiles.original(manifest, config)
    text = kitfiles.as_yaml(kitfiles.as_written(found))
    raw = config.decode("utf-8", "backslashreplace") if config is not None else ""
    return {
        "kitfile": formats.visible_lines(text or ""),
        "has_kitfile": bool(found),
        "raw": formats.visible_lines(raw[:RAW_SHOWN]),
        "raw_left": formats.count(len(raw) - RAW_SHOWN) if len(raw) > RAW_SHOWN else "",
    }


def _history(request: HttpRequest, model: Model) -> dict[str, Any]:
    after = search.Cursor.parse(request.GET.get("cursor", ""))
    query = Query((_exactly("model", model.name),))
    try:
        page = search.page(query, now=timezone.now(), resolve=lambda _: [], after=after, most=EVENTS_SHOWN)
    except search.SearchTooSlowError:
        return {"days": [], "is_slow": True, "older": "", "lag": 0}
    rows = display(ledger.recorded(page.seqs))
    older = address(model.name, tab="history", cursor=str(page.older)) if page.older else ""
    return {
        "days": _by_day(rows),
        "older": older,
        "lag": ledger.head().waiting,
        "query": str(_exactly("model", model.name)),
    }


def _exactly(key: str, *values: str) -> Term:
    return Term(key, tuple(Value(Form.EXACT, value) for value in values))


def _by_day(rows: list[Row]) -> list[tuple[str, list[Row]]]:
    days: dict[str, list[Row]] = {}
    for row in rows:
        days.setdefault(row.day, []).append(row)
    return list(days.items())


def _stages(placed: list[Placement]) -> list[Stage]:
    """Each environment's version with the event that put it there, read and verified from the log."""
    told = approvals.explained(placed)
    return [
        Stage(
            item,
            address(item.model.name, item.version.name),
            *_explained(item, told[item.pk].seq),
            told[item.pk].trouble,
        )
        for item in placed
    ]


def _explained(item: Placement, seq: int | None) -> tuple[str, str]:
    if seq is not None:
        return f"/events/{seq}/", f"event {formats.count(seq)}"
    query = f'action:promote,rollback related:"model_version:{item.version.label}"'
    return f"{reverse('timeline')}?{urlencode({'q': query})}", "search its event"


def ask_href(user: User, chosen: Version | None) -> str:
    """Where to ask for its promotion, for those who may."""
    if chosen is None or not user.may(Permission.REQUEST):
        return ""
    return optional("approvals-new", version=chosen.label)


def _bundle_href(user: User, model: Model) -> str:
    return optional("bundles-new", model=model.name) if user.may(Permission.BUNDLE) else ""


def optional(route: str, **parameters: str) -> str:
    """The address of a page that this installation may not have."""
    try:
        return f"{reverse(route)}?{urlencode(parameters)}"
    except NoReverseMatch:
        return ""
