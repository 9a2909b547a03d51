"""Numbers, times and texts as people read them; everything here returns plain text."""

from __future__ import annotations

import re
from datetime import UTC, datetime

SHOWN_DIGITS = 12
_UNSAFE = re.compile(
    "[\u0000-\u001f\u007f-\u009f\u00ad\u061c\u200b-\u200f\u2028-\u202e\u2060-\u206f\ufeff\ufff9-\ufffb]"
)
_MINUTE, _HOUR, _DAY = 60, 3600, 86_400


def count(number: int) -> str:
    return f"{number:,}"


def visible(text: str) -> str:
    """Control, bidi and zero-width characters as visible escapes, so that what is read is what is there."""
    return _UNSAFE.sub(lambda match: f"⟨U+{ord(match[0]):04X}⟩", text)


def visible_lines(text: str) -> str:
    """As `visible`, for text of several lines: its own line feeds stay."""
    return "\n".join(map(visible, text.split("\n")))


def moment(when: datetime) -> str:
    """`20 Nov 2026 14:02:11.482 UTC`."""
    utc = when.astimezone(UTC)
    return f"{utc.day} {utc:%b %Y %H:%M:%S}.{utc.microsecond // 1000:03d} UTC"


def day(when: datetime) -> str:
    utc = when.astimezone(UTC)
    return f"{utc:%a} {utc.day} {utc:%b %Y}"


def clock(when: datetime) -> tuple[str, str]:
    """`14:02:11` and `.482`."""
    utc = when.astimezone(UTC)
    return f"{utc:%H:%M:%S}", f".{utc.microsecond // 1000:03d}"


def iso(when: datetime) -> str:
    return when.astimezone(UTC).isoformat(timespec="microseconds").replace("+00:00", "Z")


def ago(when: datetime, now: datetime) -> str:
    seconds = int((now - when).total_seconds())
    if seconds < _MINUTE:
        return "just now"
    if seconds < _HOUR:
        return f"{seconds // _MINUTE} min ago"
    if seconds < 2 * _DAY:
        return f"{seconds // _HOUR} h ago"
    return f"{seconds // _DAY} days ago"


def size(number: int) -> str:
    """Bytes in decimal units: `212.4 MB`."""
    amount = float(number)
    for unit in ("B", "kB", "MB", "GB"):
        if amount < 1000:  # noqa: PLR2004 -- decimal units
            return f"{int(amount)} {unit}" if unit == "B" else f"{amount:.1f} {unit}"
        amount /= 1000
    return f"{amount:.1f} TB"


def in_fours(digits: str) -> str:
    """A digest in groups of four, to be read aloud."""
    return " ".join(digits[at : at + 4] for at in range(0, len(digits), 4))


def short_digest(text: str) -> str:
    """A digest short enough for a line; the whole of it belongs into `title`."""
    algorithm, colon, digits = text.rpartition(":")
    if len(digits) <= 2 * SHOWN_DIGITS:
        return text
    return f"{algorithm}{colon}{digits[:SHOWN_DIGITS]}…{digits[-6:]}"
