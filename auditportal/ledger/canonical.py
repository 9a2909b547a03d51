"""Canonical JSON (RFC 8785) at the speed of orjson, byte for byte what `auditproof.canonical.encode` gives.

orjson differs from RFC 8785 for some floats and sorts keys by code point. So values pass a normaliser that rewrites
what may be rewritten and hands everything else to the exact encoder.
"""

from __future__ import annotations

from typing import Any

import orjson

from auditproof import canonical

EXACT_INTEGERS = 2**53  # beyond it a double no longer holds every integer (RFC 8785 §3.2.2.3)
SMALLEST_SAME = 1e-5  # at and above it orjson and ECMAScript write the same digits
DEEPEST = 32  # FORMAT.md §1; the outermost value is depth 1


class _ExactEncoderNeededError(Exception):
    pass


def encode(value: Any) -> bytes:  # noqa: ANN401 -- JSON is any of seven types
    """The RFC 8785 bytes of a JSON value.

    Raises:
        auditproof.errors.MalformedError: the value is outside the profile of FORMAT.md §1.
    """
    try:
        return orjson.dumps(_normal(value, 1), option=orjson.OPT_SORT_KEYS)
    except (_ExactEncoderNeededError, orjson.JSONEncodeError):
        return canonical.encode(value)


def _normal(value: Any, depth: int) -> Any:  # noqa: ANN401 -- JSON is any of seven types
    kind = type(value)  # never isinstance: True is an int in Python
    if kind is str or value is None or kind is bool:
        return value
    if kind is int:
        if -EXACT_INTEGERS < value < EXACT_INTEGERS:
            return value
        raise _ExactEncoderNeededError
    if kind is float:
        if value.is_integer() and abs(value) < EXACT_INTEGERS:
            return int(value)  # 100.0 -> 100, -0.0 -> 0
        if SMALLEST_SAME <= abs(value) < EXACT_INTEGERS:
            return value
        raise _ExactEncoderNeededError
    if depth > DEEPEST:
        raise _ExactEncoderNeededError
    if kind is dict:
        if not all(map(str.isascii, value)):
            raise _ExactEncoderNeededError
        return {key: _normal(item, depth + 1) for key, item in value.items()}
    if kind is list:
        return [_normal(item, depth + 1) for item in value]
    raise _ExactEncoderNeededError
