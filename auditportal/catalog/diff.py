"""What differs between two versions: pure functions over values, so that page, text and command say the same.

Pairing follows the order in which a reader cares: the same place with the same bytes, the same place with other bytes,
then content found elsewhere, and at last what came or went. Nothing is called the same on names alone, and nothing is
called changed where only the packing is known to differ.
"""

from __future__ import annotations

import json
import re
import unicodedata
from collections import Counter, defaultdict, deque
from collections.abc import Callable, Hashable, Iterator, Mapping, Sequence
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
    UNKNOWN = "not compared"  # what would be needed for a verdict is not known, or did not stand a check


MARKS = {
    Change.SAME: "=", Change.RECOMPRESSED: "≈", Change.CHANGED: "~", Change.MOVED: "→", Change.ADDED: "+",
    Change.REMOVED: "−", Change.UNKNOWN: "?",  # noqa: RUF001 -- the signs as people read them
}  # fmt: skip
ORDER = (
    Change.CHANGED, Change.UNKNOWN, Change.ADDED, Change.REMOVED, Change.MOVED, Change.RECOMPRESSED, Change.SAME,
)  # fmt: skip
NOISE = ("created", "cli-version", "diffId", "digest")  # members that change with every packing
FOLDED = (Change.SAME, Change.RECOMPRESSED)


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

    @property
    def content(self) -> str:
        """The digest of what is inside, however packed; empty where only that of the packing is known."""
        return self.diff_id or ("" if "+" in self.media_type else self.digest)


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

    @property
    def mark(self) -> str:
        return MARKS[self.change]


def pair_layers(before: Sequence[Part], after: Sequence[Part], *, is_sound: bool = True) -> list[Pair]:
    """Each layer of both sides in exactly one pair, changes first.

    Layers pair by (section, name), else by (section, path), else by their bytes wherever they stand, else by kind
    where each side has one left. Where one side did not stand its check (`is_sound` is false) nothing is called the
    same, neither in place nor moved nor repacked.
    """
    left, right = list(before), list(after)
    pairs: list[Pair] = []
    for key in (_by_place_and_bytes, _by_place_and_content, _by_name, _by_path, _by_bytes, _by_content):
        left, right = _paired(left, right, key, pairs)
    left, right = _paired(left, right, _by_kind(left, right), pairs)
    pairs += [Pair(Change.REMOVED, one, None) for one in left]
    pairs += [Pair(Change.ADDED, None, other) for other in right]
    if not is_sound:
        pairs = [Pair(_doubted(pair.change), pair.before, pair.after) for pair in pairs]
    return sorted(pairs, key=lambda pair: (ORDER.index(pair.change), pair.shown.section, pair.shown.title))


Key = Callable[[Part], Hashable]  # None: by this key the part pairs with nothing


def _paired(left: list[Part], right: list[Part], key: Key, pairs: list[Pair]) -> tuple[list[Part], list[Part]]:
    """Adds the pairs that agree in the key, in the order of each side; what is left of both."""
    waiting: dict[Hashable, deque[int]] = defaultdict(deque)
    for index, other in enumerate(right):
        if (found := key(other)) is not None:
            waiting[found].append(index)
    rest, taken = [], set()
    for one in left:
        candidates = waiting.get(key(one))
        if candidates:
            index = candidates.popleft()
            taken.add(index)
            pairs.append(Pair(_verdict(one, right[index]), one, right[index]))
        else:
            rest.append(one)
    return rest, [other for index, other in enumerate(right) if index not in taken]


def _by_place_and_bytes(part: Part) -> Hashable:
    return (part.section, part.name, part.path, part.digest)


def _by_place_and_content(part: Part) -> Hashable:
    return (part.section, part.name, part.path, part.content) if part.content else None


def _by_name(part: Part) -> Hashable:
    return (part.section, part.name) if part.name else None


def _by_path(part: Part) -> Hashable:
    return (part.section, part.path) if part.path else None


def _by_bytes(part: Part) -> Hashable:
    return part.digest


def _by_content(part: Part) -> Hashable:
    return part.content or None


def _by_kind(left: list[Part], right: list[Part]) -> Key:
    """A kind of which each side has one left."""
    counts = [Counter(part.kind for part in side) for side in (left, right)]
    alone = {kind for kind, count in counts[0].items() if count == 1 == counts[1][kind]}
    return lambda part: part.kind if part.kind in alone else None


def _verdict(one: Part, other: Part) -> Change:
    same_place = (one.section, one.path) == (other.section, other.path)
    if one.digest == other.digest:
        return Change.SAME if same_place else Change.MOVED
    if not one.content or not other.content:
        return Change.UNKNOWN  # a compressed layer without diffId: other bytes may hold the same content
    if one.content == other.content:
        return Change.RECOMPRESSED if same_place else Change.MOVED
    return Change.CHANGED


def _doubted(change: Change) -> Change:
    return Change.UNKNOWN if change in (Change.SAME, Change.RECOMPRESSED, Change.MOVED) else change


def compare_fields(before: Mapping[str, Any], after: Mapping[str, Any]) -> list[Field]:
    """Kitfile fields that differ, in order of their pointers; what every packing changes is marked as noise."""
    left, right = dict(flatten(before)), dict(flatten(after))
    fields: list[Field] = []
    for pointer in sorted(left.keys() | right.keys()):
        if pointer in left and pointer in right and _equal(left[pointer], right[pointer]):
            continue
        change = Change.ADDED if pointer not in left else Change.REMOVED if pointer not in right else Change.CHANGED
        one = _text(left[pointer]) if pointer in left else ""
        other = _text(right[pointer]) if pointer in right else ""
        if change == Change.CHANGED and one == other:  # such as the text "1" and the number 1
            one, other = json.dumps(left[pointer]), json.dumps(right[pointer])  # noqa: TID251 -- for the eye only
        fields.append(Field(pointer, change, one, other, pointer.rpartition("/")[2] in NOISE))
    return fields


def _equal(one: Any, other: Any) -> bool:  # noqa: ANN401 -- JSON leaves
    """Python takes true for 1; JSON does not."""
    return bool(one == other) and isinstance(one, bool) == isinstance(other, bool)


def flatten(value: Any) -> Iterator[tuple[str, Any]]:  # noqa: ANN401 -- any JSON
    """Leaves by pointer, each pointer once; members of lists are named by their `name` or `path`, else by their place.

    Empty objects and lists are leaves too, so that nothing that stands in the document is left out. No recursion:
    the depth is the document's.
    """
    waiting: list[tuple[str, Any]] = [("", value)]
    while waiting:
        at, item = waiting.pop()
        if isinstance(item, dict) and item:
            waiting += [(f"{at}/{_escaped(str(key))}", member) for key, member in reversed(item.items())]
        elif isinstance(item, list) and item:
            waiting += [(f"{at}[{label}]", member) for label, member in reversed(_labelled(item))]
        elif at:
            yield at, item


def _labelled(items: list[Any]) -> list[tuple[str, Any]]:
    found: dict[str, Any] = {}
    for index, item in enumerate(items):
        named = (item.get("name") or item.get("path")) if isinstance(item, dict) else None
        label = _escaped(named) if isinstance(named, str) else str(index)
        if label in found:
            label = f"{label}~~{index}"  # no other can end like this: a tilde in a name is escaped
        found[label] = item
    return list(found.items())


def _escaped(text: str) -> str:
    """As RFC 6901, and the brackets too, so that no name can pass for a path."""
    return re.sub(r"[~/\[\]]", lambda match: {"~": "~0", "/": "~1", "[": "~2", "]": "~3"}[match[0]], text)


def _text(value: Any) -> str:  # noqa: ANN401 -- a JSON leaf
    return value if isinstance(value, str) else json.dumps(value)  # noqa: TID251 -- for the eye only


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
    doubts: Sequence[str] = (),
    is_identical: bool = False,
) -> str:
    """The comparison in the manner of `kit diff`, with the fields that it leaves out; doubts stand before all else.

    Foreign names cannot make lines of their own: what does not print stands as its escape.
    """
    if is_identical:
        return "ModelKits are identical\n"
    lines = [f"WARNING: {doubt}" for doubt in doubts] + [""] * bool(doubts)
    lines += ["Comparing:", f"  ModelKit1: {names[0]}  {digests[0] or '(no digest)'}"]
    lines += [
        f"  ModelKit2: {names[1]}  {digests[1] or '(no digest)'}",
        "",
        "Configurations:",
        *_configurations(configs),
    ]
    sections = (
        ("Shared Layers", (Change.SAME, Change.MOVED)),
        ("Repacked Layers (same content)", (Change.RECOMPRESSED,)),
        ("Changed Layers", (Change.CHANGED,)),
        ("Layers not compared", (Change.UNKNOWN,)),
        (f"Unique Layers to ModelKit1 ({names[0]})", (Change.REMOVED,)),
        (f"Unique Layers to ModelKit2 ({names[1]})", (Change.ADDED,)),
    )
    for title, changes in sections:
        lines += ["", f"{title}:"]
        lines += [_layer_line(pair) for pair in pairs if pair.change in changes] or ["  <none>"]
    lines += ["", "Kitfile:"]
    lines += [f"  {f.mark} {f.pointer}: {f.before or '-'} -> {f.after or '-'}" for f in fields] or ["  no difference"]
    return "\n".join(map(printable, lines)) + "\n"


def _configurations(configs: tuple[str, str]) -> list[str]:
    if not all(configs):
        return ["  not compared: a config could not be read, or there is none"]
    return [f"  identical {configs[0]}"] if configs[0] == configs[1] else ["  Configs differ:", *_indented(configs)]


def _indented(texts: Sequence[str]) -> list[str]:
    return [f"  {text}" for text in texts]


def _layer_line(pair: Pair) -> str:
    part = pair.shown
    return f"  {pair.mark} {part.kind:<12} {part.digest[:17]} {part.size:>12}  {part.title}"


def printable(text: str) -> str:
    """Control, format and separator characters as escapes."""
    return "".join(
        f"\\u{ord(char):04x}" if unicodedata.category(char) in ("Cc", "Cf", "Cs", "Zl", "Zp") else char for char in text
    )
