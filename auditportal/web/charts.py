"""Charts as SVG made here: numbers by f-strings, since templates may localise them; no style for the policy to stop."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from django.utils.safestring import SafeString, mark_safe

from auditportal.ledger.search import Histogram

WIDTH, HEIGHT = 960, 76
GAP = 2
LABELS = 5


@dataclass(frozen=True, slots=True)
class Chart:
    svg: SafeString
    labels: list[str]
    summary: str
    done: int
    other: int


def histogram_svg(found: Histogram) -> Chart | None:
    """Bars of done and, on top, refused or failed events; None when there is nothing to draw."""
    if not found.bars:
        return None
    first, last = found.bars[0].start, found.bars[-1].start
    places = int((last - first).total_seconds() // found.seconds) + 1
    step = WIDTH / max(places, 12)  # few bars stay bars instead of filling the width
    tallest = max(bar.done + bar.other for bar in found.bars)
    parts = []
    for bar in found.bars:
        x = (bar.start - first).total_seconds() / found.seconds * step
        high = HEIGHT * bar.done / tallest
        top = HEIGHT * bar.other / tallest
        parts.append(_rect("ok", x, HEIGHT - high, step - GAP, high))
        if bar.other:
            parts.append(_rect("bad", x, HEIGHT - high - top, step - GAP, max(top, 2)))
    done, other = sum(bar.done for bar in found.bars), sum(bar.other for bar in found.bars)
    period = f"{_label(first, found.seconds)} to {_label(last, found.seconds)}"
    summary = f"{done + other} events from {period}; most in one bar: {tallest}"
    svg = (
        f'<svg viewBox="0 0 {WIDTH} {HEIGHT}" preserveAspectRatio="none" role="img" aria-label="{summary}">'
        f'<path class="grid" d="M0 .5H{WIDTH}M0 38.5H{WIDTH}" vector-effect="non-scaling-stroke"/>'
        f"{''.join(parts)}</svg>"
    )
    # All of it is made of numbers and fixed text, so nothing needs escaping.
    return Chart(mark_safe(svg), _axis(first, places, found.seconds), summary, done, other)  # noqa: S308 -- see above


def _rect(kind: str, x: float, y: float, width: float, height: float) -> str:
    return f'<rect class="{kind}" x="{x:.1f}" y="{y:.1f}" width="{max(width, 1):.1f}" height="{height:.1f}" rx="1"/>'


def _label(when: datetime, seconds: int) -> str:
    utc = when.astimezone(UTC)
    return f"{utc.day} {utc:%b %Y}" if seconds >= 86_400 else f"{utc.day} {utc:%b %H:%M}"  # noqa: PLR2004 -- a day


def _axis(first: datetime, places: int, seconds: int) -> list[str]:
    shown = max(places, 12)
    steps = [round(index * (shown - 1) / (LABELS - 1)) for index in range(LABELS)]
    return [_label(first + timedelta(seconds=seconds * step), seconds) for step in steps]
