"""Canonical JSON (RFC 8785) at the speed of orjson, with the values and bytes that `auditproof.canonical` gives.

orjson is not strict (the last of two equal members wins, integers have 64 bits), writes some floats otherwise than
RFC 8785 and sorts keys by code point. So what it reads and writes is checked here for all of that, and whatever is
unusual is handed to the exact reader and writer.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from types import NoneType
from typing import Any

import orjson

from auditproof import canonical

EXACT_INTEGERS = canonical.MAX_EXACT
SMALLEST_SAME = 1e-5  # at and above it orjson and ECMAScript write the same digits
DEEPEST = canonical.MAX_DEPTH
_SAME = frozenset({str, bool, NoneType})  # kinds that every reader and writer treats alike


class _UnusualError(Exception):
    """The exact reader or writer has to decide."""


def admit(raw: bytes, *, max_bytes: int = canonical.MAX_BYTES, max_depth: int = DEEPEST) -> canonical.Json:
    """As `auditproof.canonical.admit`, which decides about everything unusual.

    Raises:
        auditproof.errors.MalformedError: the text is outside the profile of FORMAT.md §1.
    """
    return read(raw, max_bytes=max_bytes, max_depth=max_depth).value


@dataclass(frozen=True, slots=True)
class Reading:
    """An admitted value, and whether `is_usual` is known to hold for every object and array in it."""

    value: canonical.Json
    is_usual: bool


def read(raw: bytes, *, max_bytes: int = canonical.MAX_BYTES, max_depth: int = DEEPEST) -> Reading:
    """As `admit`, with what was seen on the way."""
    try:
        return _read_usual(raw, max_bytes, max_depth)
    except (_UnusualError, orjson.JSONDecodeError, orjson.JSONEncodeError):
        return Reading(canonical.admit(raw, max_bytes=max_bytes, max_depth=max_depth), is_usual=False)


def _read_usual(raw: bytes, max_bytes: int, max_depth: int) -> Reading:
    if len(raw) > max_bytes:
        raise _UnusualError
    value = orjson.loads(raw)
    told = orjson.dumps(value)
    # Each member has one colon in the text, and texts keep theirs unless written as an escape. So equal numbers of
    # colons mean that no member was dropped for another one of its name.
    if raw.count(b":") != told.count(b":") or b"\\u003" in raw:
        raise _UnusualError
    if b"$sealed" in told or b"\\u0000" in told:
        raise _UnusualError
    if type(value) is not dict and type(value) is not list:
        raise _UnusualError
    return Reading(value, _settle(value, max_depth))


def _settle(value: Any, depth: int) -> bool:  # noqa: ANN401 -- an object or array, fresh from the reader
    """Integral numbers are integers, as the exact reader has them; the value may nest `depth` levels from here.

    True if every number is one that orjson writes as RFC 8785 does.
    """
    is_usual = True
    for place, item in value.items() if type(value) is dict else enumerate(value):
        kind = type(item)
        if kind in _SAME:
            continue
        if kind is dict or kind is list:
            if depth == 1:
                raise _UnusualError
            is_usual = _settle(item, depth - 1) and is_usual
        elif not -EXACT_INTEGERS < item < EXACT_INTEGERS:
            raise _UnusualError
        elif kind is float:
            if item.is_integer():
                value[place] = int(item)
            elif abs(item) < SMALLEST_SAME:
                is_usual = False
    return is_usual


def encode(value: Any) -> bytes:  # noqa: ANN401 -- JSON is any of seven types
    """The RFC 8785 bytes of a JSON value.

    Raises:
        auditproof.errors.MalformedError: the value is outside the profile of FORMAT.md §1.
    """
    try:
        return write(value if is_usual(value) else _normal(value, 1))
    except _UnusualError:
        return canonical.encode(value)


def write(value: Any) -> bytes:  # noqa: ANN401 -- JSON is any of seven types
    """The RFC 8785 bytes of a value whose numbers and kinds are known to be usual ones."""
    try:
        raw = orjson.dumps(value, option=orjson.OPT_SORT_KEYS)
    except orjson.JSONEncodeError:  # a lone surrogate, or a member name that is no text
        return canonical.encode(value)
    # Names of ASCII sort alike by code point and by UTF-16 unit; U+0000 is what the exact writer refuses.
    if b"\\u0000" in raw or not (raw.isascii() or _has_ascii_names(value)):
        return canonical.encode(value)
    return raw


def is_usual(value: Any, depth: int = 1) -> bool:  # noqa: ANN401 -- any object
    """Whether it is an object or array whose numbers orjson writes as RFC 8785 does, and of plain JSON types.

    `depth` is the level at which it stands in its document, the outermost being 1.
    """
    if type(value) is dict:
        items: Iterable[Any] = value.values()
    elif type(value) is list:
        items = value
    else:
        return False
    if depth > DEEPEST:
        return False
    for item in items:
        kind = type(item)  # never isinstance: True is an int in Python
        if kind in _SAME:
            continue
        if kind is int:
            if not -EXACT_INTEGERS < item < EXACT_INTEGERS:
                return False
        elif kind is float:
            if not SMALLEST_SAME <= abs(item) < EXACT_INTEGERS or item.is_integer():
                return False
        elif not is_usual(item, depth + 1):
            return False
    return True


def _has_ascii_names(value: Any) -> bool:  # noqa: ANN401 -- JSON is any of seven types
    if type(value) is dict:
        return all(map(str.isascii, value)) and all(map(_has_ascii_names, value.values()))
    return type(value) is not list or all(map(_has_ascii_names, value))


def _normal(value: Any, depth: int) -> Any:  # noqa: ANN401 -- any object
    """The value with its integral floats as integers: 100.0 -> 100, -0.0 -> 0."""
    kind = type(value)
    if kind in _SAME:
        return value
    if kind is dict and depth <= DEEPEST:
        return {key: _normal(item, depth + 1) for key, item in value.items()}
    if kind is list and depth <= DEEPEST:
        return [_normal(item, depth + 1) for item in value]
    if kind is int and -EXACT_INTEGERS < value < EXACT_INTEGERS:
        return value
    if kind is float and value.is_integer() and abs(value) < EXACT_INTEGERS:
        return int(value)
    if kind is float and SMALLEST_SAME <= abs(value) < EXACT_INTEGERS:
        return value
    raise _UnusualError
