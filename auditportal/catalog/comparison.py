"""Two versions compared, with all that a page, a text and a command say of them."""

from __future__ import annotations

from dataclasses import dataclass

from auditportal.catalog import diff, kitfiles, origins, queries
from auditportal.catalog.diff import Change, Field, Number, Pair
from auditportal.catalog.lines import LineDiff, compare_lines
from auditportal.catalog.models import Version
from auditportal.catalog.origins import Made, Origin

# States in which the bytes behind the digests are not what they were recorded as, or not there at all.
UNSOUND = {
    Version.Check.MISMATCH: "has other bytes in its registry than were recorded",
    Version.Check.TRUNCATED: "came back incomplete from its registry",
    Version.Check.MISSING: "is missing from its registry",
}


@dataclass(frozen=True, slots=True)
class Comparison:
    """`doubts` are reasons to call nothing the same; `gaps` say what could not be compared, and why."""

    base: Version
    head: Version
    is_identical: bool
    doubts: list[str]
    gaps: list[str]
    warnings: list[str]
    pairs: list[Pair]
    fields: list[Field]
    is_reordered: bool
    lines: LineDiff | None
    numbers: list[Number]
    origins: list[Origin]

    @property
    def changed_layers(self) -> int:
        """Layers with other content, or with another place."""
        return sum(pair.change not in (*diff.FOLDED, Change.UNKNOWN) for pair in self.pairs)

    def text(self) -> str:
        """As `kit diff` would say it, and more."""
        return diff.as_text(
            names=(self.base.label, self.head.label),
            digests=(self.base.manifest_digest, self.head.manifest_digest),
            configs=(self.base.config_digest, self.head.config_digest),
            pairs=self.pairs,
            fields=self.fields,
            doubts=[*self.doubts, *self.gaps],
            is_identical=self.is_identical,
        )


def compare(base: Version, head: Version) -> Comparison:
    """From what is kept of both; no registry is asked."""
    sides = (base, head)
    doubts = [_doubt(version) for version in dict.fromkeys(sides) if version.check_state in UNSOUND]
    gaps = [gap for version in dict.fromkeys(sides) if (gap := _gap(version))]
    parts = [queries.parts(version) for version in sides]
    kitfiles_ = [_kitfile(version) for version in sides]
    made = [Made(kitfiles_[i], sides[i].run_id, parts[i]) for i in (0, 1)]
    # Layers of which nothing is known are not "added" by the other side.
    pairs = diff.pair_layers(parts[0], parts[1], is_sound=not doubts) if all(map(_is_read, sides)) else []
    fields = diff.compare_fields(kitfiles_[0], kitfiles_[1]) if all(kitfiles_) else []
    texts = [kitfiles.as_yaml(kitfiles.as_written(kitfile)) for kitfile in kitfiles_]
    lines = compare_lines(texts[0], texts[1]) if texts[0] and texts[1] else None
    is_same_manifest = bool(base.manifest_digest) and base.manifest_digest == head.manifest_digest
    return Comparison(
        base=base,
        head=head,
        is_identical=(is_same_manifest or base.pk == head.pk) and not doubts,
        doubts=doubts,
        gaps=gaps,
        warnings=origins.warnings(made[0], made[1], pairs),
        pairs=pairs,
        fields=fields,
        is_reordered=all(kitfiles_) and not fields and texts[0] != texts[1],
        lines=lines,
        numbers=diff.compare_numbers(base.metrics, head.metrics),
        origins=origins.origins(made[0], made[1]),
    )


def _doubt(version: Version) -> str:
    return f"{version.label} {UNSOUND[Version.Check(version.check_state)]}; nothing of it is called the same."


def _is_read(version: Version) -> bool:
    return version.kind == Version.Kind.MODELKIT and bool(version.format)


def _gap(version: Version) -> str:
    if version.kind == Version.Kind.MLFLOW:
        return f"{version.label} is known from MLflow, which keeps no digest of its files: its layers are not compared."
    if not version.format:
        return f"The manifest of {version.label} could not be read yet ({version.check_state}): nothing is compared."
    if not version.kitfile:
        return f"{version.label} has no Kitfile that could be read: its fields are not compared."
    return ""


def _kitfile(version: Version) -> dict[str, object]:
    manifest = bytes(version.manifest) if version.manifest is not None else None
    config = bytes(version.config) if version.config is not None else None
    return kitfiles.original(manifest, config)
