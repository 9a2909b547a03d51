"""Foreign JSON made fit to be kept: PostgreSQL and the log refuse U+0000, lone surrogates and numbers that are none."""

from __future__ import annotations

import math
from typing import Any

MOST_DEPTH = 30  # below what a body may nest (FORMAT.md §1); deeper parts are replaced by a note
TOO_DEEP = "(nested too deeply to be kept)"


def clean(value: Any, depth: int = MOST_DEPTH) -> Any:  # noqa: ANN401 -- any JSON
    """The value with whatever no database takes replaced visibly; everything else as it was."""
    if isinstance(value, str):
        return clean_text(value)
    if isinstance(value, float) and not math.isfinite(value):
        return str(value)
    if isinstance(value, dict):
        return {clean_text(key): clean(item, depth - 1) for key, item in value.items()} if depth else TOO_DEEP
    if isinstance(value, list):
        return [clean(item, depth - 1) for item in value] if depth else TOO_DEEP
    return value


def clean_text(text: str) -> str:
    """Text without U+0000 and lone surrogates; `\ufffd` and `?` stand for them."""
    whole = text if text.isascii() else text.encode("utf-8", "replace").decode()
    return whole.replace("\x00", "\ufffd")
