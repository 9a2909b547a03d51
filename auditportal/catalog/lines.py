"""Two texts line by line, and inside changed lines word by word; bounded, and unchanged stretches folded."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from difflib import SequenceMatcher

MOST_LINES = 5000  # of either text; beyond it lines are not compared one by one
MOST_SHOWN = 1000  # rows
CONTEXT = 3
MOST_WORK = 2_000_000  # pairs of words looked at in one comparison, a second or so; lines beyond it are marked whole
_WORDS = re.compile(r"\w+|\s+|.")


@dataclass(frozen=True, slots=True)
class Segment:
    text: str
    is_changed: bool


@dataclass(frozen=True, slots=True)
class Line:
    number: int
    segments: tuple[Segment, ...]


@dataclass(frozen=True, slots=True)
class Row:
    """A line of either side, or of both; or `folded` unchanged lines in its place."""

    before: Line | None
    after: Line | None
    is_changed: bool
    folded: int = 0


@dataclass(frozen=True, slots=True)
class LineDiff:
    rows: list[Row]
    added: int
    removed: int
    left_out: int  # rows beyond those shown


@dataclass(slots=True)
class _Budget:
    """Comparing words costs up to the product of their numbers, and the texts are foreign."""

    left: int = MOST_WORK

    def allows(self, cost: int) -> bool:
        self.left -= cost
        return self.left >= 0


def compare_lines(before: str, after: str) -> LineDiff | None:
    """The rows; None where a text is too long for it."""
    left, right = before.splitlines(), after.splitlines()
    if max(len(left), len(right)) > MOST_LINES:
        return None
    rows: list[Row] = []
    added = removed = 0
    budget = _Budget()
    codes = SequenceMatcher(None, left, right).get_opcodes()
    for index, (tag, a, b, c, d) in enumerate(codes):
        if tag == "equal":
            rows += _unchanged(left[a:b], a, c, is_first=index == 0, is_last=index == len(codes) - 1)
        else:
            removed, added = removed + b - a, added + d - c
            rows += _changed(left[a:b], right[c:d], (a, c), budget)
    return LineDiff(rows[:MOST_SHOWN], added, removed, max(0, len(rows) - MOST_SHOWN))


def _unchanged(lines: list[str], a: int, c: int, *, is_first: bool, is_last: bool) -> Iterator[Row]:
    head, tail = (0 if is_first else CONTEXT), (0 if is_last else CONTEXT)
    folded = len(lines) - head - tail
    for index, text in enumerate(lines):
        if folded > 1 and head <= index < len(lines) - tail:
            if index == head:
                yield Row(None, None, is_changed=False, folded=folded)
            continue
        segments = (Segment(text, is_changed=False),)
        yield Row(Line(a + index + 1, segments), Line(c + index + 1, segments), is_changed=False)


def _changed(left: list[str], right: list[str], at: tuple[int, int], budget: _Budget) -> Iterator[Row]:
    for index in range(max(len(left), len(right))):
        one = left[index] if index < len(left) else None
        other = right[index] if index < len(right) else None
        before, after = _words(one, other, budget)
        yield Row(
            None if one is None else Line(at[0] + index + 1, before),
            None if other is None else Line(at[1] + index + 1, after),
            is_changed=True,
        )


def _words(one: str | None, other: str | None, budget: _Budget) -> tuple[tuple[Segment, ...], tuple[Segment, ...]]:
    left, right = (_WORDS.findall(text or "") for text in (one, other))
    if one is None or other is None or not budget.allows(len(left) * len(right)):
        whole = [(Segment(text, is_changed=False),) if text is not None else () for text in (one, other)]
        return whole[0], whole[1]
    before: list[Segment] = []
    after: list[Segment] = []
    for tag, a, b, c, d in SequenceMatcher(None, left, right, autojunk=False).get_opcodes():
        if a < b:
            before.append(Segment("".join(left[a:b]), is_changed=tag != "equal"))
        if c < d:
            after.append(Segment("".join(right[c:d]), is_changed=tag != "equal"))
    return tuple(before), tuple(after)
