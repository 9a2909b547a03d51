"""Two versions side by side. Any two can be compared; those of one model have an address that says so."""

from __future__ import annotations

from dataclasses import dataclass
from urllib.parse import urlencode

from django.http import Http404, HttpResponse
from django.shortcuts import redirect, render
from django.urls import reverse
from django.views.decorators.http import require_safe

from auditportal.accounts.queries import display_names
from auditportal.accounts.roles import Permission
from auditportal.catalog import queries
from auditportal.catalog.comparison import Comparison, compare
from auditportal.catalog.diff import FOLDED, Change, Field, Number, Pair, printable
from auditportal.catalog.lines import LineDiff, compare_lines
from auditportal.catalog.models import Version
from auditportal.web import formats
from auditportal.web.access import SignedInRequest, needs
from auditportal.web.catalog import address, ask_href, is_path, number, prose, show

CARD_WORDS = {
    "checked": "present",
    "missing": "missing",
    "unreachable": "could not be looked for",
    "": "never looked for",
}
LETTERS = {
    Change.CHANGED: "M", Change.UNKNOWN: "U", Change.ADDED: "A", Change.REMOVED: "D", Change.MOVED: "V",
    Change.RECOMPRESSED: "R", Change.SAME: "S",
}  # fmt: skip
ROWS_SHOWN = 1000  # of each table; the text has all
BAR = 44  # half the width of the drawn delta, less its edge
MINUS = "\u2212"


@dataclass(frozen=True, slots=True)
class Side:
    role: str
    version: Version
    href: str
    packer: str
    stages: list[str]


@dataclass(frozen=True, slots=True)
class Verdict:
    """One cell of the strip on top."""

    anchor: str
    name: str
    word: str
    detail: str


@dataclass(frozen=True, slots=True)
class LayerRow:
    letter: str
    mark: str
    word: str
    title: str
    kind: str
    digests: str
    full: str
    size: str
    delta: str
    bar: str  # the width drawn, out of BAR
    start: str
    is_less: bool


@dataclass(frozen=True, slots=True)
class FieldRow:
    letter: str
    mark: str
    word: str
    pointer: str
    before: str
    after: str


@dataclass(frozen=True, slots=True)
class NumberRow:
    name: str
    before: str
    after: str
    delta: str
    word: str


@dataclass(frozen=True, slots=True)
class CardView:
    word: str
    sentence: str
    tone: str
    lines: LineDiff | None


def compare_address(base: Version, head: Version) -> str:
    if base.model_id == head.model_id and is_path(base.model.name, base.name) and is_path(base.model.name, head.name):
        return reverse("models-compare", args=[base.model.name, base.name, head.name])
    return f"{reverse('models-pick')}?{urlencode({'a': base.label, 'b': head.label})}"


@needs(Permission.READ)
@require_safe
def named(request: SignedInRequest, name: str, base: str, head: str) -> HttpResponse:
    """A tag may itself hold two dots, so each way to read the address is tried; at last it may be a model's name."""
    span = f"{base}..{head}"
    model = queries.find_model(name)
    if model is None:
        return show(request, f"{name}/compare/{span}", "")
    for at in (index for index in range(1, len(span) - 2) if span.startswith("..", index)):
        one, other = queries.version_named(model, span[:at]), queries.version_named(model, span[at + 2 :])
        if one is not None and other is not None:
            return _page(request, one, other)
    return show(request, f"{name}/compare/{span}", "")


@needs(Permission.READ)
@require_safe
def pick(request: SignedInRequest) -> HttpResponse:
    """Any two versions, by label or digest; a missing or unknown one leads back with a word."""
    labels = [request.GET.get(key, "").replace("\0", "").strip() for key in ("a", "b")]
    found = [queries.find_reference(label) if label else None for label in labels]
    base, head = found
    if base is None or head is None:
        context = {
            "labels": labels,
            "troubles": [
                f"There is no version {formats.visible(label)}." if label else "Choose two versions."
                for label, version in dict(zip(labels, found, strict=True)).items()
                if version is None
            ],
        }
        return render(request, "compare/pick.html", context, status=200 if not any(labels) else 404)
    target = compare_address(base, head)
    return _page(request, base, head) if target.startswith(reverse("models-pick")) else redirect(target)


@needs(Permission.READ)
@require_safe
def text(request: SignedInRequest) -> HttpResponse:
    found = [queries.find_reference(request.GET.get(key, "").replace("\0", "")) for key in ("a", "b")]
    base, head = found
    if base is None or head is None:
        raise Http404
    response = HttpResponse(compare(base, head).text(), content_type="text/plain; charset=utf-8")
    response["Content-Disposition"] = 'attachment; filename="comparison.txt"'
    return response


def _page(request: SignedInRequest, base: Version, head: Version) -> HttpResponse:
    found = compare(base, head)
    largest = _largest(found.pairs)
    layers = [(_layer(pair, largest), pair) for pair in found.pairs[:ROWS_SHOWN]]
    fields = [(_field(field), field.is_noise) for field in found.fields[:ROWS_SHOWN]]
    card = _card(base, head)
    context = {
        "found": found,
        "sides": _sides(base, head),
        "is_one_model": base.model_id == head.model_id,
        "title": _title(base, head),
        "verdicts": _verdicts(found, card),
        "shown_layers": [row for row, pair in layers if pair.change not in FOLDED],
        "folded_layers": [row for row, pair in layers if pair.change in FOLDED],
        "layer_summary": _counts([pair.change for pair in found.pairs]),
        "shown_fields": [row for row, is_noise in fields if not is_noise],
        "noise": [row for row, is_noise in fields if is_noise],
        "numbers": sorted(map(_number, found.numbers[:ROWS_SHOWN]), key=lambda row: row.word == Change.SAME),
        "left_out": max(0, max(len(found.pairs), len(found.fields), len(found.numbers)) - ROWS_SHOWN),
        "origins": [(item, LETTERS[item.change]) for item in found.origins],
        "card": card,
        "model_href": address(base.model.name),
        "ask_href": "" if found.is_identical else ask_href(request.user, head),
        "swap_href": compare_address(head, base),
        "text_href": f"{reverse('models-text')}?{urlencode({'a': base.label, 'b': head.label})}",
    }
    return render(request, "compare/detail.html", context)


def _title(base: Version, head: Version) -> str:
    if base.model_id == head.model_id:
        return formats.visible(f"{base.model.name}: {base.name} to {head.name}")
    return formats.visible(f"{base.label} to {head.label}")


def _sides(base: Version, head: Version) -> list[Side]:
    packers = queries.packers([base, head])
    names = display_names(packers.values())
    stages: dict[int, list[str]] = {}
    for model in {base.model, head.model}:
        for item in queries.placements(model):
            stages.setdefault(item.version_id, []).append(item.environment)
    return [
        Side(
            role,
            version,
            address(version.model.name, version.name),
            formats.visible(
                names.get(packers.get(version.manifest_digest, ""), packers.get(version.manifest_digest, ""))
            ),
            stages.get(version.pk, []),
        )
        for role, version in (("Base", base), ("Head", head))
    ]


def _counts(changes: list[Change]) -> str:
    counted = [(change, changes.count(change)) for change in LETTERS if change in changes]
    words = {Change.SAME: "the same"}
    return ", ".join(f"{formats.count(count)} {words.get(change, str(change))}" for change, count in counted)


def _largest(pairs: list[Pair]) -> int:
    return max((abs(pair.size_delta) for pair in pairs), default=0) or 1


def _layer(pair: Pair, largest: int) -> LayerRow:
    part, delta = pair.shown, pair.size_delta
    sides = [side.digest if side else "none" for side in (pair.before, pair.after)]
    shown = [formats.short_digest(side).removeprefix("sha256:")[:12] for side in sides]
    width = BAR * abs(delta) / largest
    is_one = sides[0] == sides[1]
    where = part.path or part.name or part.kind
    if pair.change == Change.MOVED and pair.before and pair.before.path != part.path:
        where = f"{pair.before.path or pair.before.title} → {where}"
    return LayerRow(
        LETTERS[pair.change],
        pair.mark,
        str(pair.change),
        formats.visible(where),
        formats.visible(part.kind),
        shown[0] if is_one else f"{shown[0]} → {shown[1]}",
        sides[0] if is_one else f"{sides[0]} → {sides[1]}",
        formats.size(part.size),
        _signed_size(delta),
        f"{width:.1f}",
        f"{48 - width if delta < 0 else 48:.1f}",
        delta < 0,
    )


def _signed_size(delta: int) -> str:
    sign = "+" if delta > 0 else MINUS if delta < 0 else ""
    return sign + formats.size(abs(delta)) if delta else "0"


def _field(field: Field) -> FieldRow:
    return FieldRow(
        LETTERS[field.change],
        field.mark,
        str(field.change),
        printable(field.pointer),
        formats.visible(field.before),
        formats.visible(field.after),
    )


def _number(item: Number) -> NumberRow:
    delta = item.delta
    shown = "" if delta is None else f"{delta:+.6g}".replace("-", MINUS) if delta else "0"
    sides = [number(side) if side is not None else "not recorded" for side in (item.before, item.after)]
    return NumberRow(formats.visible(item.name), sides[0], sides[1], shown, str(item.change))


def _card(base: Version, head: Version) -> CardView:
    before, after = base.card_state, head.card_state
    lines = compare_lines(prose(base.card), prose(head.card))
    match (before, after):
        case ("checked", "checked") if base.card == head.card:
            return CardView("unchanged", "Both versions hold the same model card.", "", None)
        case ("checked", "checked"):
            return CardView("changed", "The model card differs.", "info", lines)
        case ("checked", "missing"):
            return CardView("lost", f"{head.name} has no model card; {base.name} has one.", "bad", None)
        case ("missing", "checked"):
            return CardView("added", f"{head.name} has a model card; {base.name} has none.", "ok", None)
        case ("missing", "missing"):
            return CardView("missing", "Neither version has a model card.", "warn", None)
        case _:
            sides = [f"{side.name}: {CARD_WORDS.get(side.card_state, side.card_state)}" for side in (base, head)]
            return CardView("not compared", "; ".join(sides) + ".", "warn", None)


def _verdicts(found: Comparison, card: CardView) -> list[Verdict]:
    data = [item for item in found.origins if "ataset" in item.kind]
    return [
        _layers_verdict(found),
        Verdict(
            "origins",
            "Data",
            _worst([item.change for item in data]),
            f"{len(data)} named" if data else "no dataset named",
        ),
        _metrics_verdict(found),
        _kitfile_verdict(found),
        Verdict("card", "Model card", card.word.capitalize(), ""),
        _registry_verdict(found),
    ]


def _layers_verdict(found: Comparison) -> Verdict:
    if not found.pairs:
        return Verdict("layers", "Layers", "Not compared", "none known")
    size = sum(pair.size_delta for pair in found.pairs)
    unknown = sum(pair.change == Change.UNKNOWN for pair in found.pairs)
    word = f"{found.changed_layers} of {len(found.pairs)} changed" if found.changed_layers else "None changed"
    if unknown:
        word = f"{unknown} not compared"
    return Verdict("layers", "Layers", word, f"{_signed_size(size)} in all" if size else "same size in all")


def _worst(changes: list[Change]) -> str:
    for change in (Change.CHANGED, Change.REMOVED, Change.ADDED, Change.UNKNOWN, Change.SAME):
        if change in changes:
            return "No change" if change == Change.SAME else str(change).capitalize()
    return "Not known"


def _metrics_verdict(found: Comparison) -> Verdict:
    if not found.numbers:
        return Verdict("metrics", "Metrics", "Not recorded", "neither version names one")
    first = next((item for item in found.numbers if item.change != Change.SAME), found.numbers[0])
    row = _number(first)
    delta = f", {row.delta}" if row.delta not in ("", "0") else ""
    return Verdict("metrics", formats.visible(first.name)[:40], f"{row.after}{delta}", f"{len(found.numbers)} recorded")


def _kitfile_verdict(found: Comparison) -> Verdict:
    shown = sum(not field.is_noise for field in found.fields)
    if not (found.base.kitfile and found.head.kitfile):
        return Verdict("kitfile", "Kitfile", "Not compared", "not read on both sides")
    if found.is_reordered:
        return Verdict("kitfile", "Kitfile", "Reordered", "same values")
    if not found.fields:
        return Verdict("kitfile", "Kitfile", "No change", "")
    detail = f"+{found.lines.added} {MINUS}{found.lines.removed} lines" if found.lines else ""
    return Verdict("kitfile", "Kitfile", f"{shown} field{'' if shown == 1 else 's'}", detail)


def _registry_verdict(found: Comparison) -> Verdict:
    states = list(dict.fromkeys((str(found.base.check_state), str(found.head.check_state))))
    if states == [Version.Check.CHECKED]:
        return Verdict("sides", "Registry", "Digests match", "all bytes were read")
    return Verdict("sides", "Registry", " / ".join(states).capitalize(), "base / head" if len(states) > 1 else "both")
