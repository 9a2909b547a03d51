"""Checkpoints: the signed tree head of a log (C2SP tlog-checkpoint), without extension lines."""

from __future__ import annotations

import base64
import re
from collections.abc import Iterable
from dataclasses import dataclass

from . import headers, merkle, notes
from .errors import malformed
from .events import check_origin
from .signatures import decode_base64

_SIZE = re.compile(r"0|[1-9][0-9]{0,17}")


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """The root (32 bytes) of a log's first `size` entries."""

    origin: str
    size: int
    root: bytes

    def text(self) -> str:
        r"""`origin\\nsize\\nbase64(root)\\n`: what the signatures cover."""
        return f"{self.origin}\n{self.size}\n{base64.b64encode(self.root).decode()}\n"


def parse_text(text: str) -> Checkpoint:
    """The tree head of a note's text.

    Raises:
        MalformedError: other lines than origin, size and root; the empty tree with another root than `H("")`.
    """
    lines = text.split("\n")
    if len(lines) != 4 or lines[3]:  # noqa: PLR2004 -- three lines, each ended
        raise malformed("checkpoint", "origin, size and root, a line each", text)
    origin, size, encoded, _ = lines
    headers.check_origin_name(origin, "checkpoint")
    if _SIZE.fullmatch(size) is None:
        raise malformed("checkpoint", "a decimal size without leading zeros", size)
    root = decode_base64(encoded, "checkpoint")
    if len(root) != merkle.HASH_BYTES or (int(size) == 0 and root != merkle.EMPTY_ROOT):
        raise malformed("checkpoint", "a root of 32 bytes; of the empty tree SHA-256 of nothing", root)
    return Checkpoint(origin, int(size), root)


def open_checkpoint(note: str, *, origin: str, keys: Iterable[notes.VerifierKey]) -> Checkpoint:
    """The tree head, signed by at least one of the keys.

    Raises:
        MalformedError: no checkpoint.
        ChainError: ORIGIN, of another log.
        SignatureError: none of the keys signed it, or one's signature fails.
    """
    return open_signed(note, origin=origin, keys=keys)[0]


def open_signed(
    note: str, *, origin: str, keys: Iterable[notes.VerifierKey]
) -> tuple[Checkpoint, list[notes.VerifierKey]]:
    """As `open_checkpoint`, with the keys that signed."""
    parsed = notes.parse_note(note)
    checkpoint = parse_text(parsed.text)
    check_origin(checkpoint.origin, origin, "checkpoint")
    _, signed = notes.open_note(note, keys)
    return checkpoint, signed
