"""Ed25519 verification in plain Python (RFC 8032 §5.1.7), for machines without the `cryptography` package.

Some ten milliseconds a signature. It only verifies, so nothing here is secret and nothing needs constant time.
Stricter than the RFC where attackers look: non-canonical encodings and points of low order are refused.
"""

from __future__ import annotations

import hashlib
from functools import lru_cache
from typing import TypeAlias

Point: TypeAlias = tuple[int, int, int, int]  # extended homogeneous coordinates

P = 2**255 - 19
ORDER = 2**252 + 27742317777372353535851937790883648493
D = -121665 * pow(121666, P - 2, P) % P
SQRT_M1 = pow(2, (P - 1) // 4, P)
KEY_BYTES = 32
SIGNATURE_BYTES = 64
IDENTITY: Point = (0, 1, 1, 0)


@lru_cache(maxsize=1_024)
def is_acceptable_key(key: bytes) -> bool:
    """Whether the bytes are a canonical point that is not of low order."""
    point = _decode(key)
    return point is not None and not _is_low_order(point)


def verify(key: bytes, signature: bytes, message: bytes) -> bool:
    """Whether the signature over the message holds under the key."""
    if len(signature) != SIGNATURE_BYTES:
        return False
    public, commitment = _decode(key), _decode(signature[:KEY_BYTES])
    scalar = int.from_bytes(signature[KEY_BYTES:], "little")
    if public is None or commitment is None or _is_low_order(public) or scalar >= ORDER:
        return False
    digest = hashlib.sha512(signature[:KEY_BYTES] + key + message).digest()
    challenge = int.from_bytes(digest, "little") % ORDER
    return _equal(_multiply(scalar, BASE), _add(commitment, _multiply(challenge, public)))


def _decode(raw: bytes) -> Point | None:
    """The point of a canonical encoding (RFC 8032 §5.1.3)."""
    if len(raw) != KEY_BYTES:
        return None
    number = int.from_bytes(raw, "little")
    sign, y = number >> 255, number & (2**255 - 1)
    if y >= P:
        return None
    x = _recover_x(y, sign)
    return None if x is None else (x, y, 1, x * y % P)


def _recover_x(y: int, sign: int) -> int | None:
    squared = (y * y - 1) * pow(D * y * y + 1, P - 2, P) % P
    if squared == 0:
        return None if sign else 0
    x = pow(squared, (P + 3) // 8, P)
    if (x * x - squared) % P:
        x = x * SQRT_M1 % P
    if (x * x - squared) % P:
        return None
    return P - x if x & 1 != sign else x


def _add(left: Point, right: Point) -> Point:
    a = (left[1] - left[0]) * (right[1] - right[0]) % P
    b = (left[1] + left[0]) * (right[1] + right[0]) % P
    c = 2 * left[3] * right[3] * D % P
    d = 2 * left[2] * right[2] % P
    e, f, g, h = b - a, d - c, d + c, b + a
    return (e * f % P, g * h % P, f * g % P, e * h % P)


def _multiply(scalar: int, point: Point) -> Point:
    result = IDENTITY
    while scalar:
        if scalar & 1:
            result = _add(result, point)
        point = _add(point, point)
        scalar >>= 1
    return result


def _equal(left: Point, right: Point) -> bool:
    return (left[0] * right[2] - right[0] * left[2]) % P == 0 and (left[1] * right[2] - right[1] * left[2]) % P == 0


def _is_low_order(point: Point) -> bool:
    return _equal(_multiply(8, point), IDENTITY)  # the cofactor


_BASE_Y = 4 * pow(5, P - 2, P) % P
_BASE_X = _recover_x(_BASE_Y, 0) or 0
BASE: Point = (_BASE_X, _BASE_Y, 1, _BASE_X * _BASE_Y % P)
