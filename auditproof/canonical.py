"""Canonical JSON: strict reading, and the one way to write a value (RFC 8785).

`encode` makes the bytes that are hashed, once, when an event is recorded. `admit` is the door: it refuses everything on
which two readers could disagree (duplicate members, numbers beyond exact doubles, lone surrogates), so that
`admit(encode(value)) == value` and `encode(admit(raw))` is the only canonical spelling of `raw`.

The numbers of the profile are the doubles without 2^53 <= |x| < 10^21: RFC 8785 writes those as plain digits, which
other readers take for exact integers. A number is an `int` if it is integral and below 2^53, and a `float` otherwise.
Text is any Unicode but U+0000 and is never normalised.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, Literal, NoReturn, TypeAlias

from .errors import malformed

Json: TypeAlias = "bool | int | float | str | list[Json] | dict[str, Json] | None"
Sealed: TypeAlias = Literal["refused", "allowed"]
Path: TypeAlias = "tuple[Path, str | int] | None"  # linked, since a pointer as text per value costs quadratic time

MAX_BYTES = 256 * 1024  # of a body; a producer splits what is longer
MAX_DEPTH = 32  # nested objects and arrays; the outermost is the first
MAX_EXACT = 2**53  # from here on neighbouring integers share a double
MIN_SCIENTIFIC = 1e21  # from here on RFC 8785 writes an exponent, so nobody takes the number for an exact integer
SEALED_MEMBER = "$sealed"

_SEALED_VALUE = re.compile(r"sha256:[0-9a-f]{64}")
_FORBIDDEN_TEXT = re.compile("[\x00\ud800-\udfff]")
_SHORT_INTEGER = 17  # sign and digits of 2^53: longer ones are read as doubles
_LONGEST_INTEGER = 310  # sign and digits of the largest double: longer ones overflow

_NUMBER_RULE = "a number whose double is below 2^53, or 10^21 and more, in magnitude (write larger integers as strings)"
_TEXT_RULE = "text without U+0000 and without lone surrogates"
_DEPTH_RULE = "at most {} nested objects and arrays"
_SEALED_RULE = 'no member named "$sealed" (values are sealed by the portal)'
_SEALED_SHAPE = 'a sealed value: exactly {"$sealed": "sha256:" and 64 lowercase hex digits}'

# Escapes what RFC 8785 §3.2.2.2 escapes, the same way, in C.
quote_text: Callable[[str], str] = json.encoder.encode_basestring


def admit(
    raw: bytes,
    *,
    max_bytes: int = MAX_BYTES,
    max_depth: int = MAX_DEPTH,
    sealed: Sealed = "refused",
) -> Json:
    """The value of a JSON text in the profile.

    Args:
        raw: The bytes as received: UTF-8 without byte order mark.
        max_bytes: The longest accepted text.
        max_depth: The most nested objects and arrays; the outermost is depth 1.
        sealed: Whether `{"$sealed": "sha256:…"}` may stand in the text. What producers send may not hold it; a stored
            body may, at the places that its parser checks.

    Raises:
        MalformedError: The text is outside the profile. `place` is a JSON pointer where one can be known, otherwise a
            byte or character offset; `expected` is the rule.
    """
    if len(raw) > max_bytes:
        raise malformed("", f"at most {max_bytes} bytes", len(raw))
    text = _decode(raw)
    try:
        value: Json = _STRICT.decode(text)
    except _BrokenRuleError:
        _explain(text)
    except json.JSONDecodeError as error:
        raise malformed(f"character {error.pos}", "JSON (RFC 8259)", error.msg) from None
    except RecursionError:
        raise malformed("", _DEPTH_RULE.format(max_depth), "far more") from None
    # Walking every value costs more than parsing it. A text with so few brackets cannot nest too deeply, U+0000 and
    # lone surrogates come in by an escape only, and so does a disguised "$sealed".
    if raw.count(b"{") + raw.count(b"[") > max_depth or b"\\u" in raw or b"$sealed" in raw:
        _check(value, max_depth=max_depth, sealed=sealed)
    return value


def encode(value: Json) -> bytes:
    """The RFC 8785 bytes of a value in the profile.

    Raises:
        MalformedError: The value is outside the profile, so that `admit` would not read the same value again.
    """
    parts: list[str] = []
    try:
        _write(value, parts.append, 1)
        raw = "".join(parts).encode("utf-8")
    except (_BrokenRuleError, UnicodeEncodeError):
        _check(value, max_depth=MAX_DEPTH, sealed="allowed")
        raise AssertionError("the check names whatever cannot be written") from None
    if b"\\u0000" in raw:  # an escaped backslash before "u0000" looks the same: the values themselves must tell
        _check(value, max_depth=MAX_DEPTH, sealed="allowed")
    return raw


def format_number(value: float) -> str:
    """A finite double as ECMAScript writes it (RFC 8785 §3.2.2.3, ECMA-262 Number::toString)."""
    if value == 0:
        return "0"
    sign = "-" if value < 0 else ""
    mantissa, _, exponent = repr(abs(value)).partition("e")  # repr gives the shortest digits that read back the same
    whole, _, fraction = mantissa.partition(".")
    padded = whole + fraction
    digits = padded.lstrip("0")
    point = len(whole) + int(exponent or 0) - (len(padded) - len(digits))
    return sign + _place_point(digits.rstrip("0"), point)


def is_sealed(value: Json) -> bool:
    """Whether the value is exactly `{"$sealed": "sha256:…"}`."""
    if not isinstance(value, dict) or len(value) != 1:
        return False
    commitment = value.get(SEALED_MEMBER)
    return isinstance(commitment, str) and _SEALED_VALUE.fullmatch(commitment) is not None


def pointer(place: str, token: str | int) -> str:
    """The JSON pointer one step below `place` (RFC 6901)."""
    return f"{place}/{str(token).replace('~', '~0').replace('/', '~1')}"


class _BrokenRuleError(Exception):
    """Thrown through code that knows no place; a second, slower pass over the value finds it."""


@dataclass(frozen=True, slots=True)
class _Mark:
    """What the second pass puts in the place of a value that broke a rule."""

    rule: str
    found: str
    member: str | None = None


def _decode(raw: bytes) -> str:
    try:
        text = str(raw, "utf-8")
    except UnicodeDecodeError as error:
        raise malformed(f"byte {error.start}", "UTF-8", error.reason) from None
    if text.startswith("\ufeff"):
        raise malformed("byte 0", "UTF-8 without byte order mark", "a byte order mark")
    return text


def _object(pairs: list[tuple[str, Json]]) -> dict[str, Json]:
    members = dict(pairs)
    if len(members) != len(pairs):
        raise _BrokenRuleError
    return members


def _integer(digits: str) -> int | float:
    if len(digits) <= _SHORT_INTEGER:
        number = int(digits)
        if -MAX_EXACT < number < MAX_EXACT:
            return number
    elif len(digits) <= _LONGEST_INTEGER:
        return _float(digits)
    raise _BrokenRuleError


def _float(digits: str) -> int | float:
    number = float(digits)
    if not _is_in_profile(number):
        raise _BrokenRuleError
    return int(number) if number.is_integer() and abs(number) < MAX_EXACT else number


def _is_in_profile(number: float) -> bool:
    magnitude = abs(number)
    return magnitude < MAX_EXACT or MIN_SCIENTIFIC <= magnitude < float("inf")


def _constant(_: str) -> NoReturn:
    raise _BrokenRuleError


_STRICT = json.JSONDecoder(
    object_pairs_hook=_object, parse_int=_integer, parse_float=_float, parse_constant=_constant, strict=True
)


def _explain(text: str) -> NoReturn:
    """Read the text again with marks where the rules are broken, and say where the first one stands."""
    try:
        value = _MARKING.decode(text)
    except (json.JSONDecodeError, RecursionError) as error:
        raise malformed("", "JSON (RFC 8259) in the profile", type(error).__name__) from None
    for path, _, item in _walk(value):
        if isinstance(item, _Mark):
            raise malformed(_place(path if item.member is None else (path, item.member)), item.rule, item.found)
    raise AssertionError("the marking reader marks whatever the strict reader refuses")


def _marking_object(pairs: list[tuple[str, object]]) -> object:
    seen: set[str] = set()
    for member, _ in pairs:
        if member in seen:
            return _Mark("each member once", member, member)
        seen.add(member)
    return dict(pairs)


def _marking(read: Callable[[str], int | float]) -> Callable[[str], object]:
    def mark(digits: str) -> object:
        try:
            return read(digits)
        except _BrokenRuleError:
            return _Mark(_NUMBER_RULE, digits)

    return mark


_MARKING = json.JSONDecoder(
    object_pairs_hook=_marking_object,
    parse_int=_marking(_integer),
    parse_float=_marking(_float),
    parse_constant=lambda word: _Mark("a finite number", word),
    strict=True,
)


def _walk(value: object) -> Iterator[tuple[Path, int, object]]:
    """Each value with its path and how many objects and arrays enclose it, in document order."""
    stack: list[tuple[Path, int, object]] = [(None, 0, value)]
    while stack:
        path, depth, item = stack.pop()
        yield path, depth, item
        if isinstance(item, dict):
            stack.extend(((path, member), depth + 1, item[member]) for member in reversed(item))
        elif isinstance(item, list):
            stack.extend(((path, i), depth + 1, item[i]) for i in reversed(range(len(item))))


def _place(path: Path) -> str:
    tokens: list[str | int] = []
    while path is not None:
        path, token = path
        tokens.append(token)
    place = ""
    for token in reversed(tokens):
        place = pointer(place, token)
    return place


def _check(value: Json, *, max_depth: int, sealed: Sealed) -> None:
    """Refuse every value outside the profile, with its place."""
    for path, depth, item in _walk(value):
        if isinstance(item, str):
            _check_text(path, item)
        elif isinstance(item, dict | list):
            if depth >= max_depth:
                raise malformed(_place(path), _DEPTH_RULE.format(max_depth), "one more")
            if isinstance(item, dict):
                _check_members(path, item, sealed)
        elif type(item) is int or type(item) is float:
            if not _is_in_profile(item) or (type(item) is int and abs(item) >= MAX_EXACT):
                raise malformed(_place(path), _NUMBER_RULE, item)
        elif item is not None and type(item) is not bool:
            raise malformed(_place(path), "a JSON value", type(item).__name__)


def _check_text(path: Path, text: str) -> None:
    if bad := _FORBIDDEN_TEXT.search(text):
        raise malformed(_place(path), _TEXT_RULE, f"U+{ord(bad.group()):04X}")


def _check_members(path: Path, members: dict[str, Json], sealed: Sealed) -> None:
    for member in members:
        if not isinstance(member, str):
            raise malformed(_place(path), "member names that are text", type(member).__name__)
        _check_text((path, member), member)
    if SEALED_MEMBER not in members:
        return
    if sealed == "refused":
        raise malformed(_place((path, SEALED_MEMBER)), _SEALED_RULE, SEALED_MEMBER)
    if not is_sealed(members):
        raise malformed(_place(path), _SEALED_SHAPE, members[SEALED_MEMBER])


def _write(value: Any, out: Callable[[str], None], depth: int) -> None:  # noqa: ANN401 -- narrowed by exact type
    # By exact type: `isinstance(True, int)` holds in Python.
    kind = type(value)
    if kind is str:
        out(quote_text(value))
    elif kind is dict:
        _write_object(value, out, depth)
    elif kind is int:
        if not -MAX_EXACT < value < MAX_EXACT:
            raise _BrokenRuleError
        out(repr(value))
    elif kind is float:
        if not _is_in_profile(value):
            raise _BrokenRuleError
        out(format_number(value))
    elif value is None:
        out("null")
    elif kind is bool:
        out("true" if value else "false")
    elif kind is list:
        _write_array(value, out, depth)
    elif isinstance(value, str):  # members of a StrEnum
        out(quote_text(value))
    else:
        raise _BrokenRuleError


def _write_object(members: dict[str, Json], out: Callable[[str], None], depth: int) -> None:
    if depth > MAX_DEPTH:
        raise _BrokenRuleError
    opening = "{"
    for member in _in_order(members):
        out(f"{opening}{quote_text(member)}:")
        _write(members[member], out, depth + 1)
        opening = ","
    out("{}" if opening == "{" else "}")


def _write_array(items: list[Json], out: Callable[[str], None], depth: int) -> None:
    if depth > MAX_DEPTH:
        raise _BrokenRuleError
    opening = "["
    for item in items:
        out(opening)
        _write(item, out, depth + 1)
        opening = ","
    out("[]" if opening == "[" else "]")


def _in_order(members: dict[str, Json]) -> list[str]:
    """Member names by UTF-16 code unit (RFC 8785 §3.2.3): characters beyond U+FFFF sort before U+E000 and above."""
    try:
        if "".join(members).isascii():
            return sorted(members)
        return sorted(members, key=lambda member: member.encode("utf-16-be", "surrogatepass"))
    except TypeError:  # a name that is no text
        raise _BrokenRuleError from None


def _place_point(digits: str, point: int) -> str:
    """The number 0.DIGITS times 10^point, as ECMA-262 Number::toString writes it for k = len(digits), n = point."""
    most_digits, most_zeros = 21, 6  # fixed by ECMA-262
    if len(digits) <= point <= most_digits:
        return digits + "0" * (point - len(digits))
    if 0 < point <= most_digits:
        return f"{digits[:point]}.{digits[point:]}"
    if -most_zeros < point <= 0:
        return f"0.{'0' * -point}{digits}"
    fraction = f".{digits[1:]}" if len(digits) > 1 else ""
    return f"{digits[0]}{fraction}e{point - 1:+d}"
