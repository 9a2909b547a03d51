"""What differs between two versions: a pure function over values, so that page, text and command say the same.

Pairing and verdicts follow the order in which a reader cares: identical bytes, the same content packed anew, changed
content, content found elsewhere, and what came or went. Nothing is called the same on names alone.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any


class Change(StrEnum):
    SAME = "same"
    RECOMPRESSED = "recompressed"
    CHANGED = "changed"
    MOVED = "moved"
    ADDED = "added"
    REMOVED = "removed"


MARKS = {
    Change.SAME: "=", Change.RECOMPRESSED: "≈", Change.CHANGED: "~", Change.MOVED: "→", Change.ADDED: "+",
    Change.REMOVED: "−",  # noqa: RUF001 -- the sign as people read it
}  # fmt: skip
ORDER = (Change.CHANGED, Change.ADDED, Change.REMOVED, Change.MOVED, Change.RECOMPRESSED, Change.SAME)
NOISE = ("created", "cli-version", "diffId", "digest")  # members that change with every packing


@dataclass(frozen=True, slots=True)
class Part:
    """One layer as the catalog knows it."""

    kind: str
    section: str
    name: str
    path: str
    digest: str
    diff_id: str
    size: int
    media_type: str

    @property
    def title(self) -> str:
        return self.name or self.path or self.kind


@dataclass(frozen=True, slots=True)
class Pair:
    change: Change
    before: Part | None
    after: Part | None

    @property
    def mark(self) -> str:
        return MARKS[self.change]

    @property
    def shown(self) -> Part:
        part = self.after or self.before
        if part is None:
            raise ValueError("a pair has at least one side")
        return part

    @property
    def size_delta(self) -> int:
        return (self.after.size if self.after else 0) - (self.before.size if self.before else 0)


@dataclass(frozen=True, slots=True)
class Field:
    """One Kitfile field, by JSON pointer with names as keys: `/datasets[iris]/path`."""

    pointer: str
    change: Change
    before: str
    after: str
    is_noise: bool

    @property
    def mark(self) -> str:
        return MARKS[self.change]


@dataclass(frozen=True, slots=True)
class Number:
    name: str
    before: float | None
    after: float | None

    @property
    def delta(self) -> float | None:
        return None if self.before is None or self.after is None else self.after - self.before

    @property
    def change(self) -> Change:
        if self.before is None:
            return Change.ADDED
        if self.after is None:
            return Change.REMOVED
        return Change.SAME if self.before == self.after else Change.CHANGED


def pair_layers(before: Sequence[Part], after: Sequence[Part]) -> list[Pair]:
    """Each layer of both sides in exactly one pair, changes first.

    Layers pair by (section, name), else by (section, path), else by (kind) where each side has one.
    """
    left, right = list(before), list(after)
    pairs: list[Pair] = []
    for same_place in (_by_bytes, _by_name, _by_path, _by_kind):
        for one in list(left):
            other = next((item for item in right if same_place(one, item, left, right)), None)
            if other is not None:
                left.remove(one)
                right.remove(other)
                pairs.append(Pair(_verdict(one, other), one, other))
    pairs += [Pair(Change.REMOVED, one, None) for one in left]
    pairs += [Pair(Change.ADDED, None, other) for other in right]
    return sorted(pairs, key=lambda pair: (ORDER.index(pair.change), pair.shown.section, pair.shown.title))


def _by_bytes(one: Part, other: Part, _left: list[Part], _right: list[Part]) -> bool:
    return one.digest == other.digest or bool(one.diff_id and one.diff_id == other.diff_id)


def _by_name(one: Part, other: Part, _left: list[Part], _right: list[Part]) -> bool:
    return bool(one.name) and (one.section, one.name) == (other.section, other.name)


def _by_path(one: Part, other: Part, _left: list[Part], _right: list[Part]) -> bool:
    return bool(one.path) and (one.section, one.path) == (other.section, other.path)


def _by_kind(one: Part, other: Part, left: list[Part], right: list[Part]) -> bool:
    alone = sum(item.kind == one.kind for item in left) == 1 == sum(item.kind == one.kind for item in right)
    return alone and one.kind == other.kind


def _verdict(one: Part, other: Part) -> Change:
    same_place = (one.section, one.path) == (other.section, other.path)
    if one.digest == other.digest:
        return Change.SAME if same_place else Change.MOVED
    if one.diff_id and one.diff_id == other.diff_id:
        return Change.RECOMPRESSED if same_place else Change.MOVED
    return Change.CHANGED


def compare_fields(before: Mapping[str, Any], after: Mapping[str, Any]) -> list[Field]:
    """Kitfile fields that differ, in order of their pointers; what every packing changes is marked as noise."""
    left, right = dict(flatten(before)), dict(flatten(after))
    fields: list[Field] = []
    for pointer in sorted(left.keys() | right.keys()):
        one, other = left.get(pointer), right.get(pointer)
        if one == other:
            continue
        change = Change.ADDED if one is None else Change.REMOVED if other is None else Change.CHANGED
        noise = pointer.rpartition("/")[2] in NOISE
        fields.append(Field(pointer, change, one or "", other or "", noise))
    return fields


def flatten(value: Any, at: str = "") -> Iterator[tuple[str, str]]:  # noqa: ANN401 -- any JSON
    """Leaves by pointer; list members are named by their `name` or `path`, else by their place."""
    if isinstance(value, dict):
        for key, item in value.items():
            yield from flatten(item, f"{at}/{key}")
    elif isinstance(value, list):
        used: set[str] = set()
        for index, item in enumerate(value):
            named = item.get("name") or item.get("path") if isinstance(item, dict) else None
            label = str(named) if named and str(named) not in used else str(index)
            used.add(label)
            yield from flatten(item, f"{at}[{label}]")
    else:
        yield at, _text(value)


def _text(value: Any) -> str:  # noqa: ANN401 -- a JSON leaf
    if value is None or isinstance(value, bool):
        return {None: "null", True: "true", False: "false"}[value]
    return str(value)


def compare_numbers(before: Mapping[str, Any], after: Mapping[str, Any]) -> list[Number]:
    """Every metric of either side."""
    return [
        Number(name, _number(before.get(name)), _number(after.get(name)))
        for name in sorted(before.keys() | after.keys())
    ]


def _number(value: Any) -> float | None:  # noqa: ANN401 -- a JSON leaf
    return float(value) if isinstance(value, int | float) and not isinstance(value, bool) else None


def as_text(
    *,
    names: tuple[str, str],
    digests: tuple[str, str],
    configs: tuple[str, str],
    pairs: Sequence[Pair],
    fields: Sequence[Field],
) -> str:
    """The comparison in the manner of `kit diff`, with the fields that it leaves out."""
    if digests[0] and digests[0] == digests[1]:
        return "ModelKits are identical\n"
    lines = ["Comparing:", f"  ModelKit1: {names[0]}  {digests[0]}", f"  ModelKit2: {names[1]}  {digests[1]}", ""]
    lines += ["Configurations:"]
    if configs[0] == configs[1]:
        lines += [f"  identical {configs[0]}"]
    else:
        lines += ["  Configs differ:", f"  {configs[0]}", f"  {configs[1]}"]
    sections = (
        ("Shared Layers", [p for p in pairs if p.change in (Change.SAME, Change.MOVED)]),
        ("Repacked Layers (same content)", [p for p in pairs if p.change == Change.RECOMPRESSED]),
        ("Changed Layers", [p for p in pairs if p.change == Change.CHANGED]),
        (f"Unique Layers to ModelKit1 ({names[0]})", [p for p in pairs if p.change == Change.REMOVED]),
        (f"Unique Layers to ModelKit2 ({names[1]})", [p for p in pairs if p.change == Change.ADDED]),
    )
    for title, chosen in sections:
        lines += ["", f"{title}:"]
        lines += [
            f"  {p.mark} {p.shown.kind:<12} {p.shown.digest[:17]} {p.shown.size:>12}  {p.shown.title}" for p in chosen
        ] or ["  <none>"]
    lines += ["", "Kitfile:"]
    lines += [f"  {f.mark} {f.pointer}: {f.before or '-'} -> {f.after or '-'}" for f in fields] or ["  identical"]
    return "\n".join(lines) + "\n"
