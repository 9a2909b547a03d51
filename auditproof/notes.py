"""Signed notes and verifier keys (C2SP signed-note): text, an empty line, and signature lines."""

from __future__ import annotations

import base64
import hashlib
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from enum import IntEnum

from .errors import Name, SignatureError, malformed
from .signatures import check_ed25519_key, decode_base64, verify_ed25519

MAX_NOTE_BYTES = 64 * 1024  # a checkpoint with a hundred cosignatures has a fifth of it
MAX_SIGNATURES = 100  # C2SP asks for at least 16
KEY_ID_BYTES = 4
DASH = "\u2014"
_FORBIDDEN = re.compile(r"[\x00-\x09\x0b-\x1f\x7f-\x9f]")
_SPACE_OR_PLUS = re.compile(r"[\s+]")
_LINE = re.compile(rf"{DASH} (\S+) (\S+)")


class KeyType(IntEnum):
    """Signature types of C2SP signed-note that this package verifies."""

    ED25519 = 0x01
    COSIGNATURE = 0x04


@dataclass(frozen=True, slots=True)
class VerifierKey:
    """A public key under its name, as `vkey` strings carry it."""

    name: str
    type: KeyType
    public_key: bytes

    @classmethod
    def ed25519(cls, name: str, public_key: bytes) -> VerifierKey:
        """The key of a log.

        Raises:
            MalformedError: a name or point that the format refuses.
        """
        return cls(_check_name(name), KeyType.ED25519, check_ed25519_key(public_key, "vkey"))

    @classmethod
    def parse(cls, text: str) -> VerifierKey:
        """The key of a `NAME+HEXID+BASE64` string.

        Raises:
            MalformedError: another form, an unknown type, an id that is not the key's, a low-order point.
        """
        parts = text.split("+", 2)  # base64 may hold a plus itself
        if len(parts) != 3:  # noqa: PLR2004 -- name, id, key
            raise malformed("vkey", "NAME+ID+KEY", text)
        raw = decode_base64(parts[2], "vkey")
        if not raw or raw[0] not in set(KeyType):
            raise malformed("vkey", "a key of type 1 or 4", raw[:1])
        key = cls(_check_name(parts[0]), KeyType(raw[0]), check_ed25519_key(raw[1:], "vkey"))
        if key.key_id.hex() != parts[1]:
            raise malformed("vkey", f"the key id {key.key_id.hex()}", parts[1])
        return key

    @property
    def key_id(self) -> bytes:
        """First 4 bytes of `H(name || 0x0A || type || key)`."""
        return hashlib.sha256(self.name.encode() + b"\n" + bytes([self.type]) + self.public_key).digest()[:KEY_ID_BYTES]

    @property
    def text(self) -> str:
        """The `vkey` string."""
        return f"{self.name}+{self.key_id.hex()}+{base64.b64encode(bytes([self.type]) + self.public_key).decode()}"


@dataclass(frozen=True, slots=True)
class Signature:
    """One signature line; the blob's meaning depends on the key's type."""

    name: str
    key_id: bytes
    blob: bytes


@dataclass(frozen=True, slots=True)
class Note:
    """A parsed note; `text` ends in a line feed and is what signatures cover."""

    text: str
    signatures: tuple[Signature, ...]


def _check_name(name: str) -> str:
    if not name or _SPACE_OR_PLUS.search(name) or _FORBIDDEN.search(name):
        raise malformed("name", "a key name without spaces and plus signs", name)
    return name


def signature_line(name: str, key_id: bytes, blob: bytes) -> str:
    """One signature line, with its line feed."""
    return f"{DASH} {name} {base64.b64encode(key_id + blob).decode()}\n"


def parse_note(note: str) -> Note:
    """Text and signatures of a note.

    Raises:
        MalformedError: not the form of C2SP signed-note.
    """
    if len(note) > MAX_NOTE_BYTES or len(note.encode("utf-8", "surrogatepass")) > MAX_NOTE_BYTES:
        raise malformed("note", f"at most {MAX_NOTE_BYTES} bytes", len(note))
    if _FORBIDDEN.search(note) or any("\ud800" <= char <= "\udfff" for char in note):
        raise malformed("note", "UTF-8 without control characters but the line feed", note)
    text, separator, tail = note.rpartition("\n\n")
    if not separator or not tail.endswith("\n"):
        raise malformed("note", "a text, an empty line and signature lines", note)
    lines = tail[:-1].split("\n")
    if len(lines) > MAX_SIGNATURES:
        raise malformed("note", f"at most {MAX_SIGNATURES} signatures", len(lines))
    return Note(text + "\n", tuple(_parse_line(line) for line in lines))


def _parse_line(line: str) -> Signature:
    match = _LINE.fullmatch(line)
    if match is None:
        raise malformed("note", "a signature line", line)
    raw = decode_base64(match[2], "note")
    if len(raw) <= KEY_ID_BYTES:
        raise malformed("note", "a key id and a signature", raw)
    return Signature(_check_name(match[1]), raw[:KEY_ID_BYTES], raw[KEY_ID_BYTES:])


def open_note(note: str, keys: Iterable[VerifierKey]) -> tuple[Note, list[VerifierKey]]:
    """The note and the Ed25519 keys that signed it; signatures of other keys are ignored.

    Raises:
        MalformedError: not a note, or two signatures of one key.
        SignatureError: a known key's signature fails, or none of the keys signed.
    """
    parsed = parse_note(note)
    known = {(key.name, key.key_id): key for key in keys if key.type == KeyType.ED25519}
    signed: list[VerifierKey] = []
    for signature in parsed.signatures:
        key = known.get((signature.name, signature.key_id))
        if key is None:
            continue
        if key in signed:
            raise malformed("note", "one signature a key", key.name)
        verify_ed25519(key.public_key, signature.blob, parsed.text.encode(), place=f"note, key {key.key_id.hex()}")
        signed.append(key)
    if not signed:
        raise SignatureError(Name.SIGNATURE, "note", "a signature of a trusted key", "none")
    return parsed, signed


def find_signatures(note: Note, key: VerifierKey) -> Sequence[Signature]:
    """The note's signatures under this key's name and id."""
    return [item for item in note.signatures if (item.name, item.key_id) == (key.name, key.key_id)]
