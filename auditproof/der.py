"""DER (ITU-T X.690 §8, §10), as far as certificates and signatures need it: read strictly, never written.

Lengths are definite and minimal, tags have one byte, nothing follows the outermost value.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime

from .errors import malformed

BOOLEAN, INTEGER, BIT_STRING, OCTET_STRING, OID, UTC_TIME, GENERALIZED_TIME = 0x01, 0x02, 0x03, 0x04, 0x06, 0x17, 0x18
SEQUENCE, SET = 0x30, 0x31
MAX_BYTES = 64 * 1024  # a chain of certificates has a twentieth of it
_LONGEST_LENGTH = 3  # bytes of a length: up to 16 MiB, far beyond MAX_BYTES
_TIME_CHARS = {UTC_TIME: 13, GENERALIZED_TIME: 15}
_CENTURY_TURNS = 50  # RFC 5280 §4.1.2.5.1: a two-digit year from 50 on belongs to the twentieth century


@dataclass(frozen=True, slots=True)
class Value:
    """One value: its tag, its content, and all its bytes as they stand."""

    tag: int
    content: bytes
    raw: bytes


def read(raw: bytes, place: str) -> Value:
    """The one value that the bytes hold.

    Raises:
        MalformedError: not DER, or something follows.
    """
    value, rest = _first(raw, place)
    if rest:
        raise malformed(place, "nothing after the outermost value", rest)
    return value


def _first(raw: bytes, place: str) -> tuple[Value, bytes]:
    if len(raw) > MAX_BYTES or len(raw) < 2 or raw[0] & 0x1F == 0x1F:  # noqa: PLR2004 -- a tag and a length
        raise malformed(place, f"DER of at most {MAX_BYTES} bytes", raw)
    length, start = raw[1], 2
    if length & 0x80:
        count = length & 0x7F
        start = 2 + count
        octets = raw[2:start]
        length = int.from_bytes(octets, "big")
        if not 1 <= count <= _LONGEST_LENGTH or len(octets) != count or octets[0] == 0 or length < 0x80:  # noqa: PLR2004 -- the short form's end
            raise malformed(place, "a definite length in its shortest form", raw[:start])
    end = start + length
    if end > len(raw):
        raise malformed(place, f"{length} bytes of content", len(raw) - start)
    return Value(raw[0], raw[start:end], raw[:end]), raw[end:]


def children(value: Value, tag: int, place: str) -> list[Value]:
    """What stands in a constructed value of this tag.

    Raises:
        MalformedError: another tag, or content that is not DER.
    """
    expect(value, tag, place)
    rest, found = value.content, []
    while rest:
        item, rest = _first(rest, place)
        found.append(item)
    return found


def expect(value: Value, tag: int, place: str) -> bytes:
    """The content of a value of this tag.

    Raises:
        MalformedError: another tag.
    """
    if value.tag != tag:
        raise malformed(place, f"tag {tag:#04x}", f"{value.tag:#04x}")
    return value.content


def fields(value: Value, tag: int, count: int, place: str) -> list[Value]:
    """As `children`, for exactly so many.

    Raises:
        MalformedError: another tag or count.
    """
    found = children(value, tag, place)
    if len(found) != count:
        raise malformed(place, f"{count} values", len(found))
    return found


def oid(value: Value, place: str) -> str:
    """An object identifier in dotted form.

    Raises:
        MalformedError: otherwise.
    """
    content = expect(value, OID, place)
    numbers: list[int] = []
    number = 0
    for octet in content:
        if number == 0 and octet == 0x80:  # noqa: PLR2004 -- a padding byte
            raise malformed(place, "an object identifier in its shortest form", content)
        number = number << 7 | octet & 0x7F
        if not octet & 0x80:
            numbers.append(number)
            number = 0
    if not numbers or number or content[-1] & 0x80:
        raise malformed(place, "an object identifier", content)
    first = min(numbers[0] // 40, 2)
    return ".".join(map(str, [first, numbers[0] - 40 * first, *numbers[1:]]))


def bits(value: Value, place: str) -> bytes:
    """The content of a bit string without its count of unused bits.

    Raises:
        MalformedError: otherwise.
    """
    content = expect(value, BIT_STRING, place)
    unused = content[0] if content else 8
    if unused > 7 or (unused and len(content) == 1):  # noqa: PLR2004 -- bits of a byte
        raise malformed(place, "a bit string", content)
    if unused and content[-1] & ((1 << unused) - 1):
        raise malformed(place, "unused bits of zero", content)
    return content[1:]


def octets(value: Value, place: str) -> bytes:
    """The content of a bit string of whole bytes.

    Raises:
        MalformedError: otherwise.
    """
    content = expect(value, BIT_STRING, place)
    if not content or content[0]:
        raise malformed(place, "a bit string of whole bytes", content)
    return content[1:]


def boolean(value: Value, place: str) -> bool:
    """A truth value.

    Raises:
        MalformedError: other bytes than DER's two.
    """
    content = expect(value, BOOLEAN, place)
    if content not in (b"\x00", b"\xff"):
        raise malformed(place, "a truth value", content)
    return content == b"\xff"


def instant(value: Value, place: str) -> datetime:
    """A time in UTC, in the forms of RFC 5280 §4.1.2.5.

    Raises:
        MalformedError: otherwise.
    """
    text = value.content.decode("ascii", "replace")
    if len(text) != _TIME_CHARS.get(value.tag) or not text.endswith("Z") or not text[:-1].isdigit():
        raise malformed(place, "a time in UTC with seconds", text)
    if value.tag == UTC_TIME:
        text = ("19" if int(text[:2]) >= _CENTURY_TURNS else "20") + text
    try:
        return datetime.strptime(text, "%Y%m%d%H%M%SZ").replace(tzinfo=UTC)
    except ValueError:
        raise malformed(place, "a real instant", text) from None
